//! A segment: a file of a fixed length that records fill from front to back, and that is never used twice.

use std::ops::Range;

use super::{
    Identity,
    error::{Damage, OpenError},
    identity::{self, Kind},
    log::{HardState, Position},
    record::{self, Record},
    sector::{self, Mark, SECTOR, Sector},
};

const PREFIX: &str = "segment-";

/// The file's name. Segments are numbered from 1, without a gap.
pub(super) fn file(id: u64) -> String {
    format!("{PREFIX}{id:016}")
}

/// The number of the segment with this name.
pub(super) fn id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    digits.parse().ok()
}

/// What was before a segment: so it can be read without those before it, and a missing one is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    /// The checksum of the last record; 0 before the first one.
    pub(super) crc: u32,
    /// The last entry.
    pub(super) last: Position,
    /// The hard state.
    pub(super) hard_state: HardState,
}

/// The first sector of a segment that is in use.
pub(super) fn head(identity: &Identity, id: u64, bytes: u64, before: &Before) -> [u8; SECTOR] {
    let Before { crc, last, hard_state } = before;
    let mut own = Vec::with_capacity(64);
    for field in [id, bytes, last.index, last.term, hard_state.term, hard_state.vote, hard_state.commit, (*crc).into()]
    {
        own.extend_from_slice(&field.to_le_bytes());
    }
    identity::head(Kind::Segment, identity, &own)
}

/// Reads the first sector; `None` for a segment that was never used.
pub(super) fn read_head(identity: &Identity, id: u64, bytes: &[u8]) -> Result<Option<Before>, OpenError> {
    let file = file(id);
    let damaged = |offset, why| OpenError::Damaged(Damage::new(&file, offset, why));
    if bytes.len() < 2 * SECTOR || !bytes.len().is_multiple_of(SECTOR) {
        return Err(damaged(bytes.len(), "the file ends here, which is not where segments end"));
    }
    if sector::is_zero_from(0, &bytes[..SECTOR]) {
        // Its first sector is durable before any other is written.
        let written =
            (1..bytes.len() / SECTOR).find(|number| !sector::is_zero_from(0, &bytes[number * SECTOR..][..SECTOR]));
        return match written {
            None => Ok(None),
            Some(number) => Err(damaged(number * SECTOR, "something stands in a segment that was never used")),
        };
    }
    let (found, mut own) = identity::read_head(Kind::Segment, &file, bytes)?;
    if found != *identity {
        return Err(OpenError::Foreign { file, found, expected: identity.clone() });
    }
    let fields = (|| {
        let (own_id, length) = (own.u64()?, own.u64()?);
        let last = Position { index: own.u64()?, term: own.u64()? };
        let hard_state = record::hard_state(&mut own)?;
        Some((own_id, length, Before { crc: u32::try_from(own.u64()?).ok()?, last, hard_state }))
    })();
    match fields {
        Some((own_id, _, _)) if own_id != id => Err(damaged(0, "it is another segment than its name says")),
        Some((_, length, _)) if length != bytes.len() as u64 => {
            Err(damaged(bytes.len(), "the file does not end where it should"))
        }
        Some((_, _, before)) => Ok(Some(before)),
        None => Err(damaged(0, "the file's first sector makes no sense")),
    }
}

/// What stands in a segment.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Its records, with where each begins, in bytes.
    pub(super) records: Vec<(usize, Record)>,
    /// The last record's checksum.
    pub(super) crc: Option<u32>,
    /// The last record's bytes.
    pub(super) last: Option<Range<usize>>,
    /// The first free sector.
    pub(super) end: usize,
    /// What is left of a record that was being written when the power went: all zero from its end on.
    pub(super) torn: Option<Range<usize>>,
}

/// Reads a segment's records. Only the `newest` one may end in a torn record.
///
/// # Errors
/// Where it is damaged, and how. A record that lacks sectors was never acknowledged, since one sync made all of it
/// durable before the next was begun: but only if it is the very last thing that was written.
pub(super) fn scan(id: u64, bytes: &[u8], newest: bool) -> Result<Scan, Damage> {
    let sectors = bytes.len() / SECTOR;
    let damaged = |number: usize, why| Damage::new(&file(id), number * SECTOR, why);
    let mut scan = Scan { end: 1, ..Scan::default() };
    while scan.end < sectors {
        let begin = scan.end;
        let length = match sector::read(id, begin, bytes) {
            Sector::Zero => break,
            Sector::Flipped => return Err(damaged(begin, "a sector fails its checksum")),
            Sector::Intact(Mark::Further, _) => return Err(damaged(begin, "a record lacks its beginning")),
            Sector::Intact(Mark::First, payload) => record::length(payload),
        };
        let end = begin + sector::count(length);
        if end > sectors {
            return Err(damaged(begin, "a record is longer than its segment"));
        }
        let mut record = Vec::with_capacity((end - begin) * sector::PAYLOAD);
        let mut lacks = None;
        for number in begin..end {
            match sector::read(id, number, bytes) {
                Sector::Zero => lacks = lacks.or(Some(number)),
                Sector::Intact(mark, payload) if (mark == Mark::First) == (number == begin) => {
                    record.extend_from_slice(payload)
                }
                Sector::Intact(..) => return Err(damaged(begin, "a record is followed by another before its end")),
                Sector::Flipped => return Err(damaged(number, "a sector fails its checksum")),
            }
        }
        if let Some(number) = lacks {
            if let Some(flipped) = (end..sectors).find(|number| sector::read(id, *number, bytes) == Sector::Flipped) {
                return Err(damaged(flipped, "a sector fails its checksum"));
            }
            if !newest || !sector::is_zero_from(end, bytes) {
                return Err(damaged(number, "a sector is gone, and more was written after it"));
            }
            scan.torn = Some(begin * SECTOR..end * SECTOR);
            return Ok(scan);
        }
        let (record, crc) = record::decode(id, begin, &record[..length]).map_err(|why| damaged(begin, why))?;
        scan.records.push((begin * SECTOR, record));
        scan.crc = Some(crc);
        scan.last = Some(begin * SECTOR..end * SECTOR);
        scan.end = end;
    }
    scan.torn = headless(id, bytes, scan.end, newest)?;
    Ok(scan)
}

/// What is left of a record whose first sector is not there: further sectors of it, and nothing else.
fn headless(id: u64, bytes: &[u8], end: usize, newest: bool) -> Result<Option<Range<usize>>, Damage> {
    let damaged = |number: usize, why| Damage::new(&file(id), number * SECTOR, why);
    if sector::is_zero_from(end, bytes) {
        return Ok(None);
    }
    let mut torn_end = end;
    for number in end..bytes.len() / SECTOR {
        match sector::read(id, number, bytes) {
            Sector::Zero => {}
            Sector::Intact(Mark::Further, _) if newest => torn_end = number + 1,
            Sector::Intact(..) => return Err(damaged(end, "a sector is gone, and more was written after it")),
            Sector::Flipped => return Err(damaged(number, "a sector fails its checksum")),
        }
    }
    Ok(Some(end * SECTOR..torn_end * SECTOR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::{
        log::{Batch, Entry, EntryKind, Priority},
        record::Draft,
    };

    const ID: u64 = 3;

    #[test]
    fn names_are_numbers() {
        assert_eq!(file(7), "segment-0000000000000007");
        assert_eq!(id(&file(7)), Some(7));
        for other in
            ["segment-7", "segment-0000000000000007.tmp", "checkpoint-0000000000000007", "segment-000000000000000x"]
        {
            assert_eq!(id(other), None, "{other}");
        }
    }

    #[test]
    fn a_head_tells_what_was_before() {
        let identity = Identity { cluster: "c".parse().unwrap(), generation: 1, replica: 1 };
        let before = Before {
            crc: u32::MAX,
            last: Position { index: 4, term: 2 },
            hard_state: HardState { term: 3, vote: 1, commit: 4 },
        };
        let mut bytes = vec![0; 4 * SECTOR];
        assert_eq!(read_head(&identity, ID, &bytes).unwrap(), None);
        bytes[..SECTOR].copy_from_slice(&head(&identity, ID, 2048, &before));
        assert_eq!(read_head(&identity, ID, &bytes).unwrap(), Some(before));
        let why = |id, bytes: &[u8]| read_head(&identity, id, bytes).unwrap_err().to_string();
        assert!(why(ID + 1, &bytes).ends_with("it is another segment than its name says"));
        assert!(why(ID, &bytes[..3 * SECTOR]).ends_with("at byte 1536: the file does not end where it should"));
        assert!(why(ID, &[]).contains("ends here"));
        let other = Identity { generation: 2, ..identity.clone() };
        assert!(matches!(read_head(&other, ID, &bytes), Err(OpenError::Foreign { .. })));
        bytes[..SECTOR].fill(0);
        bytes[2 * SECTOR] = 1;
        assert!(why(ID, &bytes).contains("at byte 1024"), "its head is gone, its records are not");
    }

    #[test]
    fn a_torn_end_is_told_from_a_flipped_bit() {
        let whole = segment();
        assert_eq!(scan(ID, &whole, true).unwrap().records.len(), 3);
        // Sectors 1, 2 to 4, and 5 to 7 hold the three records.
        let torn = |lost: &[usize]| scan(ID, &without(&whole, lost), true).map(|scan| (scan.records.len(), scan.torn));
        assert_eq!(torn(&[7]), Ok((2, Some(5 * SECTOR..8 * SECTOR))), "its end");
        assert_eq!(torn(&[5]), Ok((2, Some(5 * SECTOR..8 * SECTOR))), "its beginning");
        assert_eq!(torn(&[5, 6]), Ok((2, Some(5 * SECTOR..8 * SECTOR))));
        assert_eq!(torn(&[5, 7]), Ok((2, Some(5 * SECTOR..7 * SECTOR))));
        assert_eq!(torn(&[5, 6, 7]), Ok((2, None)), "nothing is left of it");
        let lost = |lost: &[usize]| torn(lost).unwrap_err();
        for middle in [vec![1], vec![2], vec![3], vec![2, 3, 4], vec![4, 5], vec![3, 7]] {
            assert!(lost(&middle).why.ends_with("more was written after it"), "{middle:?}");
        }
        assert_eq!(lost(&[3]).offset, 3 * SECTOR);
        for last in [5, 7] {
            assert!(scan(ID, &without(&whole, &[last]), false).is_err(), "an older segment has no torn end");
        }
        for bit in 8 * SECTOR..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let offset = scan(ID, &flipped, true).unwrap_err().offset;
            assert_eq!(offset, bit / 8 / SECTOR * SECTOR, "bit {bit}");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_torn_record_is_no_torn_record() {
        for at in [5, 6] {
            let mut bytes = without(&segment(), &[7]);
            bytes[at * SECTOR + 99] ^= 4;
            assert_eq!(scan(ID, &bytes, true).unwrap_err().offset, at * SECTOR);
        }
        let mut headless = without(&segment(), &[5]);
        headless[7 * SECTOR + 99] ^= 4;
        assert_eq!(scan(ID, &headless, true).unwrap_err().offset, 7 * SECTOR);
    }

    #[test]
    fn sectors_of_an_older_record_make_no_new_one() {
        // The last record was torn, its remains stayed, and another of the same length was torn on top of it.
        let mut bytes = segment();
        let mut other = vec![0; 5 * SECTOR];
        entry(3, 9).frame(ID, 5, &mut other);
        bytes[6 * SECTOR..7 * SECTOR].copy_from_slice(&other[6 * SECTOR..7 * SECTOR]);
        assert_eq!(scan(ID, &bytes, true).unwrap_err().why, "a record is complete, but fails its checksum");
    }

    /// Ten sectors: a head, records of one, three and three sectors, and two free ones.
    fn segment() -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        let batch = Batch { entries: &[], hard_state: Some(HardState::default()), priority: Priority::Ordinary };
        Draft::batch(&batch, false, batch.hard_state).frame(ID, 1, &mut bytes);
        entry(1, 0).frame(ID, 2, &mut bytes);
        entry(2, 0).frame(ID, 5, &mut bytes);
        bytes.resize(10 * SECTOR, 0);
        bytes
    }

    fn entry(index: u64, fill: u8) -> Draft {
        let entries = [Entry { index, term: 1, kind: EntryKind::Normal, data: vec![fill; 1200] }];
        Draft::batch(&Batch { entries: &entries, hard_state: None, priority: Priority::Ordinary }, false, None)
    }

    fn without(bytes: &[u8], lost: &[usize]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for sector in lost {
            bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        }
        bytes
    }
}
