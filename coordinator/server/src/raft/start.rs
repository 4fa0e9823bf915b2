//! The beginning: a new log, or an old one that is replayed.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use mainstay_common::{ExitCode, Failure};
use tokio::sync::{Semaphore, watch};

use super::{
    Alone, End, Log, Machine, Observer, Peers, Pulse, Running, Settings, Shared, StateHash, Undecodable,
    driver::{Config, Driver, Effect, Kept},
    keeping::Keeping,
    mail,
    runner::{Inlet, Outlets, Parts, Runner},
    store::{
        self, Checkpoint, CheckpointReader, CheckpointReceiver, CreateError, Disk, DiskFile, Entry, EntryKind,
        Identity, Incoming, NotReceived, OpenError, Position, Received, Recovered, Section, Store, WriteError,
    },
    visits::Visits,
};
use crate::VERSION;

/// The founding checkpoint stands where entry 1 would.
const FIRST_ENTRY: u64 = 2;

/// Why a log does not start. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// This version cannot read an entry.
    #[error("entry {index} cannot be read: {why}")]
    Entry {
        /// Its index.
        index: u64,
        /// Why not.
        why: Undecodable,
    },
    /// This version cannot read the checkpoint.
    #[error("the checkpoint at {index} cannot be read: {why}")]
    Checkpoint {
        /// Its index.
        index: u64,
        /// Why not.
        why: Undecodable,
    },
    /// Others vote too: only a later version can lead them.
    #[error("the log belongs to a group of several replicas, which this version cannot be part of")]
    Group,
    /// There is no thread for it.
    #[error("the log's thread cannot be started: {0}")]
    Thread(io::Error),
}

impl StartError {
    /// The three lines that a person is told; `folder` is where the log is.
    #[must_use]
    pub fn failure(&self, folder: &str) -> Failure {
        let version = match self {
            Self::Open(error) => return error.failure(folder),
            Self::Entry { why, .. } | Self::Checkpoint { why, .. } => match why {
                Undecodable::Newer { version: Some(version), .. } => format!("{version} or later"),
                Undecodable::Newer { version: None, .. } => format!("a later version than {VERSION}"),
                Undecodable::Nonsense(_) => {
                    let try_next = "keep a copy of the directory and report it; other versions may read it: start the \
                                    one that ran before";
                    return self.told(folder, try_next.to_owned());
                }
            },
            Self::Group => format!("a later version than {VERSION}"),
            Self::Thread(_) => {
                return self.told(folder, "raise the limit of threads or memory, then start again".into());
            }
        };
        self.told(folder, format!("start mainstay-coordinator {version}; nothing was changed"))
    }

    /// What the log of a replica ends with that met it on its way.
    pub(super) fn end(&self) -> End {
        match self {
            Self::Entry { why: Undecodable::Newer { .. }, .. }
            | Self::Checkpoint { why: Undecodable::Newer { .. }, .. } => End::Newer(self.to_string()),
            Self::Entry { .. } | Self::Checkpoint { .. } | Self::Open(_) | Self::Group | Self::Thread(_) => {
                End::Broken(self.to_string())
            }
        }
    }

    fn told(&self, folder: &str, try_next: String) -> Failure {
        Failure::new(ExitCode::Failed, format!("the log in {folder} cannot be replayed"), self.to_string(), try_next)
    }
}

/// Makes the log of a cluster's first replica, with `state` in its first checkpoint.
///
/// # Errors
/// [`CreateError`]; the folder has to be emptied then.
pub fn found<D: Disk, M: Machine>(
    disk: D,
    identity: Identity,
    settings: &Settings,
    state: &M,
) -> Result<(), CreateError> {
    let first = Checkpoint::bootstrap(identity.replica, state.sections());
    Store::create(disk, identity, settings.store.clone(), &first).map(drop)
}

/// Makes the log of a replica that goes on alone from a state that was: its first checkpoint stands at `at`, so that
/// indexes go on where they were.
///
/// # Errors
/// [`CreateError`]; the folder has to be emptied then.
pub fn found_at<D: Disk, M: Machine>(
    disk: D,
    identity: Identity,
    settings: &Settings,
    state: &M,
    at: Position,
) -> Result<(), CreateError> {
    let founding = Checkpoint::bootstrap(identity.replica, state.sections());
    let first = Checkpoint { index: at.index, term: at.term, ..founding };
    Store::create(disk, identity, settings.store.clone(), &first).map(drop)
}

/// All that a log holds.
#[derive(Debug)]
pub struct Whole<M> {
    /// The state with every entry in it, also with those that nobody knows to be committed.
    pub state: M,
    /// Whose log it is.
    pub identity: Identity,
    /// The last entry.
    pub last: Position,
}

/// Reads all that a log holds and changes nothing; `seen` is shown every command behind the checkpoint. `blank` is the
/// state of a replica that joined and has no checkpoint yet.
///
/// # Errors
/// [`StartError`].
pub fn read_whole<D: Disk, M: Machine>(
    disk: &D,
    blank: M,
    mut seen: impl FnMut(Position, &M::Entry, &M::Outcome),
) -> Result<Whole<M>, StartError> {
    let (identity, checkpoint, entries) = store::read_log(disk)?;
    let state = if checkpoint.index == 0 { Ok(blank) } else { M::from_sections(&checkpoint.sections) };
    let mut state = state.map_err(|why| StartError::Checkpoint { index: checkpoint.index, why })?;
    let mut last = checkpoint.position();
    for entry in entries.into_iter().filter(|entry| entry.index > checkpoint.index) {
        last = Position { index: entry.index, term: entry.term };
        if let Some(command) = command::<M>(&entry)? {
            let outcome = state.apply(last, &command);
            seen(last, &command, &outcome);
        }
    }
    Ok(Whole { state, identity, last })
}

/// Makes the log of a replica that joins a cluster: empty, until the leader sends a checkpoint.
///
/// # Errors
/// [`CreateError`]; the folder has to be emptied then.
pub fn join<D: Disk>(disk: D, identity: Identity, settings: &Settings) -> Result<(), CreateError> {
    Store::create(disk, identity, settings.store.clone(), &Checkpoint::default()).map(drop)
}

/// What other threads do with checkpoints.
pub(super) trait Bodies: Send + Sync {
    fn open(&self, index: u64) -> io::Result<Box<dyn DiskFile>>;
    fn receive(&self, at: Position) -> Result<Box<dyn Sink>, WriteError>;
}

/// Where a checkpoint goes that comes from elsewhere.
pub(super) trait Sink: Send {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError>;
    fn finish(self: Box<Self>) -> Result<(Checkpoint, Received), NotReceived>;
}

impl<D: Disk> Bodies for (CheckpointReader<D>, CheckpointReceiver<D>) {
    fn open(&self, index: u64) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(index).map(|file| Box::new(file) as _)
    }

    fn receive(&self, at: Position) -> Result<Box<dyn Sink>, WriteError> {
        self.1.begin(at).map(|incoming| Box::new(incoming) as _)
    }
}

impl<D: Disk> Sink for Incoming<D> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write(bytes)
    }

    fn finish(self: Box<Self>) -> Result<(Checkpoint, Received), NotReceived> {
        (*self).finish()
    }
}

/// Opens the log of a replica that is its whole group, replays it and begins a new term in a thread of its own.
///
/// # Errors
/// [`StartError`].
pub fn start<D: Disk, M: Machine>(
    disk: D,
    settings: Settings,
    observers: Vec<Box<dyn Observer<M>>>,
) -> Result<(Log<M>, Running<M>), StartError> {
    let (store, recovered) = Store::open(disk, settings.store.clone())?;
    let is_change = |entry: &Entry| entry.kind == EntryKind::Configuration;
    if recovered.checkpoint.conf_state.voters != [store.identity().replica] || recovered.entries.iter().any(is_change) {
        return Err(StartError::Group);
    }
    run(store, recovered, settings, observers, Arc::new(Alone), None)
}

/// Opens the log of a member of a group, replays what is known to be committed, and takes part in a thread of its own.
/// `blank` is the state of one that joined and has no checkpoint yet.
///
/// # Errors
/// [`StartError`].
pub fn start_member<D: Disk, M: Machine>(
    disk: D,
    settings: Settings,
    observers: Vec<Box<dyn Observer<M>>>,
    peers: Arc<dyn Peers>,
    blank: M,
) -> Result<(Log<M>, Running<M>), StartError> {
    let (store, recovered) = Store::open(disk, settings.store.clone())?;
    run(store, recovered, settings, observers, peers, Some(blank))
}

fn run<D: Disk, M: Machine>(
    store: Store<D>,
    recovered: Recovered,
    mut settings: Settings,
    mut observers: Vec<Box<dyn Observer<M>>>,
    peers: Arc<dyn Peers>,
    blank: Option<M>,
) -> Result<(Log<M>, Running<M>), StartError> {
    if let Some(cut) = &recovered.cut {
        tracing::info!(file = cut.file, offset = cut.offset, bytes = cut.bytes, "cut what was not written whole");
    }
    for damage in &recovered.set_aside {
        tracing::error!(file = damage.file, offset = damage.offset, "a checkpoint is damaged: took the one before it");
    }
    // Read before anything is shown: an observer does not undo.
    for entry in recovered.entries.iter().filter(|entry| entry.index > recovered.checkpoint.index) {
        command::<M>(entry)?;
    }
    let checkpoint = &recovered.checkpoint;
    let blank = blank.filter(|_| checkpoint.index == 0);
    let state = blank.map_or_else(|| M::from_sections(&checkpoint.sections), Ok);
    let state = state.map_err(|why| StartError::Checkpoint { index: checkpoint.index, why })?;
    let pulse = Arc::<Pulse>::default();
    pulse.checkpoint(size(&checkpoint.sections), None);
    let hash = StateHash { index: checkpoint.index, sha256: recovered.sha256 };
    let mut driver = driver(&store, &settings, recovered)?;
    let replayed = replay(&mut driver, state, &mut observers)?;
    let Replayed { state, applied, entries, bytes } = replayed;
    let (inbox, messages) = mail::channel();
    let (inlet, proposals) = Inlet::new();
    let (state_out, state_in) = watch::channel(Arc::new(state.clone()));
    let (applied_out, applied_in) = watch::channel(applied);
    let (leader_out, leader_in) = watch::channel(None);
    let (known_out, known_in) = watch::channel(None);
    let (members_out, members_in) = watch::channel(driver.conf_state());
    let (standing_out, standing_in) = watch::channel(None);
    let (end_out, end_in) = watch::channel(None);
    settings.entry_limit_bytes = settings.entry_limit_bytes.min(store.batch_limit_bytes() - 13);
    let shared = Shared {
        inbox: inbox.clone(),
        proposals: inlet,
        room: Arc::new(Semaphore::new(settings.waiting)),
        entry_limit_bytes: settings.entry_limit_bytes,
        state: state_in,
        applied: applied_in,
        leader: leader_in,
        known_leader: known_in,
        members: members_in,
        bodies: Arc::new((store.checkpoint_reader(), store.checkpoint_receiver())),
        visits: Visits::default(),
        standing: standing_in,
        pulse: Arc::clone(&pulse),
        end: end_in.clone(),
    };
    peers.members(&driver.conf_state());
    let outlets = Outlets {
        state: state_out,
        applied: applied_out,
        leader: leader_out,
        known_leader: known_out,
        members: members_out,
        standing: standing_out,
    };
    let keeping = Keeping::new(&settings, inbox.clone(), Arc::clone(&pulse), entries, bytes);
    let leader = outlets.leader.clone();
    let parts = Parts {
        driver,
        store,
        state,
        applied,
        hash,
        observers,
        keeping,
        settings,
        peers,
        inbox: inbox.clone(),
        messages,
        proposals,
        outlets,
        pulse,
    };
    let runner = Runner::new(parts).map_err(StartError::Thread)?;
    let life = move || {
        let end = catch_unwind(AssertUnwindSafe(|| runner.run())).unwrap_or(End::Panicked);
        leader.send_replace(None);
        end_out.send_replace(Some(end));
    };
    let thread = thread::Builder::new().name("log".into()).spawn(life).map_err(StartError::Thread)?;
    Ok((Log(Arc::new(shared)), Running { inbox, end: end_in, thread: Some(thread) }))
}

/// Bytes of a state.
pub(super) fn size(sections: &[Section]) -> u64 {
    sections.iter().map(|section| section.bytes.len() as u64).sum()
}

fn driver<D: Disk>(store: &Store<D>, settings: &Settings, recovered: Recovered) -> Result<Driver, StartError> {
    let id = store.identity().replica;
    let random = || getrandom::u64().map_err(|error| StartError::Thread(io::Error::other(error.to_string())));
    let config =
        Config { id, boot: random()?, seed: random()?, keep_behind: settings.store.entries_behind, mistake: None };
    let Recovered { hard_state, checkpoint, before, entries, .. } = recovered;
    let (place, conf_state) = (checkpoint.position(), checkpoint.conf_state);
    Ok(Driver::new(config, Kept { hard_state, checkpoint: place, conf_state, before, entries }))
}

struct Replayed<M> {
    state: M,
    applied: Position,
    /// What came behind the checkpoint.
    entries: u64,
    bytes: u64,
}

/// The state as of the last entry that is known to be committed.
fn replay<M: Machine>(
    driver: &mut Driver,
    state: M,
    observers: &mut [Box<dyn Observer<M>>],
) -> Result<Replayed<M>, StartError> {
    let applied = driver.status().applied;
    show_missed(observers, applied.index);
    let mut replayed = Replayed { state, applied, entries: 0, bytes: 0 };
    for effect in driver.turn() {
        let Effect::Apply(entry, _) = effect else { continue };
        replayed.applied = Position { index: entry.index, term: entry.term };
        replayed.entries += 1;
        replayed.bytes += entry.data.len() as u64;
        let Some(command) = command::<M>(&entry)? else { continue };
        let outcome = replayed.state.apply(replayed.applied, &command);
        for observer in observers.iter_mut().filter(|observer| observer.wanted() <= entry.index) {
            observer.applied(replayed.applied, &command, &outcome);
        }
    }
    Ok(replayed)
}

/// Entries up to `index` are in a checkpoint.
pub(super) fn show_missed<M: Machine>(observers: &mut [Box<dyn Observer<M>>], index: u64) {
    for observer in observers.iter_mut() {
        let missed = observer.wanted().max(FIRST_ENTRY)..=index;
        if !missed.is_empty() {
            observer.missed(missed);
        }
    }
}

/// `None` where the entry only begins a term, or changes the members.
pub(super) fn command<M: Machine>(entry: &Entry) -> Result<Option<M::Entry>, StartError> {
    if entry.kind == EntryKind::Configuration || entry.data.is_empty() {
        return Ok(None);
    }
    M::decode(&entry.data).map(Some).map_err(|why| StartError::Entry { index: entry.index, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_wrote_is_no_broken_disk() {
        let newer = || Undecodable::Newer { what: "node dance".into(), version: None };
        let end = StartError::Entry { index: 7, why: newer() }.end();
        assert!(matches!(&end, End::Newer(why) if why.contains("entry 7") && why.contains("node dance")), "{end:?}");
        assert!(matches!(StartError::Checkpoint { index: 7, why: newer() }.end(), End::Newer(_)));
        assert!(matches!(StartError::Entry { index: 7, why: Undecodable::Nonsense("x".into()) }.end(), End::Broken(_)));
    }
}
