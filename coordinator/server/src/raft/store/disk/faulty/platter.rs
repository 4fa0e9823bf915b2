//! What is on the disk: as programs see it, and as it is after the power went.

use std::{collections::BTreeMap, io, ops::Range};

use super::{Dice, SECTOR};

#[derive(Debug)]
pub(super) struct Platter {
    pub(super) dice: Dice,
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) next_number: u64,
    /// As programs see them.
    pub(super) names: BTreeMap<String, u64>,
    /// As they are after the power went.
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) room: Option<usize>,
    pub(super) until_death: Option<usize>,
    pub(super) until_sync_error: Option<usize>,
    pub(super) until_write_error: Option<usize>,
    pub(super) until_read_error: Option<usize>,
    pub(super) syncs: usize,
    pub(super) dead: bool,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) visible: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) dirty: Vec<Range<usize>>,
}

#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) gone: Option<String>,
    pub(super) there: Option<(String, u64)>,
}

impl Content {
    /// Writes dirty sectors, those that `survives` says, and forgets that they were dirty.
    pub(super) fn flush(&mut self, mut survives: impl FnMut() -> bool) {
        for range in std::mem::take(&mut self.dirty) {
            for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
                let part = (sector * SECTOR).max(range.start)..((sector + 1) * SECTOR).min(range.end);
                if survives() {
                    self.durable.resize(self.durable.len().max(part.end), 0);
                    self.durable[part.clone()].copy_from_slice(&self.visible[part]);
                }
            }
        }
    }
}

impl Platter {
    pub(super) fn add(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn used(&self) -> usize {
        self.names.values().map(|number| self.files[number].visible.len()).sum()
    }

    /// Counts down to a fault.
    pub(super) fn falls(counter: &mut Option<usize>) -> bool {
        match counter {
            None => false,
            Some(0) => {
                *counter = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Before every change: `Ok(true)` where the machine dies in this one.
    pub(super) fn dies(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(gone());
        }
        self.dead = Self::falls(&mut self.until_death);
        Ok(self.dead)
    }

    pub(super) fn number(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// A change of names; when the machine dies in it, it may have come about.
    pub(super) fn change(&mut self, change: NameChange) -> io::Result<()> {
        let dies = self.dies()?;
        if dies && self.dice.percent(50) {
            return Err(gone());
        }
        if let Some(name) = &change.gone {
            self.names.remove(name);
        }
        if let Some((name, number)) = &change.there {
            self.names.insert(name.clone(), *number);
        }
        self.unsynced_names.push(change);
        if dies { Err(gone()) } else { Ok(()) }
    }
}

/// What a disk says that does not work: EIO.
pub(super) fn gone() -> io::Error {
    io::Error::from_raw_os_error(5)
}
