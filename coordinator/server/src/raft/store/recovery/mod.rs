//! Reading a log back: everything is checked before anything is changed.

mod checkpoints;
mod segments;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicUsize},
};

use self::{checkpoints::Chosen, segments::Log};
use super::{
    Checkpoint, Entry, HardState, Identity, OpenError, Position, Settings, Store, checkpoint,
    disk::{Disk, read_whole},
    error::Damage,
    health::Health,
    identity::{self, Kind},
    log::Tail,
    place::UNFINISHED,
    preparation::{BALLAST, Preparation},
    sector, segment,
};

/// What a checkpoint that was set aside is called.
const SET_ASIDE: &str = ".damaged";

/// What a log held when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// The hard state. Its commit index is at least the checkpoint's index.
    pub hard_state: HardState,
    /// The newest checkpoint that is whole.
    pub checkpoint: Checkpoint,
    /// The SHA-256 that proves it.
    pub sha256: [u8; 32],
    /// The place just before the first entry.
    pub before: Position,
    /// Every entry that is kept. They reach back to the checkpoint at least, and mostly behind it.
    pub entries: Vec<Entry>,
    /// What was being written when the power went, if anything of it was left.
    pub cut: Option<Cut>,
    /// Newer checkpoints that are damaged. Until the next one is saved they are kept under names ending in `.damaged`.
    pub set_aside: Vec<Damage>,
}

/// The remains of a record that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file name.
    pub file: String,
    /// Where it began, in bytes.
    pub offset: usize,
    /// How far it reached, in bytes.
    pub bytes: usize,
}

pub(super) fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name);
    [identity::FILE, BALLAST].contains(&name)
        || segment::id(name).or(checkpoint::index(name)).or(checkpoint::received_index(name)).is_some()
}

/// Opens a log.
pub(super) fn open<D: Disk>(disk: Arc<D>, settings: Settings) -> Result<(Store<D>, Recovered), OpenError> {
    let files = list(&*disk)?;
    let identity = read_identity(&*disk, &files)?;
    let log = Log::read(&*disk, &identity, &files)?;
    let chosen = Chosen::find(&*disk, &identity, &files, &log)?;

    // From here on it is known what the log holds; what follows changes nothing of that.
    let active = log.mend(&*disk)?;
    let litter = log.litter(&files, &chosen, &settings);
    chosen.settle(&*disk)?;
    for name in litter.iter().rev() {
        // One by one, the last segment first: no gap may be left whenever the power goes.
        disk.remove(name).and_then(|()| disk.sync_dir()).map_err(failed(name))?;
    }
    disk.sync_dir().map_err(failed("."))?;

    let health = Health::default();
    let preparation = log.reserve(&*disk, &files, &settings).and_then(|ready| {
        Preparation::start(Arc::clone(&disk), settings.clone(), health.clone(), ready).map_err(failed("."))
    })?;
    let Log { tail, crc, segments, entries, cut, .. } = log;
    let Chosen { checkpoint, sha256, kept, set_aside, .. } = chosen;
    let earlier = files.into_keys().filter(|name| name.ends_with(SET_ASIDE));
    let fresh = set_aside.iter().map(|damage| format!("{}{SET_ASIDE}", damage.file));
    let damaged_files: BTreeSet<String> = earlier.chain(fresh).collect();
    let hard_state = HardState { commit: tail.hard_state.commit.max(checkpoint.index), ..tail.hard_state };
    let left = AtomicUsize::new((active.sectors - active.next) * sector::PAYLOAD);
    let store = Store {
        disk,
        identity,
        settings,
        health,
        preparation,
        tail: Tail { hard_state, ..tail },
        durable: tail.hard_state,
        crc,
        segments,
        active,
        left: Arc::new(left),
        checkpoints: kept,
        set_aside: damaged_files.into_iter().collect(),
        buffer: Vec::new(),
    };
    Ok((store, Recovered { hard_state, checkpoint, sha256, before: tail.base, entries, cut, set_aside }))
}

/// What a log holds: whose it is, the newest checkpoint that is whole, and every entry that is kept. Nothing is changed.
///
/// # Errors
/// [`OpenError`].
pub fn read_log<D: Disk>(disk: &D) -> Result<(Identity, Checkpoint, Vec<Entry>), OpenError> {
    let files = list(disk)?;
    let identity = read_identity(disk, &files)?;
    let log = Log::read(disk, &identity, &files)?;
    let chosen = Chosen::find(disk, &identity, &files, &log)?;
    Ok((identity, chosen.checkpoint, log.entries))
}

/// Lengths by name.
type Files = BTreeMap<String, u64>;

fn list<D: Disk>(disk: &D) -> Result<Files, OpenError> {
    let listed = disk.list().map_err(failed("."))?;
    Ok(listed.into_iter().map(|file| (file.name, file.bytes)).collect())
}

/// Whose log a folder holds.
///
/// # Errors
/// There is none, or its identity cannot be read.
pub fn identity_of<D: Disk>(disk: &D) -> Result<Identity, OpenError> {
    let bytes = read(disk, identity::FILE)?;
    identity::read_head(Kind::Identity, identity::FILE, &bytes).map(|(identity, _)| identity)
}

fn read_identity<D: Disk>(disk: &D, files: &Files) -> Result<Identity, OpenError> {
    if !files.contains_key(identity::FILE) {
        return match files.keys().find(|name| is_ours(name) && !name.ends_with(UNFINISHED)) {
            None => Err(OpenError::Empty),
            Some(other) => Err(missing(identity::FILE, format!("{other} is there"))),
        };
    }
    let bytes = read(disk, identity::FILE)?;
    let (identity, _) = identity::read_head(Kind::Identity, identity::FILE, &bytes)?;
    Ok(identity)
}

fn read<D: Disk>(disk: &D, name: &str) -> Result<Vec<u8>, OpenError> {
    read_whole(disk, name).map_err(failed(name))
}

fn missing(file: &str, why: String) -> OpenError {
    OpenError::Missing { file: file.to_owned(), why }
}

fn failed(file: &str) -> impl FnOnce(std::io::Error) -> OpenError {
    let file = file.to_owned();
    |error| OpenError::Disk { file, error }
}
