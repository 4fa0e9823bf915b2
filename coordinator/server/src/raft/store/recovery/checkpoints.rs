//! Which checkpoint counts: the newest that is whole, and that the log reaches.

use super::{Files, Log, SET_ASIDE, failed, missing};
use crate::raft::store::{
    Checkpoint, Identity, OpenError, checkpoint,
    disk::{Disk, Reader},
    error::Damage,
    log::Tail,
    segment,
};

/// The checkpoint that counts.
pub(super) struct Chosen {
    pub(super) checkpoint: Checkpoint,
    /// What proves it.
    pub(super) sha256: [u8; 32],
    /// It came from elsewhere and does not have its name yet.
    pub(super) promoted: Option<u64>,
    /// All that count, the oldest first.
    pub(super) kept: Vec<u64>,
    pub(super) set_aside: Vec<Damage>,
}

impl Chosen {
    pub(super) fn find<D: Disk>(disk: &D, identity: &Identity, files: &Files, log: &Log) -> Result<Self, OpenError> {
        let mut indexes: Vec<u64> = files.keys().filter_map(|name| checkpoint::index(name)).collect();
        let received = files.keys().filter_map(|name| checkpoint::received_index(name));
        let promoted = received.filter(|index| log.reset == Some(*index) && !indexes.contains(index)).max();
        indexes.extend(promoted);
        indexes.sort_unstable();
        let mut set_aside = Vec::new();
        while let Some(index) = indexes.last().copied() {
            let name = if promoted == Some(index) { checkpoint::received(index) } else { checkpoint::file(index) };
            let file = disk.open(&name).map_err(failed(&name))?;
            match Checkpoint::read(identity, &name, Reader::of(&file)) {
                Ok((checkpoint, sha256)) => {
                    meets(&name, index, &checkpoint, log, set_aside.first())?;
                    let promoted = promoted.filter(|promoted| *promoted == index);
                    return Ok(Self { checkpoint, sha256, promoted, kept: indexes, set_aside });
                }
                Err(OpenError::Damaged(damage)) => set_aside.push(damage),
                Err(other) => return Err(other),
            }
            indexes.pop();
        }
        let newest = set_aside.into_iter().next();
        Err(newest.map_or_else(|| missing("checkpoint-*", "a log needs one".into()), OpenError::Damaged))
    }

    /// Gives the checkpoint its name, and damaged ones another.
    pub(super) fn settle<D: Disk>(&self, disk: &D) -> Result<(), OpenError> {
        if let Some(index) = self.promoted {
            let received = checkpoint::received(index);
            disk.rename(&received, &checkpoint::file(index)).map_err(failed(&received))?;
        }
        for Damage { file, .. } in &self.set_aside {
            disk.rename(file, &format!("{file}{SET_ASIDE}")).map_err(failed(file))?;
        }
        Ok(())
    }
}

/// A checkpoint and a log belong together where the log has the checkpoint's last entry, or begins just behind it.
fn meets(name: &str, index: u64, checkpoint: &Checkpoint, log: &Log, newer: Option<&Damage>) -> Result<(), OpenError> {
    let Tail { base, last, .. } = log.tail;
    if checkpoint.index != index {
        return Err(Damage::new(name, 0, "it is another checkpoint than its name says").into());
    }
    match log.term(index) {
        Some(term) if term == checkpoint.term => Ok(()),
        Some(_) => Err(Damage::new(name, 0, "the log has an entry of another term at its index").into()),
        None if index > last.index => {
            let why = format!("the log ends at entry {}, before {name}", last.index);
            Err(missing(&segment::file(log.newest.0 + 1), why))
        }
        None => match newer {
            Some(damage) => {
                let why =
                    format!("{}; the checkpoint before it, {name}, needs older entries than the log has", damage.why);
                Err(Damage::new(&damage.file, damage.offset, why).into())
            }
            None => {
                let oldest = log.segments.front().map_or(log.newest.0, |used| used.id);
                let why = format!("{name} needs entries from {} on, the log begins at {}", index + 1, base.index + 1);
                Err(missing(&segment::file(oldest.saturating_sub(1)), why))
            }
        },
    }
}
