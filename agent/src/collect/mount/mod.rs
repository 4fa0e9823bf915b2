//! Network and FUSE mounts: how each answers on this node, and for rclone what waits behind it.
//!
//! Every mount has a [`life`]; children ask, and a mount that hangs keeps its one child and nothing else. What rclone's
//! remote control and the process behind a mount say is read apart, and joins the row.

mod behind;
mod life;
mod row;
mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mainstay_common::{process::now, state::MountState, text::Shown};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    behind::{Behind, Search, Watched},
    life::{Event, Life, Now},
    verdict::{Size, Verdict},
};
use super::{
    Eyes, Once,
    listing::Listed,
    mountinfo::{Mounted, Mounts, is_at_or_below},
    rclone, sleep_until_some, within,
};
use crate::{
    board::{Collector, Table},
    probe::{Ask, Key, Outcome},
};

/// Time between two questions to one mount.
const EVERY: Duration = Duration::from_secs(5);
/// Time between two looks at the processes behind FUSE mounts, which cost no question.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Procfs and sysfs answer at once.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Answers that come together are told together.
const GATHER: Duration = Duration::from_millis(30);
/// A mount that left is missed for a day.
const MISSED_FOR: Duration = Duration::from_secs(86_400);

/// Follows all mounts until the eyes stop.
pub async fn run(eyes: Eyes, mut listing: watch::Receiver<Listed>) {
    let stop = eyes.stop.clone();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut eye = Eye::new(eyes);
    loop {
        let due = eye.next_due();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = listing.changed() => {
                if changed.is_err() {
                    return;
                }
                let listed = listing.borrow_and_update().clone();
                eye.list(&listed);
            }
            Some(done) = eye.work.join_next() => if let Ok(done) = done { eye.take(done) },
            _ = looks.tick() => eye.look(),
            () = sleep_until_some(eye.tell_at) => eye.tell(),
            () = sleep_until_some(due) => eye.ask_due(),
        }
    }
}

/// What was waited for.
enum Done {
    /// What came of a question to the mount of this key.
    Outcome(Vec<u8>, Outcome),
    /// A question that hung was answered after all; `true`: with an error, or not at all.
    Late(Vec<u8>, bool),
    /// Which processes serve mounts.
    Owners(Search),
    /// How those processes fare, by the key of their mount.
    Looked(Vec<(Vec<u8>, Behind)>),
    /// rclone told something new of the mount of this key.
    Rclone(Vec<u8>, watch::Receiver<rclone::Known>),
}

/// A mount and all that is known of it.
struct Mount {
    mounted: Mounted,
    life: Life,
    /// rclone's own way to say that its remote did not answer.
    remote_failed: bool,
    watched: Watched,
}

/// A mount that should be there and is not.
struct Missed {
    life: Life,
    source: Vec<u8>,
    fs: String,
    /// Until then, where nobody configured it.
    until: Option<Instant>,
}

struct Eye {
    eyes: Eyes,
    uid: u32,
    listed: bool,
    list_error: Option<String>,
    left_out: u64,
    mounts: BTreeMap<Vec<u8>, Mount>,
    missed: BTreeMap<Vec<u8>, Missed>,
    work: JoinSet<Done>,
    once: Once,
    remotes: rclone::Remotes,
    searching: bool,
    tell_at: Option<Instant>,
    told: BTreeMap<Vec<u8>, i32>,
}

fn moment() -> Now {
    Now { wall: now(), steady: Instant::now() }
}

impl Eye {
    fn new(eyes: Eyes) -> Self {
        Self {
            eyes,
            uid: rustix::process::geteuid().as_raw(),
            listed: false,
            list_error: None,
            left_out: 0,
            mounts: BTreeMap::new(),
            missed: BTreeMap::new(),
            work: JoinSet::new(),
            once: Once::default(),
            remotes: rclone::Remotes::default(),
            searching: false,
            tell_at: None,
            told: BTreeMap::new(),
        }
    }

    /// Takes over a new list: what is new is asked, what left is missed.
    fn list(&mut self, listed: &Listed) {
        self.list_error.clone_from(&listed.error);
        if let Some(mounts) = &listed.mounts {
            self.take_list(mounts, &listed.engine_root);
            self.left_out = mounts.network_left_out;
            self.listed = true;
        }
        self.tell_soon();
        self.search();
        self.ask_due();
    }

    fn take_list(&mut self, mounts: &Arc<Mounts>, engine_root: &[u8]) {
        let at = moment();
        let mut before = std::mem::take(&mut self.mounts);
        for mounted in &mounts.network {
            let key = mounted.key();
            let mount = match before.remove(&key) {
                // Aliases come and go, and so does what covers it.
                Some(there) if there.mounted.shadowed == mounted.shadowed => {
                    Mount { mounted: mounted.clone(), ..there }
                }
                Some(_) | None => self.fresh(mounted, at),
            };
            self.mounts.insert(key, mount);
        }
        for (_, gone) in before {
            let path = &gone.mounted.entry.path;
            if !mounts.is_mounted(path) && !is_at_or_below(path, engine_root) {
                let mut life = gone.life;
                life.on(Event::Left, at);
                let entry = gone.mounted.entry;
                let until = Some(at.steady + MISSED_FOR);
                self.missed.insert(entry.path, Missed { life, source: entry.source, fs: entry.fs, until });
            }
        }
        for path in &self.eyes.config.expect_mounts {
            let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
            let missed = self.missed.entry(path).or_insert_with(|| Missed {
                life: Life::missing(at.wall, at),
                source: Vec::new(),
                fs: String::new(),
                until: None,
            });
            missed.until = None;
        }
        self.missed.retain(|path, _| !mounts.is_mounted(path));
    }

    fn fresh(&self, mounted: &Mounted, at: Now) -> Mount {
        let life = if mounted.shadowed {
            Life::unasked("shadowed", at)
        } else if mounted.automounted && !self.eyes.config.probe_automounts {
            Life::unasked("automounted", at)
        } else {
            Life::new(EVERY, at)
        };
        Mount { mounted: mounted.clone(), life, remote_failed: false, watched: Watched::default() }
    }

    fn next_due(&self) -> Option<Instant> {
        self.mounts.values().filter_map(|mount| mount.life.due()).min()
    }

    /// Asks every mount whose time has come.
    fn ask_due(&mut self) {
        let at = moment();
        for (key, mount) in &mut self.mounts {
            if mount.life.due().is_some_and(|due| due <= at.steady) {
                mount.life.on(Event::Asked, at);
                let (probes, key, path) = (self.eyes.probes.clone(), key.clone(), mount.mounted.entry.path.clone());
                self.work.spawn(async move {
                    let outcome = probes.ask(Key::network(key.clone()), Ask::Statfs(path)).await;
                    Done::Outcome(key, outcome)
                });
            }
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Outcome(key, outcome) => self.outcome(&key, outcome),
            Done::Late(key, failed) => self.on(&key, Event::AnsweredLate { failed }),
            Done::Owners(search) => self.owners(search),
            Done::Looked(all) => {
                for (key, behind) in all {
                    self.behind(&key, behind);
                }
            }
            Done::Rclone(key, known) => self.rclone(&key, known),
        }
        self.ask_due();
    }

    fn on(&mut self, key: &[u8], event: Event) {
        if let Some(mount) = self.mounts.get_mut(key) {
            mount.life.on(event, moment());
            self.tell_soon();
        }
    }

    fn outcome(&mut self, key: &[u8], outcome: Outcome) {
        let event = match outcome {
            Outcome::Answered(answer) => {
                let Some(mount) = self.mounts.get_mut(key) else { return };
                match Verdict::of(&answer, &mount.mounted, self.uid) {
                    Some(verdict) => {
                        match verdict.sizes {
                            Size::RemoteFailed => mount.remote_failed = true,
                            Size::Known(_) | Size::Unknown => mount.remote_failed = false,
                            Size::RemoteUnknown | Size::Nothing => {}
                        }
                        Event::Answered(verdict)
                    }
                    None => Event::NotAsked("another mount is in its place".to_owned()),
                }
            }
            Outcome::Hung(outstanding) => {
                let (key, since) = (key.to_vec(), outstanding.since);
                self.work.spawn(async move {
                    let answer = outstanding.answered().await;
                    Done::Late(key, answer.is_none_or(|answer| answer.told.is_err()))
                });
                Event::Silent(since)
            }
            Outcome::Busy(since) => Event::StillAsked(since),
            Outcome::Limit => Event::TooManyHang,
            Outcome::Lost(why) => Event::NotAsked(why),
        };
        self.on(key, event);
    }

    /// Looks for processes behind mounts that have none yet; in a child, since it reads all of `/proc`.
    fn search(&mut self) {
        let wanted: Vec<_> = self
            .mounts
            .values()
            .filter(|mount| mount.watched.wants_search(&mount.mounted))
            .map(|mount| behind::wish(&mount.mounted))
            .collect();
        if wanted.is_empty() || std::mem::replace(&mut self.searching, true) {
            return;
        }
        let (probes, asked) = (self.eyes.probes.clone(), wanted.clone());
        self.work.spawn(async move {
            let outcome = probes.ask(Key::local("owners of mounts"), Ask::Owners(asked)).await;
            Done::Owners(Search { wanted, outcome })
        });
    }

    fn owners(&mut self, search: Search) {
        self.searching = false;
        let owners = search.found();
        for (key, mount) in &mut self.mounts {
            if !search.is_for(&mount.mounted) {
                continue;
            }
            mount.watched.searched_at = Some(Instant::now());
            let owner = owners.iter().find(|owner| behind::is_its(owner, &mount.mounted)).cloned();
            if !mount.mounted.entry.fs.ends_with("rclone") {
                mount.watched.owner = owner;
                continue;
            }
            let path = &mount.mounted.entry.path;
            let configured = self
                .eyes
                .config
                .rclone
                .iter()
                .find(|config| std::os::unix::ffi::OsStrExt::as_bytes(config.mount.as_os_str()) == path.as_slice());
            if owner != mount.watched.owner || mount.watched.rclone.is_none() {
                // A receiver that is dropped ends the task of the process before.
                mount.watched.rclone = None;
                let way = rclone::Way::of(owner.as_ref(), configured);
                let source = String::from_utf8_lossy(&mount.mounted.entry.source).into_owned();
                let (told, known) = watch::channel(rclone::Known::default());
                mount.watched.rclone_task = Some(behind::Task::spawn(rclone::follow(
                    way,
                    source,
                    self.eyes.probes.clone(),
                    self.remotes.clone(),
                    told,
                )));
                let key = key.clone();
                self.work.spawn(next_of_rclone(key, known));
            }
            mount.watched.owner = owner;
        }
        self.tell_soon();
    }

    fn rclone(&mut self, key: &[u8], mut known: watch::Receiver<rclone::Known>) {
        let Some(mount) = self.mounts.get_mut(key) else { return };
        mount.watched.rclone = Some(known.borrow_and_update().clone());
        self.tell_soon();
        if known.has_changed().is_ok() {
            self.work.spawn(next_of_rclone(key.to_vec(), known));
        }
    }

    /// Looks at the processes behind FUSE mounts, and forgets whom nobody misses any longer.
    fn look(&mut self) {
        let now = Instant::now();
        let before = self.missed.len();
        self.missed.retain(|_, missed| missed.until.is_none_or(|until| now < until));
        if self.missed.len() != before {
            self.tell_soon();
        }
        self.search();
        let wanted: Vec<_> = self
            .mounts
            .iter()
            .filter(|(_, mount)| mount.mounted.is_fuse() && !mount.mounted.shadowed)
            .map(|(key, mount)| (key.clone(), mount.watched.process(), mount.mounted.entry.device.1))
            .collect();
        if wanted.is_empty() {
            return;
        }
        let (config, once) = (Arc::clone(&self.eyes.config), self.once.clone());
        self.work.spawn(async move {
            let looked = within(&once, LOOK_LIMIT, move || {
                wanted
                    .into_iter()
                    .map(|(key, process, minor)| {
                        (key, Behind::read(&config.proc_root, &config.sys_root, process, minor))
                    })
                    .collect()
            });
            // What is late is looked at again in two seconds.
            Done::Looked(looked.await.unwrap_or_default())
        });
    }

    fn behind(&mut self, key: &[u8], behind: Behind) {
        let Some(mount) = self.mounts.get_mut(key) else { return };
        let events = mount.watched.learn(behind);
        let news = !events.is_empty();
        events.into_iter().for_each(|event| mount.life.on(event, moment()));
        if news {
            self.tell_soon();
        }
    }

    fn tell_soon(&mut self) {
        self.tell_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Puts the table on the board; a change of state is told at once.
    fn tell(&mut self) {
        self.tell_at = None;
        let at = now();
        if self.listed {
            let mut table = Table { read_at: at, rows: BTreeMap::new(), left_out: self.left_out };
            for (path, missed) in &self.missed {
                table.rows.insert(path.clone(), row::of_missed(path, &missed.source, &missed.fs, &missed.life, at));
            }
            for mount in self.mounts.values() {
                table.rows.insert(mount.mounted.entry.path.clone(), row::of(mount, at));
            }
            let states: BTreeMap<_, _> = table.rows.iter().map(|(path, row)| (path.clone(), row.state)).collect();
            let urgent = !self.told.is_empty() && states != self.told;
            log(&self.told, &table);
            self.told = states;
            let table = Some(Arc::new(table));
            if urgent {
                self.eyes.board.put_urgent(|board| board.mounts = table);
            } else {
                self.eyes.board.put(|board| board.mounts = table);
            }
        }
        self.eyes.board.fared(Collector::Mount, Duration::ZERO, self.list_error.clone(), at);
    }
}

/// Waits until rclone tells something new.
async fn next_of_rclone(key: Vec<u8>, mut known: watch::Receiver<rclone::Known>) -> Done {
    // An error means that its task ended; what it told last stays.
    let _told = known.changed().await;
    Done::Rclone(key, known)
}

/// One line for every change of state.
fn log(before: &BTreeMap<Vec<u8>, i32>, table: &Table<mainstay_proto::v1::Mount>) {
    let quiet: BTreeSet<i32> = [MountState::Ok, MountState::Unknown].map(MountState::number).into();
    for (path, row) in &table.rows {
        let unchanged = match before.get(path) {
            Some(before) => *before == row.state,
            None => quiet.contains(&row.state),
        };
        if !unchanged {
            let state = MountState::from_number(row.state).unwrap_or(MountState::Unknown);
            tracing::info!(path = %Shown::new(path), %state, reason = %Shown::new(&row.reason), "mount");
        }
    }
}
