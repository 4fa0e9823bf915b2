//! What the agent and its probe children say to each other: frames on a socketpair, a length and a message each.

use prost::Message;

/// A question.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Question {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    /// The paths it is about.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) paths: Vec<Vec<u8>>,
    /// What the child calls itself while it asks, so that a later life of the agent knows whom it waits for.
    #[prost(string, tag = "3")]
    pub(super) title: String,
    /// Programs that may own the paths, in their order.
    #[prost(string, repeated, tag = "4")]
    pub(super) programs: Vec<String>,
}

pub(super) const STATFS: u32 = 1;
pub(super) const FOLDER: u32 = 2;
pub(super) const FILE: u32 = 3;
pub(super) const OWNERS: u32 = 4;

/// Its answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Reply {
    /// The errno, 0 where it worked.
    #[prost(int32, tag = "1")]
    pub(super) errno: i32,
    #[prost(uint64, tag = "2")]
    pub(super) took_ns: u64,
    #[prost(message, optional, tag = "3")]
    pub(super) space: Option<Space>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) names: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) content: Vec<u8>,
    /// There was more than is told.
    #[prost(bool, tag = "6")]
    pub(super) cut: bool,
    #[prost(message, repeated, tag = "7")]
    pub(super) owners: Vec<Owner>,
}

/// What `statvfs` tells of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Space {
    /// Block size for IO; 0 where the kernel itself answered for a FUSE mount that this user may not see.
    #[prost(uint64, tag = "1")]
    pub block_bytes: u64,
    /// Unit of the three block counts.
    #[prost(uint64, tag = "2")]
    pub fragment_bytes: u64,
    /// All blocks.
    #[prost(uint64, tag = "3")]
    pub blocks: u64,
    /// Free blocks.
    #[prost(uint64, tag = "4")]
    pub blocks_free: u64,
    /// Free blocks for users other than root.
    #[prost(uint64, tag = "5")]
    pub blocks_available: u64,
    /// All inodes.
    #[prost(uint64, tag = "6")]
    pub inodes: u64,
    /// Free inodes.
    #[prost(uint64, tag = "7")]
    pub inodes_free: u64,
    /// The longest file name.
    #[prost(uint64, tag = "8")]
    pub name_max: u64,
    /// The id of the mount that answered; 0 where the kernel did not tell. The path may lead to another one since.
    #[prost(uint32, tag = "9")]
    pub mount_id: u32,
}

impl Space {
    /// Size in bytes; wraps where a filesystem claims more than 2^64.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.blocks.wrapping_mul(self.fragment_bytes)
    }

    /// Used bytes, as `df` counts.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.blocks.saturating_sub(self.blocks_free).saturating_mul(self.fragment_bytes)
    }

    /// Bytes that users can still fill.
    #[must_use]
    pub fn available_bytes(&self) -> u64 {
        self.blocks_available.saturating_mul(self.fragment_bytes)
    }

    /// Free bytes that only root can fill.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.blocks_free.saturating_sub(self.blocks_available).saturating_mul(self.fragment_bytes)
    }
}

/// The process that serves a FUSE mount.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Owner {
    /// The mountpoint that stood in its arguments.
    #[prost(bytes = "vec", tag = "1")]
    pub mountpoint: Vec<u8>,
    /// Its process id.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// When it started, in clock ticks since boot: tells it from a later process of the same id.
    #[prost(uint64, tag = "3")]
    pub started_ticks: u64,
    /// Its systemd unit; empty where it has none.
    #[prost(string, tag = "4")]
    pub unit: String,
    /// Its `--rc*`, `--vfs-cache-mode` and `--dir-cache-time` flags and `RCLONE_RC*` variables, as `name=value` with
    /// the flag's name. May hold a password: never show it.
    #[prost(string, repeated, tag = "5")]
    pub flags: Vec<String>,
    /// The user it runs as. Anyone may start a program with such arguments; only the mounting user's is believed.
    #[prost(uint32, tag = "6")]
    pub uid: u32,
}

impl Owner {
    /// The value of a flag, by its name without dashes; the last one wins.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='))
    }
}
