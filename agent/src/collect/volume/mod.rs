//! Container volumes: which there are, who uses them, and how much they hold.
//!
//! Names come from the engine's own folder, read by a child, from its events and from what containers mount. `GET
//! /volumes` is asked once in a session, and only while every mount is well: one dead volume makes it hang, and costs the
//! engine a thread for ever. Sizes come from the [`walker`](crate::walker).

mod known;
mod measures;
mod options;

pub(crate) use known::NOT_YET;

use std::{sync::Arc, time::Duration};

use mainstay_common::{process::now, state::MountState};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use self::{known::Volumes, measures::Measures, options::Backing};
use super::{
    Eyes, Once,
    container::Uses,
    engine::{Event, Link, News, Session, put_known},
    listing::Listed,
    sleep_until_some, within,
};
use crate::{
    board::{Collector, Snapshot},
    probe::{Ask, Errno, Key, Outcome, Told},
    walker::{self, Measured, Unmeasured},
};

/// The engine's folder is read again, against lost events.
const FOLDER_EVERY: Duration = Duration::from_secs(300);
/// Not more often, however much happens.
const FOLDER_GAP: Duration = Duration::from_secs(2);
/// What comes together is told together.
const GATHER: Duration = Duration::from_millis(100);
/// How long mounts have to be seen at the start, before the engine is asked for all its volumes.
const MOUNTS_SEEN: Duration = Duration::from_secs(10);
/// The longest rest of a walker that has nothing to do: clocks may jump.
const WALK_LOOK: Duration = Duration::from_secs(60);
/// Writing a small file.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// What else lies in the engine's folder.
const NO_VOLUMES: [&str; 2] = ["metadata.db", "backingFsBlockDev"];

/// Watches volumes until the eyes stop.
pub async fn run(eyes: Eyes, link: Link, mut listing: watch::Receiver<Listed>) {
    let stop = eyes.stop.clone();
    let (mut sessions, mut events, mut uses) = (link.session(), link.events(), link.uses());
    let mut folders = interval(FOLDER_EVERY);
    folders.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // As long as events arrive, what they told is what there is.
    let mut ticks = interval(eyes.config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut eye = Eye::new(eyes);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = sessions.changed() => match changed {
                Ok(()) => {
                    let session = sessions.borrow_and_update().clone();
                    eye.follow(session);
                }
                Err(_) => return,
            },
            event = events.recv() => match event {
                Ok(Event { news: News::Volume { name, driver, destroyed }, .. }) => eye.happened(&name, &driver, destroyed),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => eye.read_folder_soon(),
                Err(RecvError::Closed) => return,
            },
            changed = uses.changed() => match changed {
                Ok(()) => {
                    eye.uses.clone_from(&uses.borrow_and_update());
                    eye.tell_soon();
                }
                Err(_) => return,
            },
            changed = listing.changed() => match changed {
                Ok(()) => eye.listed = listing.borrow_and_update().clone(),
                Err(_) => return,
            },
            _ = folders.tick() => eye.read_folder_soon(),
            _ = ticks.tick() => eye.tell_soon(),
            Some(done) = eye.work.join_next() => if let Ok(done) = done { eye.take(done) },
            () = sleep_until_some(eye.folder_at) => eye.read_folder(),
            () = sleep_until_some(eye.walk_at) => eye.walk(),
            () = sleep_until_some(eye.tell_at) => eye.tell(),
        }
    }
}

/// What was waited for, with the session that it is of.
enum Done {
    Folder(u64, Outcome),
    Options(u64, String, Outcome),
    All(u64, Option<Vec<(String, String)>>),
    Walked(String, Result<Measured, Unmeasured>),
    /// A walk that hung came to its end.
    Unhung,
    Written(Option<String>),
}

struct Eye {
    eyes: Eyes,
    session: Option<Session>,
    listed: Listed,
    volumes: Volumes,
    uses: Option<Arc<Uses>>,
    measures: Measures,
    work: JoinSet<Done>,
    once: Once,
    reading: bool,
    folder_at: Option<Instant>,
    walk_at: Option<Instant>,
    walking: bool,
    /// Volumes whose walks hang: nobody walks them until the child ended.
    hung: Vec<String>,
    tell_at: Option<Instant>,
    trouble: Option<String>,
}

impl Eye {
    fn new(eyes: Eyes) -> Self {
        let measures = Measures::load(eyes.config.cache_dir.as_deref(), eyes.config.volume_every);
        Self {
            eyes,
            session: None,
            listed: Listed::default(),
            volumes: Volumes::default(),
            uses: None,
            measures,
            work: JoinSet::new(),
            once: Once::default(),
            reading: false,
            folder_at: None,
            walk_at: None,
            walking: false,
            hung: Vec::new(),
            tell_at: None,
            trouble: None,
        }
    }

    fn number(&self) -> Option<u64> {
        self.session.as_ref().map(|session| session.number)
    }

    /// The engine answers anew, or no longer.
    fn follow(&mut self, session: Option<Session>) {
        let fresh = session.as_ref().map(|session| session.number) != self.number();
        self.session = session;
        if !fresh {
            return;
        }
        self.volumes.forget();
        (self.reading, self.trouble, self.tell_at) = (false, None, None);
        match &self.session {
            Some(session) => {
                self.folder_at = Some(Instant::now());
                let (session, board) = (session.clone(), self.eyes.board.watch());
                self.work.spawn(all(session, board));
            }
            None => (self.folder_at, self.walk_at) = (None, None),
        }
        self.eyes.board.fared(Collector::Volume, Duration::ZERO, None, now());
    }

    fn happened(&mut self, name: &str, driver: &str, destroyed: bool) {
        if destroyed {
            self.volumes.destroyed(name);
        } else {
            self.volumes.named(name, driver);
            self.read_folder_soon();
        }
        self.tell_soon();
    }

    fn read_folder_soon(&mut self) {
        if self.session.is_some() {
            self.folder_at.get_or_insert_with(|| Instant::now() + FOLDER_GAP);
        }
    }

    fn root(&self) -> String {
        self.session.as_ref().map(|session| session.info.root.clone()).unwrap_or_default()
    }

    fn path(&self, name: &str, file: &str) -> Vec<u8> {
        format!("{}/volumes/{name}/{file}", self.root()).into_bytes()
    }

    fn read_folder(&mut self) {
        self.folder_at = None;
        let Some(number) = self.number().filter(|_| !self.reading) else { return };
        self.reading = true;
        let (probes, path) = (self.eyes.probes.clone(), format!("{}/volumes", self.root()).into_bytes());
        self.work.spawn(async move {
            Done::Folder(number, probes.ask(Key::local("volumes of the engine"), Ask::Folder(path)).await)
        });
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Folder(number, outcome) if self.number() == Some(number) => self.folder(number, outcome),
            Done::Options(number, name, outcome) if self.number() == Some(number) => {
                self.volumes.backing(&name, backing(outcome));
                self.tell_soon();
            }
            Done::All(number, Some(all)) if self.number() == Some(number) => {
                all.iter().for_each(|(name, driver)| self.volumes.named(name, driver));
                self.tell_soon();
            }
            // Of an engine that is not there any longer.
            Done::Folder(..) | Done::Options(..) | Done::All(..) => {}
            Done::Walked(name, walked) => self.walked(name, walked),
            Done::Unhung => {
                self.hung.pop();
                self.walk_at.get_or_insert_with(Instant::now);
            }
            Done::Written(trouble) => {
                if let Some(why) = trouble {
                    tracing::warn!(reason = why, "sizes of volumes cannot be kept for a restart");
                }
            }
        }
    }

    fn folder(&mut self, number: u64, outcome: Outcome) {
        self.reading = false;
        match told(outcome) {
            Ok(Told::Names(names, cut)) => {
                let name =
                    |name: Vec<u8>| String::from_utf8(name).ok().filter(|name| !NO_VOLUMES.contains(&name.as_str()));
                self.volumes.folder(names.into_iter().filter_map(name).collect(), cut);
                self.trouble = None;
            }
            Ok(Told::Space(_) | Told::Content(..) | Told::Owners(_)) => {}
            Err(why) => {
                self.trouble = Some(format!("cannot read {}/volumes: {why}", self.root()));
                self.folder_at = Some(Instant::now() + FOLDER_EVERY / 10);
            }
        }
        for name in self.volumes.unread().map(str::to_owned).collect::<Vec<_>>() {
            let (probes, path) = (self.eyes.probes.clone(), self.path(&name, "opts.json"));
            self.work.spawn(async move {
                let key = Key::local(format!("options of volume {name}"));
                let outcome = probes.ask(key, Ask::File(path)).await;
                Done::Options(number, name, outcome)
            });
        }
        self.tell_soon();
    }

    /// Measures the volume that is due first, if one is.
    fn walk(&mut self) {
        self.walk_at = None;
        if self.walking || self.session.is_none() {
            return;
        }
        let at = now();
        let free = self.volumes.measurable().filter(|name| !self.hung.iter().any(|hung| hung == name));
        let free = free.filter(|name| !self.is_mounted(name));
        let Some((name, due)) = self.measures.next(free) else { return };
        if due > at {
            self.walk_at = Some(Instant::now() + due.since(at).min(WALK_LOOK));
            return;
        }
        let (name, folder) = (name.to_owned(), self.path(name, "_data"));
        let mountpoints = self.listed.mounts.as_ref().map(|mounts| mounts.below(&folder)).unwrap_or_default();
        let program = self.eyes.config.program.clone();
        self.walking = true;
        self.work.spawn(async move {
            let walked = walker::measure(program.as_os_str(), &folder, &mountpoints).await;
            Done::Walked(name, walked)
        });
    }

    /// True where something is mounted over a volume's folder: what the engine mounted for a container.
    fn is_mounted(&self, name: &str) -> bool {
        let folder = self.path(name, "_data");
        self.listed.mounts.as_ref().is_some_and(|mounts| mounts.is_mounted(&folder))
    }

    fn walked(&mut self, name: String, walked: Result<Measured, Unmeasured>) {
        self.walking = false;
        self.walk_at = Some(Instant::now());
        match walked {
            Ok(measured) => {
                self.measures.measured(&name, now(), measured);
                self.write();
            }
            Err(unmeasured) => {
                self.measures.not_measured(&name, now(), unmeasured.to_string());
                if let Unmeasured::Hangs(hung) = unmeasured {
                    tracing::warn!(volume = name, "measuring a volume hangs");
                    self.hung.insert(0, name);
                    self.work.spawn(async move {
                        hung.ended().await;
                        Done::Unhung
                    });
                }
            }
        }
        self.tell_soon();
    }

    fn write(&mut self) {
        let Some(write) = self.measures.to_write() else { return };
        let once = self.once.clone();
        self.work.spawn(async move {
            let written = within(&once, WRITE_LIMIT, write).await;
            Done::Written(match written {
                Ok(written) => written.err().map(|error| error.to_string()),
                Err(late) => Some(late.to_string()),
            })
        });
    }

    fn tell_soon(&mut self) {
        self.tell_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    fn tell(&mut self) {
        self.tell_at = None;
        let (Some(session), at) = (&self.session, now()) else { return };
        let Some(uses) = &self.uses else { return };
        let root = session.info.root.clone();
        if self.volumes.unread().next().is_none() && self.volumes.measurable().next().is_some() {
            let volumes = &self.volumes;
            self.measures.keep_only(&root, |name| volumes.is_known(name));
        }
        if let Some(table) = self.volumes.table(uses, &self.measures, |name| self.is_mounted(name), at) {
            let table = Some(Arc::new(table));
            put_known(&self.eyes.board, false, |board| board.volumes = table);
        }
        self.eyes.board.fared(Collector::Volume, Duration::ZERO, self.trouble.clone(), at);
        if !self.walking {
            self.walk_at.get_or_insert_with(Instant::now);
        }
    }
}

/// All volumes, with those of other drivers; not asked where any mount is not well.
async fn all(session: Session, mut board: watch::Receiver<Snapshot>) -> Done {
    let seen = |snapshot: &Snapshot| {
        let mounts = snapshot.mounts.as_ref();
        mounts.is_some_and(|mounts| mounts.rows.values().all(|mount| mount.state != MountState::Unknown.number()))
    };
    tokio::select! {
        // An error means that the board is gone.
        _seen = board.wait_for(seen) => {}
        () = sleep(MOUNTS_SEEN) => {}
    }
    let well = |snapshot: &Snapshot| {
        let is_well = |state| state == MountState::Ok.number() || state == MountState::Slow.number();
        snapshot.mounts.as_ref().is_some_and(|mounts| mounts.rows.values().all(|mount| is_well(mount.state)))
    };
    if !well(&board.borrow()) {
        return Done::All(session.number, None);
    }
    let volumes = session.client.volumes().await.ok();
    let named = |volume: bollard::models::Volume| (volume.name, volume.driver);
    Done::All(session.number, volumes.map(|volumes| volumes.into_iter().map(named).collect()))
}

fn told(outcome: Outcome) -> Result<Told, String> {
    match outcome {
        Outcome::Answered(answer) => answer.told.map_err(|errno| errno.name()),
        Outcome::Hung(outstanding) => Err(format!("no answer since {}", outstanding.since)),
        Outcome::Busy(since) => Err(format!("no answer since {since}")),
        Outcome::Limit => Err("probe_limit".to_owned()),
        Outcome::Lost(why) => Err(why),
    }
}

fn backing(outcome: Outcome) -> Backing {
    // A volume without options has no such file.
    if let Outcome::Answered(answer) = &outcome
        && answer.told == Err(Errno(libc::ENOENT))
    {
        return Backing::Folder;
    }
    match told(outcome) {
        Ok(Told::Content(text, _)) => Backing::parse(&text),
        Ok(Told::Space(_) | Told::Names(..) | Told::Owners(_)) => {
            Backing::Unknown("the child answered another question".to_owned())
        }
        Err(why) => Backing::Unknown(why),
    }
}
