//! Local filesystems: their sizes as `df` shows them, what their devices do, and what they say of their health.
//!
//! Only children ask a filesystem: a dead iSCSI target blocks `statfs` on ext4 as a dead server does on NFS. A disk that
//! does not answer is unknown, keeps its last sizes with their age, and holds up no other.

mod device;
mod diskstats;
mod judge;
mod system;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mainstay_common::{Timestamp, process::now, state::DiskState, text::Shown};
use mainstay_proto::v1 as pb;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    judge::{Known, Last},
    system::{System, Told as SystemTold},
};
use super::{
    Eyes, Late, Once,
    listing::Listed,
    mountinfo::{Mounted, Mounts},
    sleep_until_some, within,
};
use crate::{
    board::{Collector, Table},
    probe::{Ask, Key, Outcome, Told},
};

/// A disk answers in microseconds: what takes longer comes with a later table.
const GRACE: Duration = Duration::from_millis(150);
/// Counters and health come from the kernel's own memory.
const SYSTEM_LIMIT: Duration = Duration::from_secs(2);

/// Reads all disks every interval until the eyes stop.
pub async fn run(eyes: Eyes, mut listing: watch::Receiver<Listed>) {
    let mut ticks = interval(eyes.config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = eyes.stop.clone();
    let mut round = Round::new(eyes);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = listing.changed() => {
                if changed.is_err() {
                    return;
                }
                let listed = listing.borrow_and_update().clone();
                round.list(&listed);
            }
            Some(done) = round.work.join_next() => if let Ok(done) = done {
                round.take(done);
            },
            _ = ticks.tick() => round.begin(),
            () = sleep_until_some(round.tell_at) => round.tell(),
        }
        if round.tell_at.is_some() && round.work.is_empty() {
            round.tell();
        }
    }
}

/// What was waited for.
enum Done {
    Answer(Vec<u8>, Outcome),
    System(Result<(Box<System>, SystemTold), Late>),
}

/// All disks, and the questions that are underway.
struct Round {
    eyes: Eyes,
    mounts: Option<Arc<Mounts>>,
    disks: BTreeMap<Vec<u8>, Known>,
    asked: BTreeSet<Vec<u8>>,
    work: JoinSet<Done>,
    once: Once,
    system: Option<Box<System>>,
    began: Instant,
    /// When the board is told, also without those who have not answered.
    tell_at: Option<Instant>,
    list_error: Option<String>,
    system_error: Option<String>,
    told: BTreeMap<Vec<u8>, i32>,
}

impl Round {
    fn new(eyes: Eyes) -> Self {
        Self {
            eyes,
            mounts: None,
            disks: BTreeMap::new(),
            asked: BTreeSet::new(),
            work: JoinSet::new(),
            once: Once::default(),
            system: None,
            began: Instant::now(),
            tell_at: None,
            list_error: None,
            system_error: None,
            told: BTreeMap::new(),
        }
    }

    /// Takes over a new list: what is new is asked at once.
    fn list(&mut self, listed: &Listed) {
        self.list_error.clone_from(&listed.error);
        let first = self.mounts.is_none();
        if let Some(mounts) = &listed.mounts {
            let known = &mut self.disks;
            let mut disk = |disk: &Mounted| (disk.key(), known.remove(&disk.key()).unwrap_or_default());
            self.disks = mounts.disks.iter().map(&mut disk).collect();
            self.mounts = Some(Arc::clone(mounts));
        }
        let unread = self.disks.values().any(|known| known.last == Last::Nothing);
        if first || unread {
            self.begin();
        } else {
            self.tell_at.get_or_insert_with(Instant::now);
        }
    }

    /// Asks everyone who does not owe an answer.
    fn begin(&mut self) {
        let Some(mounts) = &self.mounts else {
            // Without a list there is nothing to ask, only something to complain of.
            if self.list_error.is_some() {
                self.complain();
            }
            return;
        };
        self.began = Instant::now();
        self.tell_at = Some(self.began + GRACE);
        for disk in &mounts.disks {
            let key = disk.key();
            if self.asked.insert(key.clone()) {
                let (probes, path) = (self.eyes.probes.clone(), disk.entry.path.clone());
                self.work.spawn(async move {
                    let outcome = probes.ask(Key::local(key.clone()), Ask::Statfs(path)).await;
                    Done::Answer(key, outcome)
                });
            }
        }
        let config = &self.eyes.config;
        let mut system =
            self.system.take().unwrap_or_else(|| Box::new(System::new(&config.proc_root, &config.sys_root)));
        let (once, mounts) = (self.once.clone(), Arc::clone(mounts));
        self.work.spawn(async move {
            let read = within(&once, SYSTEM_LIMIT, move || {
                let told = system.read(&mounts);
                (system, told)
            });
            Done::System(read.await)
        });
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Answer(key, outcome) => {
                self.asked.remove(&key);
                let mount_id = self.mount_id(&key);
                if let Some(known) = self.disks.get_mut(&key) {
                    note(known, outcome, mount_id, now());
                }
                // Who answers after the table was told is told by another one.
                self.tell_at.get_or_insert_with(Instant::now);
            }
            Done::System(Ok((system, told))) => {
                self.system = Some(system);
                self.system_error = told.error;
                for (key, (io, health)) in told.disks {
                    if let Some(known) = self.disks.get_mut(&key) {
                        (known.io, known.health) = (io, health);
                    }
                }
            }
            Done::System(Err(late)) => self.system_error = Some(format!("counters of disks: {late}")),
        }
    }

    fn mount_id(&self, key: &[u8]) -> Option<u32> {
        let disk = self.mounts.as_ref()?.disks.iter().find(|disk| disk.key() == key)?;
        Some(disk.entry.id)
    }

    /// Puts the table on the board; a change of state is told at once.
    fn tell(&mut self) {
        self.tell_at = None;
        let Some(mounts) = &self.mounts else { return self.complain() };
        let mut table = Table { read_at: now(), rows: BTreeMap::new(), left_out: mounts.disks_left_out };
        for disk in &mounts.disks {
            if let Some(known) = self.disks.get(&disk.key()) {
                table.rows.insert(disk.entry.path.clone(), judge::row(disk, known));
            }
        }
        let states: BTreeMap<_, _> = table.rows.iter().map(|(mount, row)| (mount.clone(), row.state)).collect();
        let urgent = !self.told.is_empty() && states != self.told;
        log(&self.told, &table);
        self.told = states;
        let table = Some(Arc::new(table));
        if urgent {
            self.eyes.board.put_urgent(|board| board.disks = table);
        } else {
            self.eyes.board.put(|board| board.disks = table);
        }
        self.complain();
    }

    fn complain(&self) {
        let lost = self.disks.values().find_map(|known| match &known.last {
            Last::NotAsked(why) => Some(why.clone()),
            Last::Nothing | Last::Told(_) | Last::Silent(_) => None,
        });
        let error = self.list_error.clone().or(lost).or_else(|| self.system_error.clone());
        self.eyes.board.fared(Collector::Disk, self.began.elapsed(), error, now());
    }
}

/// Notes what came of a question. An answer of another mount, which took its place since, is none.
fn note(known: &mut Known, outcome: Outcome, mount_id: Option<u32>, at: Timestamp) {
    known.latency_seconds = None;
    known.last = match outcome {
        Outcome::Answered(answer) => match answer.told {
            Ok(Told::Space(space)) if space.mount_id != 0 && mount_id.is_some_and(|id| id != space.mount_id) => return,
            Ok(Told::Space(space)) => {
                known.space = Some((space, at));
                known.latency_seconds = Some(answer.took.as_secs_f64());
                Last::Told(Ok(()))
            }
            Ok(Told::Names(..) | Told::Content(..) | Told::Owners(_)) => {
                Last::NotAsked("the child answered another question".to_owned())
            }
            Err(errno) => Last::Told(Err(errno)),
        },
        Outcome::Hung(outstanding) => Last::Silent(outstanding.since),
        Outcome::Busy(since) => Last::Silent(since),
        Outcome::Limit => Last::NotAsked("probe_limit".to_owned()),
        Outcome::Lost(why) => Last::NotAsked(why),
    };
}

/// One line for every change of state.
fn log(before: &BTreeMap<Vec<u8>, i32>, table: &Table<pb::Disk>) {
    for (mount, row) in &table.rows {
        let state = DiskState::from_number(row.state).unwrap_or(DiskState::Unknown);
        let unchanged = match before.get(mount) {
            Some(before) => *before == row.state,
            None => matches!(state, DiskState::Ok | DiskState::Readonly),
        };
        if !unchanged {
            tracing::info!(mount = %Shown::new(mount), %state, reason = %Shown::new(&row.reason), "disk");
        }
    }
}
