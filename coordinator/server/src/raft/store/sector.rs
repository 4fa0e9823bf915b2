//! Records in sectors of 512 bytes, each with a mark and a checksum of its own.
//!
//! A disk writes a sector whole or not at all. Segments are full of zeros before they are used and a written sector
//! never is all zero, so a sector is *zero* (never written), *intact*, or *flipped*: changed after it was written.

/// Bytes that a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// Bytes of a record that one sector takes: all but the mark in front and the checksum behind.
pub(super) const PAYLOAD: usize = CRC_AT - 1;

const CRC_AT: usize = SECTOR - 4;
const ZERO: [u8; SECTOR] = [0; SECTOR];

/// A sector's place within its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The first one: a record begins here.
    First,
    /// Any other.
    Further,
}

impl Mark {
    fn byte(self) -> u8 {
        match self {
            Self::First => b'R',
            Self::Further => b'+',
        }
    }
}

/// What is found in a sector.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sector<'a> {
    /// Nothing was ever written.
    Zero,
    /// As it was written.
    Intact(Mark, &'a [u8]),
    /// Neither.
    Flipped,
}

/// How many sectors a record of so many bytes takes.
pub(super) fn count(record_bytes: usize) -> usize {
    record_bytes.div_ceil(PAYLOAD)
}

/// Appends the sectors of a record that begins at sector `number` of a segment.
pub(super) fn frame(segment: u64, number: usize, record: &[u8], out: &mut Vec<u8>) {
    for (at, payload) in record.chunks(PAYLOAD).enumerate() {
        let start = out.len();
        out.push(if at == 0 { Mark::First } else { Mark::Further }.byte());
        out.extend_from_slice(payload);
        out.resize(start + CRC_AT, 0);
        let crc = checksum(segment, number + at, &out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

/// Reads sector `number` of a segment whose whole content is `bytes`.
pub(super) fn read(segment: u64, number: usize, bytes: &[u8]) -> Sector<'_> {
    let sector = &bytes[number * SECTOR..(number + 1) * SECTOR];
    if sector == ZERO {
        return Sector::Zero;
    }
    if sector[CRC_AT..] != checksum(segment, number, &sector[..CRC_AT]).to_le_bytes() {
        return Sector::Flipped;
    }
    let payload = &sector[1..CRC_AT];
    match sector[0] {
        b'R' => Sector::Intact(Mark::First, payload),
        b'+' => Sector::Intact(Mark::Further, payload),
        _ => Sector::Flipped,
    }
}

/// True where nothing was ever written from sector `number` on.
pub(super) fn is_zero_from(number: usize, bytes: &[u8]) -> bool {
    bytes[number * SECTOR..].chunks(SECTOR).all(|sector| sector == ZERO)
}

/// It covers the place too: a sector that the disk wrote to a wrong one is not taken for a right one.
fn checksum(segment: u64, number: usize, bytes: &[u8]) -> u32 {
    let place = crc32c::crc32c(&segment.to_le_bytes());
    let place = crc32c::crc32c_append(place, &(number as u64).to_le_bytes());
    crc32c::crc32c_append(place, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_written_sector_is_all_zero() {
        let mut out = vec![0; SECTOR];
        frame(1, 1, &[0; 3 * PAYLOAD], &mut out);
        assert_eq!(out.len(), 4 * SECTOR);
        assert_eq!(read(1, 0, &out), Sector::Zero);
        assert_eq!(read(1, 1, &out), Sector::Intact(Mark::First, &[0; PAYLOAD]));
        assert_eq!(read(1, 3, &out), Sector::Intact(Mark::Further, &[0; PAYLOAD]));
    }

    #[test]
    fn a_flipped_bit_and_a_wrong_place_are_seen() {
        let mut out = vec![0; SECTOR];
        frame(1, 1, b"some entry", &mut out);
        assert_eq!(read(2, 1, &out), Sector::Flipped, "another segment");
        let mut moved = vec![0; 2 * SECTOR];
        moved.extend_from_slice(&out[SECTOR..]);
        assert_eq!(read(1, 2, &moved), Sector::Flipped, "another offset");
        for bit in 0..SECTOR * 8 {
            let mut flipped = out.clone();
            flipped[SECTOR + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(1, 1, &flipped), Sector::Flipped, "bit {bit}");
        }
    }
}
