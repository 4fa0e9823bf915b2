//! A record: what becomes durable together, as bytes.

use super::{
    layout::{Fields, length_u32},
    log::{Batch, Entry, EntryKind, HardState, Position},
    sector,
};

/// Bytes before a record's body.
const HEADER: usize = 24;
/// Where the header's checksum stands; it covers the header before it, and the body.
const CRC_AT: usize = 20;
/// Bytes of an entry besides its data.
const ENTRY_HEADER: usize = 13;

const KIND_BATCH: u8 = 1;
const KIND_RESET: u8 = 2;
const HAS_HARD_STATE: u8 = 1;
const CUTS: u8 = 2;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Entries, a hard state, or both.
    Batch {
        entries: Vec<Entry>,
        /// The first entry replaces one that was there, and all behind it go.
        cuts: bool,
        hard_state: Option<HardState>,
    },
    /// A checkpoint that came from elsewhere takes the place of everything before.
    Reset { checkpoint: Position, hard_state: HardState },
}

/// A record that has no place in a segment yet.
pub(super) struct Draft(Vec<u8>);

impl Draft {
    pub(super) fn batch(batch: &Batch<'_>, cuts: bool, hard_state: Option<HardState>) -> Self {
        let flags = if cuts { CUTS } else { 0 } | if hard_state.is_some() { HAS_HARD_STATE } else { 0 };
        let data: usize = batch.entries.iter().map(|entry| ENTRY_HEADER + entry.data.len()).sum();
        let first = batch.entries.first().map_or(0, |entry| entry.index);
        let mut draft = Self::new(KIND_BATCH, flags, first, batch.entries.len(), data + 24);
        if let Some(hard_state) = hard_state {
            draft.put_hard_state(hard_state);
        }
        for entry in batch.entries {
            draft.0.extend_from_slice(&entry.term.to_le_bytes());
            draft.0.push(match entry.kind {
                EntryKind::Normal => 0,
                EntryKind::Configuration => 1,
            });
            draft.0.extend_from_slice(&length_u32(entry.data.len()).to_le_bytes());
            draft.0.extend_from_slice(&entry.data);
        }
        draft
    }

    pub(super) fn reset(checkpoint: Position, hard_state: HardState) -> Self {
        let mut draft = Self::new(KIND_RESET, HAS_HARD_STATE, checkpoint.index, 0, 32);
        draft.0.extend_from_slice(&checkpoint.term.to_le_bytes());
        draft.put_hard_state(hard_state);
        draft
    }

    fn new(kind: u8, flags: u8, first: u64, count: usize, body: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + body);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[kind, flags, 0, 0]);
        bytes.extend_from_slice(&first.to_le_bytes());
        bytes.extend_from_slice(&length_u32(count).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Self(bytes)
    }

    fn put_hard_state(&mut self, hard_state: HardState) {
        for field in [hard_state.term, hard_state.vote, hard_state.commit] {
            self.0.extend_from_slice(&field.to_le_bytes());
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Appends the record's sectors for its place in a segment, and returns its checksum.
    pub(super) fn frame(mut self, segment: u64, number: usize, out: &mut Vec<u8>) -> u32 {
        let body = length_u32(self.0.len() - HEADER);
        self.0[..4].copy_from_slice(&body.to_le_bytes());
        let crc = checksum(segment, number, &self.0);
        self.0[CRC_AT..HEADER].copy_from_slice(&crc.to_le_bytes());
        sector::frame(segment, number, &self.0, out);
        crc
    }
}

/// How many bytes the record takes that begins with this payload.
pub(super) fn length(first_payload: &[u8]) -> usize {
    Fields(first_payload).length().map_or(usize::MAX, |body| body.saturating_add(HEADER))
}

/// Reads a record whole, and its checksum.
///
/// # Errors
/// What is wrong with it, as half a sentence.
pub(super) fn decode(segment: u64, number: usize, record: &[u8]) -> Result<(Record, u32), &'static str> {
    let mut fields = Fields(record);
    let header = (|| {
        let body = fields.length()?;
        let (kind, flags, _) = (fields.u8()?, fields.u8()?, fields.take(2)?);
        Some((body, kind, flags, fields.u64()?, fields.u32()?, fields.u32()?))
    })();
    let (body, kind, flags, first, count, crc) = header.ok_or("a record is shorter than its header")?;
    if body != fields.0.len() || crc != checksum(segment, number, record) {
        return Err("a record is complete, but fails its checksum");
    }
    let record = match kind {
        KIND_BATCH => batch(&mut fields, flags, first, count),
        KIND_RESET => reset(&mut fields, first),
        _ => None,
    };
    record.filter(|_| fields.0.is_empty()).map(|record| (record, crc)).ok_or("a record is intact, but makes no sense")
}

/// Reads bytes as a record whose checksum fits, whatever stands there: for whoever wants to see the reader fail.
///
/// # Errors
/// What is wrong with it, as half a sentence.
pub fn understand(mut record: Vec<u8>) -> Result<(), &'static str> {
    if record.len() >= HEADER {
        let body = length_u32(record.len() - HEADER);
        record[..4].copy_from_slice(&body.to_le_bytes());
        let crc = checksum(1, 1, &record);
        record[CRC_AT..HEADER].copy_from_slice(&crc.to_le_bytes());
    }
    decode(1, 1, &record).map(drop)
}

fn batch(fields: &mut Fields<'_>, flags: u8, first: u64, count: u32) -> Option<Record> {
    let hard_state = if flags & HAS_HARD_STATE != 0 { Some(hard_state(fields)?) } else { None };
    let mut entries = Vec::new();
    for n in 0..count {
        // Whatever stands there: no index is beyond the last one.
        let index = first.checked_add(n.into())?;
        let term = fields.u64()?;
        let kind = match fields.u8()? {
            0 => EntryKind::Normal,
            1 => EntryKind::Configuration,
            _ => return None,
        };
        let length = fields.length()?;
        entries.push(Entry { index, term, kind, data: fields.take(length)?.to_vec() });
    }
    Some(Record::Batch { entries, cuts: flags & CUTS != 0, hard_state })
}

fn reset(fields: &mut Fields<'_>, index: u64) -> Option<Record> {
    let term = fields.u64()?;
    Some(Record::Reset { checkpoint: Position { index, term }, hard_state: hard_state(fields)? })
}

/// Reads a hard state's three fields.
pub(super) fn hard_state(fields: &mut Fields<'_>) -> Option<HardState> {
    Some(HardState { term: fields.u64()?, vote: fields.u64()?, commit: fields.u64()? })
}

/// It covers the place, the header without the checksum itself, and the body.
fn checksum(segment: u64, number: usize, record: &[u8]) -> u32 {
    let offset = (number * sector::SECTOR) as u64;
    let crc = crc32c::crc32c(&segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &record[..CRC_AT]), &record[HEADER..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raft::store::log::Priority;

    proptest! {
        #[test]
        fn any_batch_reads_back(
            first in 1..u64::MAX / 2,
            cuts: bool,
            hard_state in proptest::option::of(any::<(u64, u64, u64)>()),
            data in proptest::collection::vec((any::<u64>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..1200)), 0..5),
        ) {
            let hard_state = hard_state.map(|(term, vote, commit)| HardState { term, vote, commit });
            let kind = |configuration| if configuration { EntryKind::Configuration } else { EntryKind::Normal };
            let entries: Vec<_> = (first..)
                .zip(data)
                .map(|(index, (term, configuration, data))| Entry { index, term, kind: kind(configuration), data })
                .collect();
            let batch = Batch { entries: &entries, hard_state, priority: Priority::Ordinary };
            let draft = Draft::batch(&batch, cuts, hard_state);
            prop_assert_eq!(read_back(draft), Record::Batch { entries, cuts, hard_state });
        }
    }

    #[test]
    fn a_reset_reads_back() {
        let (checkpoint, hard_state) = (Position { index: 7, term: 2 }, HardState { term: 3, vote: 1, commit: 7 });
        assert_eq!(read_back(Draft::reset(checkpoint, hard_state)), Record::Reset { checkpoint, hard_state });
    }

    #[test]
    fn nonsense_with_a_right_checksum_is_no_record() {
        let mut draft = Draft::reset(Position::default(), HardState::default());
        draft.0.push(0);
        let mut out = vec![0; sector::SECTOR];
        draft.frame(1, 1, &mut out);
        let sector::Sector::Intact(_, payload) = sector::read(1, 1, &out) else { panic!("not intact") };
        let record = &payload[..length(payload)];
        assert_eq!(decode(1, 1, record).unwrap_err(), "a record is intact, but makes no sense");
        assert_eq!(decode(1, 2, record).unwrap_err(), "a record is complete, but fails its checksum");
    }

    fn read_back(draft: Draft) -> Record {
        let (mut out, bytes) = (vec![0; sector::SECTOR], draft.bytes());
        let crc = draft.frame(4, 1, &mut out);
        let mut record = Vec::new();
        for number in 1..=sector::count(bytes) {
            let sector::Sector::Intact(_, payload) = sector::read(4, number, &out) else { panic!("not intact") };
            record.extend_from_slice(payload);
        }
        assert_eq!(length(&record), bytes);
        let (read, read_crc) = decode(4, 1, &record[..bytes]).unwrap();
        assert_eq!(read_crc, crc);
        read
    }
}
