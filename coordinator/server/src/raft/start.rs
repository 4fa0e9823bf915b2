//! The beginning: a new log, or an old one that is replayed.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};

use mainstay_common::{ExitCode, Failure};
use tokio::sync::{Semaphore, watch};

use super::{
    End, Log, Machine, Observer, Running, Settings, Shared, Undecodable,
    keeping::Keeping,
    runner::{Outlets, Runner},
    store::{Checkpoint, CreateError, Disk, Entry, EntryKind, Identity, OpenError, Position, Recovered, Store},
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

/// Opens a log, replays it and begins a new term in a thread of its own.
///
/// # Errors
/// [`StartError`].
pub fn start<D: Disk, M: Machine>(
    disk: D,
    settings: Settings,
    mut observers: Vec<Box<dyn Observer<M>>>,
) -> Result<(Log<M>, Running<M>), StartError> {
    let (store, recovered) = Store::open(disk, settings.store.clone())?;
    if recovered.checkpoint.conf_state.voters != [store.identity().replica] {
        return Err(StartError::Group);
    }
    if let Some(cut) = &recovered.cut {
        tracing::info!(file = cut.file, offset = cut.offset, bytes = cut.bytes, "cut what was not written whole");
    }
    for damage in &recovered.set_aside {
        tracing::error!(file = damage.file, offset = damage.offset, "a checkpoint is damaged: took the one before it");
    }
    let replayed = replay(&recovered, &mut observers)?;
    let Replayed { state, applied, entries, bytes } = replayed;
    let (inbox, messages) = mpsc::channel();
    let (state_out, state_in) = watch::channel(Arc::new(state.clone()));
    let (applied_out, applied_in) = watch::channel(applied);
    let (leader_out, leader_in) = watch::channel(None);
    let (end_out, end_in) = watch::channel(None);
    let mut settings = settings;
    settings.entry_limit_bytes = settings.entry_limit_bytes.min(store.batch_limit_bytes() - 13);
    let shared = Shared {
        inbox: inbox.clone(),
        room: Arc::new(Semaphore::new(settings.waiting)),
        entry_limit_bytes: settings.entry_limit_bytes,
        state: state_in,
        applied: applied_in,
        leader: leader_in,
        end: end_in.clone(),
    };
    let keeping = Keeping::new(&settings, recovered.checkpoint.conf_state, inbox.clone(), entries, bytes);
    let outlets = Outlets { state: state_out, applied: applied_out, leader: leader_out };
    let leader = outlets.leader.clone();
    let runner = Runner::new(store, state, applied, observers, keeping, settings, messages, outlets);
    let life = move || {
        let end = catch_unwind(AssertUnwindSafe(|| runner.run())).unwrap_or(End::Panicked);
        leader.send_replace(None);
        end_out.send_replace(Some(end));
    };
    let thread = thread::Builder::new().name("log".into()).spawn(life).map_err(StartError::Thread)?;
    Ok((Log(Arc::new(shared)), Running { inbox, end: end_in, thread: Some(thread) }))
}

struct Replayed<M> {
    state: M,
    applied: Position,
    /// What came behind the checkpoint.
    entries: u64,
    bytes: u64,
}

/// The state as of the last entry: what is durable at the only voter is committed.
fn replay<M: Machine>(
    recovered: &Recovered,
    observers: &mut [Box<dyn Observer<M>>],
) -> Result<Replayed<M>, StartError> {
    let checkpoint = &recovered.checkpoint;
    let state = M::from_sections(&checkpoint.sections);
    let state = state.map_err(|why| StartError::Checkpoint { index: checkpoint.index, why })?;
    let behind = recovered.entries.iter().filter(|entry| entry.index > checkpoint.index);
    // Read before anything is shown: an observer does not undo.
    let decoded = behind.map(|entry| Ok((entry, decode::<M>(entry)?))).collect::<Result<Vec<_>, StartError>>()?;
    for observer in observers.iter_mut() {
        let missed = observer.wanted().max(FIRST_ENTRY)..=checkpoint.index;
        if !missed.is_empty() {
            observer.missed(missed);
        }
    }
    let mut replayed = Replayed { state, applied: checkpoint.position(), entries: 0, bytes: 0 };
    for (Entry { index, term, data, .. }, entry) in decoded {
        replayed.applied = Position { index: *index, term: *term };
        replayed.entries += 1;
        replayed.bytes += data.len() as u64;
        let Some(entry) = entry else { continue };
        let outcome = replayed.state.apply(replayed.applied, &entry);
        for observer in observers.iter_mut().filter(|observer| observer.wanted() <= *index) {
            observer.applied(replayed.applied, &entry, &outcome);
        }
    }
    Ok(replayed)
}

/// `None` where the entry only begins a term.
fn decode<M: Machine>(entry: &Entry) -> Result<Option<M::Entry>, StartError> {
    match entry.kind {
        EntryKind::Configuration => Err(StartError::Group),
        EntryKind::Normal if entry.data.is_empty() => Ok(None),
        EntryKind::Normal => {
            M::decode(&entry.data).map(Some).map_err(|why| StartError::Entry { index: entry.index, why })
        }
    }
}
