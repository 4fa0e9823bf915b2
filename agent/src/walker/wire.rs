//! What the agent and a walking child say to each other.

use prost::Message;

/// What to measure.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Order {
    /// The folder.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) folder: Vec<u8>,
    /// Places that are not even looked at: something is mounted there.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) mountpoints: Vec<Vec<u8>>,
}

/// How far it is, or what came of it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tiding {
    /// The end of a walk.
    #[prost(message, optional, tag = "1")]
    pub(super) measured: Option<Measured>,
    /// Why there is none.
    #[prost(string, tag = "2")]
    pub(super) error: String,
}

/// What a folder holds.
#[derive(Clone, Copy, PartialEq, Eq, Message, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    /// Space on disk, as `du -x` counts: 512-byte blocks of everything in it, hard links once.
    #[prost(uint64, tag = "1")]
    pub size_bytes: u64,
    /// Lengths added up.
    #[prost(uint64, tag = "2")]
    pub apparent_bytes: u64,
    /// Files and folders.
    #[prost(uint64, tag = "3")]
    pub files: u64,
    /// Hard links were too many to be remembered, or folders too deep or unreadable: the sizes are not exact.
    #[prost(bool, tag = "4")]
    pub approximate: bool,
}
