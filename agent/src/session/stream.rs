//! One session from its Hello to its end: samples up, instructions down.

use std::{collections::VecDeque, error::Error as _, time::Duration};

use mainstay_common::{
    Timestamp,
    process::{
        now,
        tls::{Verdict, dial, explain, watched_channel},
    },
    text::Shown,
    time,
};
use mainstay_proto::{
    MAX_MESSAGE_BYTES,
    v1::{self as pb, agent_client::AgentClient, instruction::Instruction, report::Report},
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{NODE_REMOVED, Retry, Voice, holding::Holding};
use crate::{
    board::Snapshot,
    delta::{Head, Told},
    identity::Held,
};

/// Longest wait for a connection, and again for the Welcome.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait of the first sample for the first readings.
const FIRST: Duration = Duration::from_millis(250);
/// Urgent samples come at most this often.
const URGENT: Duration = Duration::from_secs(1);
/// Everything is told anew this often.
const WHOLE: Duration = Duration::from_secs(300);
/// Clocks that differ by this much are worth a warning.
const CLOCK: Duration = Duration::from_secs(30);

/// Why there is no session any longer.
pub(super) enum Ended {
    /// The cluster removed this node; the rest of what it said.
    Removed(String),
    /// The replica does not take this certificate any more: why, and the certificate.
    OutOfDate(String, Box<Held>),
    /// Anything else: worth another try.
    Because(String),
}

impl Ended {
    fn from_status(status: &Status, held: &Held, verdict: &Verdict) -> Self {
        let mut lines = status.message().lines();
        if status.code() == Code::PermissionDenied && lines.next() == Some(NODE_REMOVED) {
            return Self::Removed(Shown::new(&lines.collect::<Vec<_>>().join(" ")).cut(300).to_string());
        }
        let reason = verdict
            .words()
            .or_else(|| explain(status))
            .unwrap_or_else(|| format!("{}: {}", status.code(), Shown::new(status.message()).cut(300)));
        let (certificate, clock) = (&held.certificate, now());
        if verdict.is_out_of_date() || (status.source().is_some() && clock > certificate.not_after) {
            let (begin, end) = (certificate.not_before, certificate.not_after);
            let why = format!("{reason}: it counts from {begin} to {end}, and this machine's clock says {clock}");
            return Self::OutOfDate(why, Box::new(held.clone()));
        }
        Self::Because(reason)
    }
}

/// Dials, says Hello and speaks until the session ends.
pub(super) async fn speak(voice: &Voice, address: &str, retry: &mut Retry, last_reason: &mut String) -> Ended {
    let identity = &voice.identity;
    let held = identity.held();
    let stream = match dial(address, &identity.server_name(), held.client(), ANSWER).await {
        Ok(stream) => stream,
        Err(error) => return Ended::Because(error.to_string()),
    };
    let (channel, verdict) = match timeout(ANSWER, watched_channel(stream)).await {
        Ok(Ok(watched)) => watched,
        Ok(Err(error)) => return Ended::Because(error.to_string()),
        Err(_) => return Ended::Because("no answer".into()),
    };
    // One report waits here and one in the connection: what is newer is made when there is room for it.
    let (reports, outgoing) = mpsc::channel(1);
    let hello = pb::Hello {
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: voice.boot_id.clone(),
        interval_ms: u64::try_from(voice.interval.as_millis()).unwrap_or(u64::MAX),
        sent_at_ms: now().0,
    };
    // Room for one report was made a line above.
    let _queued = reports.try_send(pb::Report { report: Some(Report::Hello(hello)) });
    let mut client = AgentClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let opening = async {
        let mut instructions = client.session(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = instructions.message().await?;
        Ok::<_, Status>((instructions, first))
    };
    let (instructions, first) = match timeout(ANSWER, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => return Ended::from_status(&status, &held, &verdict),
        Err(_) => return Ended::Because(format!("no welcome within {}", time::span(ANSWER))),
    };
    let Some(pb::Instruction { instruction: Some(Instruction::Welcome(welcome)) }) = first else {
        return Ended::Because("it did not begin with a welcome".into());
    };
    if let Err(left_behind) = identity.hear_generation(welcome.generation) {
        return Ended::Because(left_behind);
    }
    welcomed(voice, address, &welcome);
    retry.stood(Duration::from_millis(welcome.spread_ms));
    last_reason.clear();
    let reporter = Reporter { voice, asked: false };
    let agrees = clocks_agree(welcome.sent_at_ms);
    let holding = Holding::new(address, identity.watch_held(), held);
    let speaking =
        Speaking { voice, reports, told: Told::default(), pending: VecDeque::new(), holding, verdict, agrees };
    speaking.run(instructions, reporter).await
}

fn welcomed(voice: &Voice, address: &str, welcome: &pb::Welcome) {
    voice.stands.set(address, true);
    tracing::info!(replica = address, id = %Shown::new(&welcome.replica).cut(64), "session stands");
    let (here, there) = (now(), Timestamp(welcome.sent_at_ms));
    voice.identity.floor().heard(there, voice.identity.certificate().not_after);
    let apart = here.since(there).max(there.since(here));
    if !clocks_agree(welcome.sent_at_ms) {
        let which = if here > there { "ahead of" } else { "behind" };
        tracing::warn!(
            replica = address, apart = time::span(apart), %here, %there, "this machine's clock is {which} the replica's"
        );
    }
    voice.identity.learn(&welcome.addresses);
}

/// Whether this machine's clock and a replica's say the same.
fn clocks_agree(sent_at_ms: i64) -> bool {
    let (here, there) = (now(), Timestamp(sent_at_ms));
    here.since(there).max(there.since(here)) < CLOCK
}

/// One replica's wish that this manager reports its Swarm; ends with the session.
struct Reporter<'a> {
    voice: &'a Voice,
    asked: bool,
}

impl Reporter<'_> {
    fn set(&mut self, reports: bool) {
        if std::mem::replace(&mut self.asked, reports) != reports {
            self.voice.asked_to_report(reports);
        }
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// A session that stands.
struct Speaking<'a> {
    voice: &'a Voice,
    reports: mpsc::Sender<pb::Report>,
    told: Told,
    /// Parts of a sample that was too large for one message.
    pending: VecDeque<pb::Sample>,
    holding: Holding,
    verdict: Verdict,
    /// This machine's clock can be relied on.
    agrees: bool,
}

impl Speaking<'_> {
    async fn run(mut self, mut instructions: Streaming<pb::Instruction>, mut reporter: Reporter<'_>) -> Ended {
        let mut board = self.voice.board.watch();
        let mut clock = Clock::new(Instant::now(), self.voice.interval, &board.borrow_and_update());
        loop {
            let owes = clock.owed || !self.pending.is_empty() || self.holding.is_owed();
            tokio::select! {
                said = instructions.message() => match said {
                    Ok(Some(pb::Instruction { instruction: Some(Instruction::SwarmReporter(wish)) })) => {
                        reporter.set(wish.reports);
                    }
                    Ok(Some(pb::Instruction { instruction: Some(Instruction::Welcome(welcome)) })) => {
                        if let Err(left_behind) = self.voice.identity.hear_generation(welcome.generation) {
                            return Ended::Because(left_behind);
                        }
                        self.voice.identity.learn(&welcome.addresses);
                    }
                    Ok(Some(pb::Instruction { instruction: Some(Instruction::Trust(trust)) })) => {
                        self.holding.told(&self.voice.identity, trust);
                    }
                    // What a newer coordinator may say.
                    Ok(Some(pb::Instruction { instruction: None })) => {}
                    Ok(None) => return Ended::Because("the replica ended the session".into()),
                    Err(status) => return Ended::from_status(&status, &self.holding.shown, &self.verdict),
                },
                () = self.holding.changed() => {}
                room = self.reports.reserve(), if owes => {
                    let Ok(room) = room else { return Ended::Because("the connection ended".into()) };
                    if let Some(holding) = self.holding.take() {
                        room.send(pb::Report { report: Some(Report::Holding(holding)) });
                        continue;
                    }
                    if self.pending.is_empty() {
                        let whole = clock.sent(Instant::now());
                        if whole && self.agrees {
                            self.voice.identity.floor().heard(now(), self.voice.identity.certificate().not_after);
                        }
                        let snapshot = board.borrow_and_update().clone();
                        let head = Head {
                            taken_at: now(),
                            boot_id: self.voice.boot_id.clone(),
                            agent: self.voice.agent.borrow().clone(),
                        };
                        self.pending.extend(self.told.samples(&snapshot, &head, whole));
                    }
                    if let Some(sample) = self.pending.pop_front() {
                        let report = pb::Report { report: Some(Report::Sample(sample)) };
                        // gRPC puts five bytes before a message.
                        self.voice.stands.sent(report.encoded_len() + 5);
                        room.send(report);
                    }
                }
                () = sleep_until(clock.next) => if clock.due(Instant::now()) {
                    self.voice.stands.overtaken();
                },
                changed = board.changed() => {
                    if changed.is_err() {
                        return Ended::Because("the eyes ended".into());
                    }
                    clock.saw(&board.borrow_and_update(), Instant::now());
                }
            }
        }
    }
}

/// When a sample is owed.
#[derive(Debug)]
struct Clock {
    interval: Duration,
    /// When to look again.
    next: Instant,
    /// A sample should go as soon as there is room.
    owed: bool,
    last: Option<Instant>,
    whole_at: Instant,
    urgent: u64,
    blocks: usize,
}

impl Clock {
    fn new(now: Instant, interval: Duration, snapshot: &Snapshot) -> Self {
        let complete = complete(snapshot);
        Self {
            interval,
            next: if complete { now + interval } else { now + FIRST },
            owed: complete,
            last: None,
            whole_at: now + WHOLE,
            urgent: snapshot.urgent,
            blocks: blocks(snapshot),
        }
    }

    /// The time of `next` came. True where the sample owed before was overtaken.
    fn due(&mut self, now: Instant) -> bool {
        self.next = now + self.interval;
        std::mem::replace(&mut self.owed, true)
    }

    /// The board changed: the first readings and urgent changes bring the next sample forward.
    fn saw(&mut self, snapshot: &Snapshot, now: Instant) {
        let urgent = snapshot.urgent != self.urgent || blocks(snapshot) > self.blocks;
        (self.urgent, self.blocks) = (snapshot.urgent, blocks(snapshot));
        match self.last {
            None => self.owed |= complete(snapshot),
            Some(last) if urgent => self.next = self.next.min((last + URGENT).max(now)),
            Some(_) => {}
        }
    }

    /// A sample is made now. True where it should tell everything.
    fn sent(&mut self, now: Instant) -> bool {
        (self.owed, self.last, self.next) = (false, Some(now), now + self.interval);
        let whole = now >= self.whole_at;
        if whole {
            self.whole_at = now + WHOLE;
        }
        whole
    }
}

/// True when the quick collectors have reported once.
fn complete(snapshot: &Snapshot) -> bool {
    snapshot.host.is_some() && snapshot.disks.is_some() && snapshot.mounts.is_some()
}

/// Blocks and tables that are known.
fn blocks(snapshot: &Snapshot) -> usize {
    [
        snapshot.host.is_some(),
        snapshot.disks.is_some(),
        snapshot.mounts.is_some(),
        snapshot.volumes.is_some(),
        snapshot.containers.is_some(),
        snapshot.engine.is_some(),
        snapshot.swarm.is_some(),
    ]
    .into_iter()
    .filter(|known| *known)
    .count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_sample_waits_a_quarter_of_a_second_at_most() {
        let start = Instant::now();
        let mut clock = Clock::new(start, INTERVAL, &Snapshot::default());
        assert!(!clock.owed);
        assert_eq!(clock.next - start, FIRST);
        clock.saw(&seen(), start);
        assert!(clock.owed);
        assert!(Clock::new(start, INTERVAL, &seen()).owed);
    }

    #[test]
    fn urgent_changes_go_at_once_but_not_more_than_once_a_second() {
        let start = Instant::now();
        let mut clock = Clock::new(start, INTERVAL, &seen());
        assert!(!clock.sent(start));
        let soon = start + Duration::from_millis(100);
        clock.saw(&Snapshot { urgent: 1, ..seen() }, soon);
        assert_eq!(clock.next, start + URGENT);
        let later = start + Duration::from_secs(5);
        assert!(!clock.due(later));
        clock.sent(later);
        clock.saw(&Snapshot { urgent: 2, ..seen() }, later + URGENT * 2);
        assert_eq!(clock.next, later + URGENT * 2);
    }

    #[test]
    fn a_sample_nobody_took_is_overtaken() {
        let start = Instant::now();
        let mut clock = Clock::new(start, INTERVAL, &seen());
        clock.sent(start);
        assert!(!clock.due(start + INTERVAL));
        assert!(clock.due(start + INTERVAL * 2));
        assert!(!clock.sent(start + INTERVAL * 2));
        assert!(clock.sent(start + WHOLE), "everything anew after five minutes");
    }

    #[test]
    fn only_the_exact_words_mean_removed() {
        let held = Held::of_nobody();
        let ended =
            |status: Status| matches!(Ended::from_status(&status, &held, &Verdict::default()), Ended::Removed(_));
        assert!(ended(Status::permission_denied("node removed\nby anna")));
        assert!(!ended(Status::permission_denied("not allowed")));
        assert!(!ended(Status::unauthenticated("node removed")));
    }

    fn seen() -> Snapshot {
        Snapshot {
            host: Some(Arc::default()),
            disks: Some(Arc::default()),
            mounts: Some(Arc::default()),
            ..Snapshot::default()
        }
    }
}
