//! Whose files these are: the first 512 bytes of each say it.

use std::fmt;

use mainstay_common::ClusterId;

use super::{
    error::{Damage, OpenError},
    layout::Fields,
    sector::SECTOR,
};

/// The name of the file that says whose folder this is.
pub(super) const FILE: &str = "identity";
/// The only version of each kind of file there is so far.
pub(super) const VERSION: u32 = 1;

/// Who writes a log. It is made once and stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster for ever.
    pub cluster: ClusterId,
    /// Counts disaster restores, after which terms start again.
    pub generation: u64,
    /// Raft's number of this replica: never 0, never used again.
    pub replica: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {} of cluster {}, generation {}", self.replica, self.cluster, self.generation)
    }
}

/// What a file is, as its first 8 bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Identity,
    Segment,
    Checkpoint,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Identity => b"MSTAYIDN",
            Self::Segment => b"MSTAYLOG",
            Self::Checkpoint => b"MSTAYCKP",
        }
    }
}

const OWN_FIELDS_AT: usize = 128;
const CRC_AT: usize = SECTOR - 4;
const LONGEST_NAME: usize = 64;

/// The first sector of a file; `own` are the fields of its kind.
pub(super) fn head(kind: Kind, identity: &Identity, own: &[u8]) -> [u8; SECTOR] {
    let mut head = [0; SECTOR];
    let name = identity.cluster.as_str().as_bytes();
    head[..8].copy_from_slice(kind.magic());
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[16..24].copy_from_slice(&identity.generation.to_le_bytes());
    head[24..32].copy_from_slice(&identity.replica.to_le_bytes());
    head[32] = u8::try_from(name.len().min(LONGEST_NAME)).unwrap_or(0);
    head[33..33 + name.len()].copy_from_slice(name);
    head[OWN_FIELDS_AT..OWN_FIELDS_AT + own.len()].copy_from_slice(own);
    let crc = crc32c::crc32c(&head[..CRC_AT]);
    head[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Reads the first sector of `file`: whose it is, and the fields of its kind.
///
/// Its checksum and the place of its version are the same in every version to come, so that a newer file is told from
/// a damaged one.
pub(super) fn read_head<'a>(kind: Kind, file: &str, bytes: &'a [u8]) -> Result<(Identity, Fields<'a>), OpenError> {
    let damaged = |offset, why| OpenError::Damaged(Damage::new(file, offset, why));
    let head = bytes.get(..SECTOR).ok_or_else(|| damaged(bytes.len(), "the file ends within its first sector"))?;
    if head[CRC_AT..] != crc32c::crc32c(&head[..CRC_AT]).to_le_bytes() {
        return Err(damaged(0, "the file's first sector fails its checksum"));
    }
    if head[..8] != *kind.magic() {
        return Err(damaged(0, "the file is of another kind than its name says"));
    }
    let short = || damaged(0, "the file's first sector makes no sense");
    let mut fields = Fields(&head[8..OWN_FIELDS_AT]);
    let version = fields.u32().ok_or_else(short)?;
    if version > VERSION {
        return Err(OpenError::Newer { file: file.to_owned(), version, known: VERSION });
    }
    let identity = (|| {
        fields.take(4)?;
        let (generation, replica, length) = (fields.u64()?, fields.u64()?, fields.u8()?);
        let cluster = std::str::from_utf8(fields.take(length.into())?).ok()?.parse().ok()?;
        Some(Identity { cluster, generation, replica })
    })();
    let identity = identity.filter(|_| version == VERSION).ok_or_else(short)?;
    Ok((identity, Fields(&head[OWN_FIELDS_AT..CRC_AT])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_every_flipped_bit_is_seen() {
        let identity = identity();
        let head = head(Kind::Segment, &identity, &[7; 100]);
        let (read, own) = read_head(Kind::Segment, "f", &head).unwrap();
        assert_eq!(read, identity);
        assert_eq!(own.0[..101], [[7; 100].as_slice(), &[0]].concat());
        for bit in 0..SECTOR * 8 {
            let mut flipped = head;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = read_head(Kind::Segment, "f", &flipped).err().unwrap();
            assert!(matches!(error, OpenError::Damaged(_)), "bit {bit}: {error}");
        }
        assert!(matches!(read_head(Kind::Segment, "f", &head[..511]), Err(OpenError::Damaged(_))));
        assert!(matches!(read_head(Kind::Checkpoint, "f", &head), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn a_newer_version_is_called_newer_not_damaged() {
        let mut newer = head(Kind::Identity, &identity(), &[]);
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..CRC_AT]).to_le_bytes();
        newer[CRC_AT..].copy_from_slice(&crc);
        let error = read_head(Kind::Identity, "identity", &newer).err().unwrap();
        assert_eq!(error.to_string(), "identity is of version 2; this program knows versions up to 1");
    }

    fn identity() -> Identity {
        Identity { cluster: "c".repeat(64).parse().unwrap(), generation: 3, replica: 9 }
    }
}
