//! The log's store: entries in segments, state in checkpoints, both on one [`Disk`]. It knows nothing of what they say.
//!
//! What [`Store::write`] took is durable when it returns, and a batch is durable whole or not at all. After the first
//! error of the disk the store takes nothing more ([`WriteError::Broken`]). A full disk is no error: it is met while
//! segments are made ready, so a batch is refused before any of it is written ([`WriteError::NoRoom`]).
//!
//! # Files
//!
//! Numbers are little-endian. Every file but the ballast begins with a head of 512 bytes:
//!
//! | bytes | of a head |
//! |---|---|
//! | 0..8 | `MSTAYIDN`, `MSTAYLOG` or `MSTAYCKP` |
//! | 8..12 | version: 1. Its place, and that of the checksum, stay in all versions |
//! | 16..24 | generation |
//! | 24..32 | replica; 0 in checkpoints, which are the same on all replicas |
//! | 32, 33..97 | length of the cluster's id, the id |
//! | 128..508 | fields of its own (below), zeros |
//! | 508..512 | crc32c of bytes 0..508 |
//!
//! | file | content |
//! |---|---|
//! | `identity` | a head; made before anything else |
//! | `segment-N` (16 digits) | all zero while spare. In use: head (own: N; length of the file; index and term of the last entry before; term, vote, commit before; crc of the last record before: 8 bytes each), then records |
//! | `checkpoint-I` (20 digits) | head (own: index, term), then blocks: kind (1 byte), length (4), crc32c of (offset of the block, kind, content) (4), content |
//! | `received-I` | a checkpoint that came from elsewhere; it counts, and gets its name, by a *reset* in the log |
//! | `ballast` | zeros: room for what is needed when the disk is full |
//! | `*.tmp`, `*.damaged` | not finished yet, removed at the next start; a checkpoint that was set aside |
//!
//! Blocks of a checkpoint: 1 configuration (auto-leave 1 byte; voters, learners, outgoing voters, next learners: count 4
//! bytes, ids 8 bytes each), 2 a section's name, 3 at most 256 KiB of the section named last, 4 trailer (length and
//! SHA-256 of everything before it).
//!
//! A record takes whole sectors of 512 bytes:
//!
//! | bytes | of a sector |
//! |---|---|
//! | 0 | `R` in a record's first sector, `+` in the others |
//! | 1..508 | 507 bytes of the record; zeros behind its end |
//! | 508..512 | crc32c of (N as 8 bytes, number of the sector within the file as 8 bytes, bytes 0..508) |
//!
//! | bytes | of a record |
//! |---|---|
//! | 0..4 | length of the body |
//! | 4 | kind: 1 batch, 2 reset (a checkpoint takes the place of all entries) |
//! | 5 | flags: 1 a hard state is in it, 2 the first entry and all behind it that were there are cut |
//! | 8..16 | index of the first entry, 0 for none; of the checkpoint in a reset |
//! | 16..20 | number of entries |
//! | 20..24 | crc32c of (N as 8 bytes, offset of the record within the file as 8 bytes, bytes 0..20, body) |
//! | body | a reset: term of the checkpoint. Hard state: term, vote, commit. Each entry: term 8, kind 1 (0 normal, 1 configuration), length 4, data |
//!
//! Entries may be replaced by those of a later segment, and the earlier one dropped when all of it is superfluous. Where
//! the first segment that is left so replaces entries before it, the log begins behind the replaced ones.
//!
//! # Torn or flipped
//!
//! A disk writes a sector whole or not at all, a segment is durably all zero before it is used, a written sector never
//! is all zero, and one record is written and synced before the next is begun. So after a power loss every sector is
//! zero or intact, and only the very last record may lack some: it was never acknowledged and is cut. Everything else
//! is a disk that changed what was written, and [`OpenError::Damaged`] names the place.

mod checkpoint;
mod checkpoint_reader;
mod checkpoint_writer;
pub mod disk;
mod error;
mod founding;
#[cfg(test)]
mod golden;
mod health;
mod identity;
mod incoming;
mod layout;
mod log;
mod place;
mod preparation;
mod record;
mod recovery;
mod room;
#[cfg(test)]
pub(super) mod sample;
mod sector;
mod segment;
#[cfg(test)]
mod torture;
mod writing;

use std::time::Duration;

pub use self::{
    checkpoint::{Checkpoint, ConfState, Piece, PutPiece, Section, each_piece},
    checkpoint_reader::CheckpointReader,
    checkpoint_writer::{CheckpointWriter, SavedCheckpoint},
    disk::{Disk, DiskFile},
    error::{CreateError, Damage, OpenError, WriteError},
    identity::Identity,
    incoming::{CheckpointReceiver, Incoming, NotReceived, Received},
    log::{Batch, Contradiction, Entry, EntryKind, HardState, Position, Priority},
    record::understand as understand_record,
    recovery::{Cut, Recovered, identity_of, read_log},
    room::Room,
    writing::Store,
};

/// How a store uses its disk.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Length of a new segment, a multiple of 512. A record has to fit into one.
    pub segment_bytes: u64,
    /// Room that is kept for what is essential when the disk is full; 0 for none.
    pub ballast_bytes: u64,
    /// Entries that stay behind the newest checkpoint, for followers that are a little late.
    pub entries_behind: u64,
    /// How often a full disk is tried again.
    pub retry_interval: Duration,
    /// Who makes segments ready.
    pub preparing: Preparing,
}

/// Who makes segments ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparing {
    /// A thread, ahead of time.
    InBackground,
    /// Whoever writes, when one is needed: slower, and the same every time.
    WhenNeeded,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 4 << 20,
            ballast_bytes: 32 << 20,
            entries_behind: 10_000,
            retry_interval: Duration::from_secs(1),
            preparing: Preparing::InBackground,
        }
    }
}
