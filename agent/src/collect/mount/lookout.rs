//! All mounts, and the questions about them that are underway: who is asked when, and what comes of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mainstay_common::{process::now, state::MountState};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    behind::{Behind, Kernel, Signs, Wanted},
    life::{Event, Fate, Life, Now},
    missed::Missed,
    row,
    search::Search,
    teller::Teller,
    verdict::{Size, Verdict},
};
use crate::{
    board::{Collector, Table},
    collect::{
        Eyes, Late, Once,
        listing::Listed,
        mountinfo::{Mounted, Mounts},
        rclone::{Follower, Shared},
        within,
    },
    probe::{Ask, Key, Outcome, Owner, Told},
};

/// Time between two questions to one mount; less where the interval is less.
const EVERY: Duration = Duration::from_secs(5);
/// Time between two looks at what stands behind mounts, where something seems wrong.
const WATCHFUL: Duration = Duration::from_secs(2);
/// The kernel's own files answer at once. Without them, mounts are asked all the same.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// A search takes a few milliseconds.
const SEARCH_LIMIT: Duration = Duration::from_millis(300);
/// Answers that come together are told together.
const GATHER: Duration = Duration::from_millis(30);
/// Who is due within this is asked with the others.
const TOGETHER: Duration = Duration::from_millis(250);

/// What was waited for.
pub(super) enum Done {
    /// What stands behind mounts, by their keys.
    Looked(Result<Vec<(Vec<u8>, Behind)>, Late>),
    /// What became of a question to the mount of this key.
    Outcome(Vec<u8>, Outcome),
    /// A question that hung was answered after all, or its child ended; `failed`: without success.
    Late { key: Vec<u8>, failed: bool },
    /// Who serves the mounts of these paths.
    Owners { wanted: Vec<Vec<u8>>, found: Vec<Owner> },
}

/// A mount and all that is known of it.
pub(super) struct Mount {
    pub(super) mounted: Mounted,
    pub(super) life: Life,
    pub(super) search: Search,
    pub(super) signs: Signs,
    pub(super) rclone: Option<Follower>,
    /// When rclone last told, in its own way, that its remote did not answer; `None` where it did since.
    pub(super) remote_failed_at: Option<Instant>,
}

/// All mounts.
pub(super) struct Lookout {
    eyes: Eyes,
    listing: watch::Receiver<Listed>,
    every: Duration,
    uid: u32,
    mounts: BTreeMap<Vec<u8>, Mount>,
    missed: Missed,
    left_out: u64,
    pub(super) work: JoinSet<Done>,
    once: Once,
    looking: bool,
    looked_at: Instant,
    look_now: bool,
    searching: bool,
    /// A search that began goes before questions, though not for long: whoever is stopped need not be asked.
    held_until: Option<Instant>,
    shared: Shared,
    /// rclone told something that should not wait for the next answer.
    pub(super) rclone_news: Arc<Notify>,
    told_at: Instant,
    /// When the board is told next.
    pub(super) tell_at: Option<Instant>,
    teller: Teller,
    /// A list was read.
    listed: bool,
    list_error: Option<String>,
    look_error: Option<String>,
    /// How long it took last from a look to the answers.
    took: Duration,
}

fn moment() -> Now {
    Now { wall: now(), steady: Instant::now() }
}

impl Lookout {
    pub(super) fn new(eyes: Eyes, listing: watch::Receiver<Listed>) -> Self {
        Self {
            every: EVERY.min(eyes.config.interval),
            missed: Missed::expecting(&eyes.config.expect_mounts),
            eyes,
            listing,
            uid: rustix::process::geteuid().as_raw(),
            mounts: BTreeMap::new(),
            left_out: 0,
            work: JoinSet::new(),
            once: Once::default(),
            looking: false,
            looked_at: Instant::now(),
            look_now: false,
            searching: false,
            held_until: None,
            shared: Shared::default(),
            rclone_news: Arc::default(),
            told_at: Instant::now(),
            tell_at: None,
            teller: Teller::default(),
            listed: false,
            list_error: None,
            look_error: None,
            took: Duration::ZERO,
        }
    }

    /// Takes over a new list: what is new is asked at once, what left is missed.
    pub(super) fn list(&mut self, listed: &Listed) {
        self.list_error.clone_from(&listed.error);
        if let Some(mounts) = &listed.mounts {
            self.renew(mounts, &listed.engine_root);
            self.left_out = mounts.network_left_out;
            self.listed = true;
        }
        self.search();
        self.tell_soon();
    }

    fn renew(&mut self, mounts: &Mounts, engine_root: &[u8]) {
        let now = moment();
        let mut before = std::mem::take(&mut self.mounts);
        for mounted in &mounts.network {
            let key = mounted.key();
            let mount = match before.remove(&key) {
                // Aliases come and go, and so does what covers it.
                Some(there) if there.mounted.shadowed == mounted.shadowed => {
                    Mount { mounted: mounted.clone(), ..there }
                }
                Some(_) | None => self.fresh(mounted, now),
            };
            self.mounts.insert(key, mount);
        }
        for (_, gone) in before {
            self.missed.take(gone.mounted, gone.life, mounts, engine_root, now);
        }
        self.missed.compare(mounts, now);
    }

    fn fresh(&self, mounted: &Mounted, now: Now) -> Mount {
        let life = if mounted.shadowed {
            Life::unasked("shadowed", now)
        } else if mounted.automounted && !self.eyes.config.probe_automounts {
            Life::unasked("automounted", now)
        } else {
            Life::new(self.every, now)
        };
        let mut mount = Mount {
            mounted: mounted.clone(),
            life,
            search: Search::default(),
            signs: Signs::default(),
            rclone: None,
            remote_failed_at: None,
        };
        if !mounted.shadowed {
            self.follow_rclone(&mut mount);
        }
        mount
    }

    /// When to look and to ask next.
    pub(super) fn turn_at(&self) -> Option<Instant> {
        let idle = self.mounts.is_empty();
        let watchful = self.mounts.values().any(|m| m.life.state() == MountState::Hung || m.signs.are_bad());
        let pace = match (idle, watchful) {
            (true, _) => self.eyes.config.interval,
            (false, true) => WATCHFUL.min(self.every),
            (false, false) => self.every,
        };
        let look_at = if self.look_now { self.looked_at } else { self.looked_at + pace };
        let due = self.mounts.values().filter_map(|mount| mount.life.due()).min();
        let next = due.map_or(look_at, |due| due.min(look_at));
        (!self.looking).then(|| self.held_until.map_or(next, |until| until.max(next)))
    }

    /// Looks at what stands behind mounts; then those are asked whose time has come.
    pub(super) fn turn(&mut self) {
        self.looked_at = Instant::now();
        (self.look_now, self.held_until) = (false, None);
        self.search();
        if self.missed.forget(self.looked_at) || self.told_at.elapsed() >= self.every {
            self.tell_soon();
        }
        let wanted: Vec<_> = self.mounts.values().filter_map(|m| Wanted::of(&m.mounted, m.search.owner())).collect();
        if wanted.is_empty() {
            return self.ask();
        }
        self.looking = true;
        let config = &self.eyes.config;
        let kernel = Kernel { proc_root: config.proc_root.clone(), sys_root: config.sys_root.clone() };
        let once = self.once.clone();
        self.work.spawn(async move { Done::Looked(within(&once, LOOK_LIMIT, move || kernel.look(wanted)).await) });
    }

    /// Asks every mount whose time has come, as long as no look is underway that comes first.
    fn ask(&mut self) {
        let now = moment();
        if self.looking {
            return;
        }
        for (key, mount) in &mut self.mounts {
            if mount.life.due().is_some_and(|due| due <= now.steady + TOGETHER) {
                mount.life.on(Event::Asked, now);
                let (probes, key, path) = (self.eyes.probes.clone(), key.clone(), mount.mounted.entry.path.clone());
                self.work.spawn(async move {
                    let outcome = probes.ask(Key::network(key.clone()), Ask::Statfs(path)).await;
                    Done::Outcome(key, outcome)
                });
            }
        }
    }

    /// Takes over what was waited for.
    pub(super) fn take(&mut self, done: Done) {
        match done {
            Done::Looked(looked) => {
                self.looking = false;
                self.look_error = looked.as_ref().err().map(|late| format!("processes behind mounts: {late}"));
                for (key, behind) in looked.unwrap_or_default() {
                    self.look(&key, behind);
                }
                self.ask();
            }
            Done::Outcome(key, outcome) => self.outcome(&key, outcome),
            Done::Late { key, failed } => {
                if let Some(mount) = self.mounts.get_mut(&key) {
                    mount.life.on(Event::AnsweredLate { failed }, moment());
                }
            }
            Done::Owners { wanted, found } => self.owners(&wanted, &found),
        }
    }

    fn look(&mut self, key: &[u8], behind: Behind) {
        let Some(mount) = self.mounts.get_mut(key) else { return };
        let before = (mount.life.state(), mount.signs.waiting);
        for event in mount.signs.learn(behind) {
            if event == Event::OwnerEnded {
                mount.search.lose();
            }
            mount.life.on(event, moment());
        }
        if before != (mount.life.state(), mount.signs.waiting) {
            self.tell_soon();
        }
    }

    fn outcome(&mut self, key: &[u8], outcome: Outcome) {
        let now = moment();
        let Some(mount) = self.mounts.get_mut(key) else { return };
        let fate = match outcome {
            Outcome::Answered(answer) => match Verdict::of(&answer, &mount.mounted, self.uid) {
                Some(verdict) => {
                    match verdict.sizes {
                        Size::RemoteFailed => mount.remote_failed_at = Some(now.steady),
                        Size::Known(_) => mount.remote_failed_at = None,
                        Size::Unknown | Size::RemoteUnknown | Size::Nothing => {}
                    }
                    Fate::Answered(verdict)
                }
                None => Fate::OtherAnswered,
            },
            Outcome::Hung(outstanding) => {
                let (key, since) = (key.to_vec(), outstanding.since);
                self.work.spawn(async move {
                    let answer = outstanding.answered().await;
                    Done::Late { key, failed: answer.is_none_or(|answer| answer.told.is_err()) }
                });
                Fate::Silent(since)
            }
            Outcome::Busy(since) => Fate::StillAsked(since),
            Outcome::Limit => Fate::TooManyHang,
            Outcome::Lost(why) => Fate::NotAsked(why),
        };
        mount.life.on(Event::Came(fate), now);
        self.took = now.steady.saturating_duration_since(self.looked_at);
        self.tell_soon();
    }

    /// Looks for processes behind mounts that have none yet; in a child, since it reads of all processes.
    fn search(&mut self) {
        let now = Instant::now();
        let wishes: Vec<_> = self.mounts.values().filter_map(|m| m.search.wish(&m.mounted, now)).collect();
        if wishes.is_empty() || std::mem::replace(&mut self.searching, true) {
            return;
        }
        self.held_until = Some(now + SEARCH_LIMIT);
        let wanted = wishes.iter().map(|(path, _)| path.clone()).collect();
        let probes = self.eyes.probes.clone();
        self.work.spawn(async move {
            let found = match probes.ask(Key::local("owners of mounts"), Ask::Owners(wishes)).await {
                Outcome::Answered(answer) => match answer.told {
                    Ok(Told::Owners(owners)) => owners,
                    Ok(Told::Space(_) | Told::Names(..) | Told::Content(..)) | Err(_) => Vec::new(),
                },
                // What is late is looked for again.
                Outcome::Hung(_) | Outcome::Busy(_) | Outcome::Limit | Outcome::Lost(_) => Vec::new(),
            };
            Done::Owners { wanted, found }
        });
    }

    fn owners(&mut self, wanted: &[Vec<u8>], found: &[Owner]) {
        (self.searching, self.held_until) = (false, None);
        let now = Instant::now();
        let mut mounts = std::mem::take(&mut self.mounts);
        for mount in mounts.values_mut().filter(|mount| wanted.contains(&mount.mounted.entry.path)) {
            mount.search.end(found, &mount.mounted, now);
            self.follow_rclone(mount);
        }
        self.mounts = mounts;
        self.tell_soon();
        self.look_now = true;
    }

    /// Follows the rclone behind a mount, as it is configured, else as its process says.
    fn follow_rclone(&self, mount: &mut Mount) {
        let entry = &mount.mounted.entry;
        if entry.fs != "fuse.rclone" {
            return;
        }
        let is_its = |config: &&crate::config::RcloneConfig| config.mount.as_os_str().as_encoded_bytes() == entry.path;
        let configured = self.eyes.config.rclone.iter().find(is_its);
        let follower = mount.rclone.take();
        mount.rclone =
            Follower::follow(follower, configured, mount.search.owner(), || crate::collect::rclone::Surroundings {
                source: String::from_utf8_lossy(&entry.source).into_owned(),
                probes: self.eyes.probes.clone(),
                listing: self.listing.clone(),
                shared: self.shared.clone(),
                news: Arc::clone(&self.rclone_news),
            });
    }

    /// Tells the board soon, with all that comes until then.
    pub(super) fn tell_soon(&mut self) {
        self.tell_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// Tells the board.
    pub(super) fn tell(&mut self) {
        (self.tell_at, self.told_at) = (None, Instant::now());
        let at = now();
        if self.listed {
            let rows = self.missed.rows(at).chain(self.mounts.values().map(|mount| row::of(mount, at)));
            let rows = rows.map(|row| (row.path.clone(), row)).collect();
            self.teller.tell(&self.eyes.board, Table { read_at: at, rows, left_out: self.left_out });
        }
        let error = self.list_error.clone().or_else(|| self.look_error.clone());
        self.eyes.board.fared(Collector::Mount, self.took, error, at);
    }
}
