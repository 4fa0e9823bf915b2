//! What the segments hold, from the first one that is left to the last record.

use std::collections::VecDeque;

use super::{Chosen, Cut, Files, failed, is_ours, missing, read};
use crate::raft::store::{
    Entry, Identity, OpenError, Settings, checkpoint,
    disk::{Disk, DiskFile as _},
    error::Damage,
    log::Tail,
    place::UNFINISHED,
    preparation::{BALLAST, Ballast, Ready, Spare},
    record::Record,
    sector::SECTOR,
    segment::{self, Before, Scan},
    writing::{Active, Used},
};

/// What the segments hold.
pub(super) struct Log {
    pub(super) tail: Tail,
    pub(super) crc: u32,
    pub(super) segments: VecDeque<Used>,
    pub(super) entries: Vec<Entry>,
    /// The index of the checkpoint that the last reset names.
    pub(super) reset: Option<u64>,
    /// The newest segment in use, whole, and what is in it.
    pub(super) newest: (u64, Vec<u8>, Scan),
    /// Spare segments, in order.
    pub(super) spares: Vec<u64>,
    /// Segments before a gap: removed, but not all of that was durable.
    pub(super) leftover: Vec<u64>,
    pub(super) cut: Option<Cut>,
}

impl Log {
    pub(super) fn read<D: Disk>(disk: &D, identity: &Identity, files: &Files) -> Result<Self, OpenError> {
        let mut ids: Vec<u64> = files.keys().filter_map(|name| segment::id(name)).collect();
        ids.sort_unstable();
        // Superfluous segments are removed oldest first, but the disk may forget some of that: only what is joined to
        // the newest one counts.
        let gap = (1..ids.len()).rev().find(|at| ids[*at] != ids[at - 1] + 1).unwrap_or(0);
        let run = ids.split_off(gap);
        let leftover = ids;

        let (mut used, mut spares) = (Vec::new(), Vec::new());
        for id in run {
            let bytes = read(disk, &segment::file(id))?;
            match segment::read_head(identity, id, &bytes)? {
                None => spares.push(id),
                Some(_) if !spares.is_empty() => {
                    let file = segment::file(spares[0]);
                    return Err(Damage::new(&file, 0, "the segment is empty, but a later one is in use").into());
                }
                Some(before) => used.push((id, bytes, before)),
            }
        }
        let Some((first, newest)) = used.first().zip(used.last().map(|(id, ..)| *id)) else {
            return match leftover.last().zip(spares.first()) {
                Some((_, next)) => Err(missing(&segment::file(next - 1), "the ones around it are there".into())),
                None => Err(OpenError::HalfMade),
            };
        };
        let Before { crc, last, hard_state } = first.2;
        let mut log = Self {
            tail: Tail { base: last, last, hard_state },
            crc,
            segments: VecDeque::new(),
            entries: Vec::new(),
            reset: None,
            newest: (newest, Vec::new(), Scan::default()),
            spares,
            leftover,
            cut: None,
        };
        for (id, bytes, before) in used {
            log.add(id, bytes, before, id == newest)?;
        }
        Ok(log)
    }

    fn add(&mut self, id: u64, bytes: Vec<u8>, before: Before, newest: bool) -> Result<(), OpenError> {
        let file = segment::file(id);
        let joined = Before { crc: self.crc, last: self.tail.last, hard_state: self.tail.hard_state };
        if before != joined {
            let why = "the segment before it does not end where this one begins: records are gone";
            return Err(Damage::new(&file, 0, why).into());
        }
        self.segments.push_back(Used { id, before: before.last, highest: 0 });
        let mut scan = segment::scan(id, &bytes, newest)?;
        for (offset, record) in std::mem::take(&mut scan.records) {
            self.replay(record).map_err(|why| Damage::new(&file, offset, why))?;
        }
        self.crc = scan.crc.unwrap_or(self.crc);
        if newest {
            self.cut = scan.torn.clone().map(|torn| Cut { file, offset: torn.start, bytes: torn.len() });
            self.newest = (id, bytes, scan);
        }
        Ok(())
    }

    fn replay(&mut self, record: Record) -> Result<(), String> {
        let contradiction = |error| format!("the record does not fit the log: {error}");
        match record {
            Record::Batch { entries, cuts, hard_state } => {
                if cuts != self.tail.cuts(&entries) {
                    return Err("the record replaces other entries than it says".to_owned());
                }
                let tail = self.tail.after(&entries, hard_state).map_err(contradiction)?;
                if let Some(first) = entries.first() {
                    self.entries.truncate(offset(first.index.saturating_sub(1 + self.tail.base.index)));
                }
                self.segments.iter_mut().for_each(|used| used.before = used.before.replaced_by(&entries));
                self.entries.extend(entries.into_iter().filter(|entry| entry.index > tail.base.index));
                self.tail = tail;
            }
            Record::Reset { checkpoint, hard_state } => {
                self.tail = self.tail.after_reset(checkpoint, hard_state).map_err(contradiction)?;
                self.entries.clear();
                self.reset = Some(checkpoint.index);
                self.segments.iter_mut().for_each(|used| (used.before, used.highest) = (checkpoint, 0));
            }
        }
        if let Some(used) = self.segments.back_mut() {
            used.highest = if self.entries.is_empty() { 0 } else { used.highest.max(self.tail.last.index) };
        }
        Ok(())
    }

    /// The term of the entry at `index`, if the log reaches there.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.tail.base.index {
            return Some(self.tail.base.term);
        }
        let at = index.checked_sub(self.tail.base.index + 1)?;
        self.entries.get(offset(at)).map(|entry| entry.term)
    }

    /// Makes what was read durable, and what is torn zero. A process that ended before its sync returned, or after it
    /// failed, left a record that is seen but may not be on the disk; only writing it again puts it there.
    pub(super) fn mend<D: Disk>(&self, disk: &D) -> Result<Active<D::File>, OpenError> {
        let (id, bytes, scan) = &self.newest;
        let name = segment::file(*id);
        let last = scan.last.clone().unwrap_or(0..SECTOR);
        let mended = disk.open(&name).and_then(|file| {
            if let Some(torn) = &scan.torn {
                file.write_at(torn.start as u64, &vec![0; torn.len()])?;
            }
            file.write_at(last.start as u64, &bytes[last.clone()])?;
            file.sync()?;
            Ok(Active { id: *id, file, sectors: bytes.len() / SECTOR, next: scan.end })
        });
        mended.map_err(failed(&name))
    }

    /// Files that nobody needs any more.
    pub(super) fn litter(&self, files: &Files, chosen: &Chosen, settings: &Settings) -> Vec<String> {
        let misfit = |id: &&u64| files.get(&segment::file(**id)) != Some(&settings.segment_bytes);
        let first_misfit = self.spares.iter().find(misfit).copied();
        let superfluous = |name: &str| {
            if let Some(id) = segment::id(name) {
                return self.leftover.contains(&id)
                    || first_misfit.is_some_and(|first| id >= first && self.spares.contains(&id));
            }
            let received = checkpoint::received_index(name);
            let ballast = name == BALLAST && files.get(name) != Some(&settings.ballast_bytes);
            name.ends_with(UNFINISHED) && is_ours(name) || received.is_some() && received != chosen.promoted || ballast
        };
        files.keys().filter(|name| superfluous(name)).cloned().collect()
    }

    pub(super) fn reserve<D: Disk>(
        &self,
        disk: &D,
        files: &Files,
        settings: &Settings,
    ) -> Result<Ready<D::File>, OpenError> {
        let mut ready = Ready { spares: VecDeque::new(), next_id: self.newest.0 + 1, ballast: Ballast::Unwanted };
        for id in &self.spares {
            let name = segment::file(*id);
            if files.get(&name) != Some(&settings.segment_bytes) {
                break;
            }
            ready.spares.push_back(Spare { id: *id, file: disk.open(&name).map_err(failed(&name))? });
            ready.next_id = id + 1;
        }
        if settings.ballast_bytes > 0 {
            let there = files.get(BALLAST) == Some(&settings.ballast_bytes);
            ready.ballast = if there { Ballast::There } else { Ballast::Missing };
        }
        Ok(ready)
    }
}

fn offset(entries: u64) -> usize {
    usize::try_from(entries).unwrap_or(usize::MAX)
}
