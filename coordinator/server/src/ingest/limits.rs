//! What one node may have: every number of a node's share, and the kinds in which it can ask for too much.

/// Bytes of a name, a state's word, a version.
pub(super) const NAME_BYTES: usize = 256;
/// Bytes of a reason or an error.
pub(super) const REASON_BYTES: usize = 1_024;
/// Bytes of a path, as the kernel allows.
pub(super) const PATH_BYTES: usize = 4_096;
/// Labels of a container.
pub(super) const LABELS: usize = 64;
/// Bytes of a label's key; a longer one would be another label, so it is left out.
pub(super) const LABEL_KEY_BYTES: usize = 63;
/// Bytes of a label's value.
pub(super) const LABEL_VALUE_BYTES: usize = 256;
/// Entries of a list within a row.
pub(super) const LIST_ROWS: usize = 256;
/// Bytes of a list within a row.
pub(super) const LIST_BYTES: usize = 16 * 1_024;
/// Rows of each list in a Swarm's view.
pub(super) const SWARM_ROWS: usize = 5_000;
/// Keys that one sample may take away.
pub(super) const REMOVED_ROWS: usize = 5_000;
/// Bytes of all tables of a node: 2,000 containers and 5,000 volumes as one meets them take half of it.
pub(super) const VIEW_BYTES: usize = 8 * 1_024 * 1_024;
/// Bytes per second that a node may send for ever: 2,000 containers that all change need 60 KiB at the usual interval.
pub(super) const KIB_PER_SECOND: u32 = 256;
/// What it may send at once after a rest: everything it has, told anew.
pub(super) const BURST_KIB: u32 = 8 * 1_024;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident $word:literal $sentence:literal,)*) => {
        /// A limit that a node's samples may meet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Limit { $($(#[$doc])* $name,)* }

        impl Limit {
            /// Every limit.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// One word for `/metrics`.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What an operator is told.
            pub(super) fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

limits! {
    /// Rows of the table of disks.
    Disks "disks" "it has more than 2,000 disks: the others are left out",
    /// Rows of the table of mounts.
    Mounts "mounts" "it has more than 2,000 mounts: the others are left out",
    /// Rows of the table of volumes.
    Volumes "volumes" "it has more than 5,000 volumes: the others are left out",
    /// Rows of the table of containers.
    Containers "containers" "it has more than 2,000 containers: the others are left out",
    /// Rows of a Swarm's view.
    Swarm "swarm" "its Swarm has more than 5,000 nodes, services or tasks: the others are left out",
    /// Bytes of all tables.
    View "view" "its rows take more than 8 MiB: the others are left out",
    /// Labels, their keys and values.
    Labels "labels" "labels beyond 64 of a container, or with a key over 63 bytes, are left out; values are cut at 256",
    /// Texts and paths.
    Texts "texts" "texts that are too long are cut",
    /// Lists within a row.
    Lists "lists" "lists that are too long are cut",
    /// Bytes per second.
    Pace "pace" "it sends more than 256 KiB per second: its samples wait",
}

impl Limit {
    /// Rows of a table; `None` for what is no table.
    pub(super) fn rows(self) -> Option<usize> {
        match self {
            Self::Disks | Self::Mounts | Self::Containers => Some(2_000),
            Self::Volumes => Some(5_000),
            Self::Swarm | Self::View | Self::Labels | Self::Texts | Self::Lists | Self::Pace => None,
        }
    }
}

/// How often each limit was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cuts([u64; Limit::ALL.len()]);

impl Cuts {
    pub(super) fn add(&mut self, limit: Limit, count: usize) {
        self.0[limit as usize] += count as u64;
    }

    /// The limits that were met, and how often.
    pub(super) fn met(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.iter().map(|limit| (*limit, self.0[*limit as usize])).filter(|(_, count)| *count > 0)
    }
}
