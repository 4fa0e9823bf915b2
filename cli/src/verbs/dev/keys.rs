//! The keys of a mesh of several replicas: one can be killed before one's eyes, and brought back.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use mainstay_common::Failure;
use mainstay_proto::v1::{self as pb, admin_client::AdminClient, viewer_client::ViewerClient};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FileType, fstat},
    process::getpgrp,
    termios::tcgetpgrp,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{group::Group, screen};
use crate::connect::Located;

/// What is said of the keys.
pub(super) const HELP: &str = "k kills the leader, r brings back what is down, t has another one lead; then Enter";
/// How long others may take to choose a leader, and one that was down to be back.
const LIMIT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long one replica may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a program in the background looks whether it is in front again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What somebody types, a line at a time.
pub(super) struct Keys(mpsc::UnboundedReceiver<String>);

impl Keys {
    /// Where there is somebody to type: a terminal, or a program at the other end of a pipe.
    pub(super) fn open() -> Option<Self> {
        let stdin = io::stdin();
        let is_pipe = fstat(stdin.as_fd())
            .is_ok_and(|stat| matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket));
        if !stdin.is_terminal() && !is_pipe {
            return None;
        }
        let (lines, typed) = mpsc::unbounded_channel();
        // It ends with the process: a read cannot be called off.
        let read = thread::Builder::new().name("keys".into()).spawn(move || read(&lines));
        read.is_ok().then_some(Self(typed))
    }

    /// The next line; waits for ever where no more can come.
    pub(super) async fn next(&mut self) -> String {
        match self.0.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

fn read(lines: &mpsc::UnboundedSender<String>) {
    let stdin = io::stdin();
    loop {
        if stdin.is_terminal() {
            // Whoever reads from a terminal in the background is stopped by the kernel.
            let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
            while poll(&mut ready, None).is_ok() && !tcgetpgrp(&stdin).is_ok_and(|front| front == getpgrp()) {
                thread::park_timeout(LOOK_EVERY);
            }
        }
        let mut line = String::new();
        match stdin.lock().read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if lines.send(line).is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Does what a line says.
///
/// # Errors
/// Where nothing can be printed, or a replica cannot be started.
pub(super) async fn obey(line: &str, group: &mut Group, located: &Located) -> Result<(), Failure> {
    match line.trim() {
        "" => Ok(()),
        "k" => kill(group, located).await,
        "r" => bring_back(group, located).await,
        "t" => transfer(group, located).await,
        _ => screen::say(HELP),
    }
}

async fn kill(group: &mut Group, located: &Located) -> Result<(), Failure> {
    let Some((leader, _)) = look(group, located).await else { return screen::say("nobody leads now: r brings back") };
    group.kill(leader);
    let (left, all, begun) = (group.alive().count(), group.places().len(), Instant::now());
    if left * 2 <= all {
        return screen::say(&format!("killed {}, which led; {left} of {all} cannot decide: r brings back", id(leader)));
    }
    screen::say(&format!("killed {}, which led; {left} of {all} go on", id(leader)))?;
    let next = async |group: &Group| look(group, located).await.map(|(next, _)| next).filter(|next| *next != leader);
    match until(group, next).await {
        Some(next) => screen::say(&format!("{} leads now, after {}", id(next), after(begun))),
        None => screen::say("nobody leads yet: RUST_LOG=debug mainstay dev tells why"),
    }
}

async fn bring_back(group: &mut Group, located: &Located) -> Result<(), Failure> {
    let (down, begun) = (group.down(), Instant::now());
    for at in &down {
        // Whether it is back is seen below.
        drop(group.begin(*at)?);
    }
    let names: Vec<String> = down.iter().map(|at| id(*at)).collect();
    if names.is_empty() {
        return screen::say("nobody is down");
    }
    let well = async |group: &Group| {
        let (_, rows) = look(group, located).await?;
        let is_well = |row: &pb::ReplicaStanding| row.healthy && row.lag_entries == Some(0);
        (rows.len() == group.places().len() && rows.iter().all(is_well)).then_some(())
    };
    let (is, has) = if names.len() == 1 { ("is", "has") } else { ("are", "have") };
    match until(group, well).await {
        Some(()) => screen::say(&format!("{} {is} back and {has} all, after {}", names.join(" and "), after(begun))),
        None => {
            screen::say(&format!("{} {is} not back yet: RUST_LOG=debug mainstay dev tells why", names.join(" and ")))
        }
    }
}

async fn transfer(group: &Group, located: &Located) -> Result<(), Failure> {
    let Some((leader, _)) = look(group, located).await else { return screen::say("nobody leads now") };
    let address = group.places()[leader].listen.to_string();
    let asked = async {
        let (_, channel) = crate::connect::connect(located, &[address]).await.map_err(|failure| failure.why)?;
        let answer = AdminClient::new(channel).transfer_leadership(pb::TransferLeadershipRequest::default()).await;
        answer.map(|answer| answer.into_inner().replica).map_err(|status| status.message().replace('\n', "; "))
    };
    match asked.await {
        Ok(next) => screen::say(&format!("{next} leads now, as {} wished", id(leader))),
        Err(why) => screen::say(&format!("{} leads still: {why}", id(leader))),
    }
}

/// The leader, as it says itself, and how all stand as it knows them.
async fn look(group: &Group, located: &Located) -> Option<(usize, Vec<pb::ReplicaStanding>)> {
    for at in group.alive() {
        let address = group.places()[at].listen.to_string();
        let asked = async {
            let (_, channel) = crate::connect::connect(located, &[address]).await.ok()?;
            // Only the leader answers.
            let answer = ViewerClient::new(channel).get_cluster(pb::GetClusterRequest {}).await.ok()?;
            Some(answer.into_inner().rows)
        };
        if let Ok(Some(rows)) = timeout(ANSWER, asked).await {
            return Some((at, rows));
        }
    }
    None
}

async fn until<T>(group: &Group, ask: impl AsyncFn(&Group) -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask(group).await {
            Some(answer) => return Some(answer),
            None if Instant::now() >= deadline => return None,
            None => sleep(ASK_EVERY).await,
        }
    }
}

/// The first replica is r1.
fn id(at: usize) -> String {
    format!("r{}", at + 1)
}

fn after(begun: Instant) -> String {
    format!("{:.2}s", begun.elapsed().as_secs_f64())
}
