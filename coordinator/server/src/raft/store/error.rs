//! Why the store refuses: at the start, or a write.

use std::io;

use mainstay_common::{ExitCode, Failure};

use super::{Identity, log::Contradiction};

/// A place on the disk that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at byte {offset}: {why}")]
pub struct Damage {
    /// The file's name within the folder.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: usize,
    /// What is wrong there.
    pub why: String,
}

impl Damage {
    pub(super) fn new(file: &str, offset: usize, why: impl Into<String>) -> Self {
        Self { file: file.to_owned(), offset, why: why.into() }
    }
}

/// Why a store does not open. Nothing on the disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder holds no file of a store.
    #[error("there is no log here")]
    Empty,
    /// [`Store::create`](super::Store::create) did not come to its end, or somebody removed the log.
    #[error("the log is half-made: there is no segment that was ever used")]
    HalfMade,
    /// A file belongs to somebody else.
    #[error("{file} belongs to {found}; this folder belongs to {expected}")]
    Foreign {
        /// The file's name within the folder.
        file: String,
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        expected: Identity,
    },
    /// A later version of this program wrote a file.
    #[error("{file} is of version {version}; this program knows versions up to {known}")]
    Newer {
        /// The file's name within the folder.
        file: String,
        /// Its version.
        version: u32,
        /// The latest version that this program knows.
        known: u32,
    },
    /// Something on the disk is not as it was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A file is not there although others need it.
    #[error("{file} is missing: {why}")]
    Missing {
        /// The file's name within the folder.
        file: String,
        /// Why it must be there.
        why: String,
    },
    /// The disk does not do as it is told.
    #[error("{file} cannot be used: {error}")]
    Disk {
        /// The file's name within the folder, or `.` for the folder.
        file: String,
        /// What the disk says.
        error: io::Error,
    },
}

impl OpenError {
    /// The three lines that a person is told; `folder` is what the store was opened on.
    #[must_use]
    pub fn failure(&self, folder: &str) -> Failure {
        const REPLACE: &str = "nothing was changed. If other replicas are well: `mainstay cluster remove` this one and \
             `mainstay-coordinator join` with an empty --data-dir, which gives it a new id. If it was the only one: \
             `mainstay-coordinator restore --from BACKUP` into an empty --data-dir. Check the disk first (dmesg, smartctl)";
        let (code, try_next) = match self {
            Self::Empty => (ExitCode::Conflict, "make a cluster with `mainstay-coordinator init`, or check --data-dir"),
            Self::HalfMade => (
                ExitCode::Conflict,
                "after an interrupted init or join: empty the directory and do it again; else put the files back",
            ),
            Self::Foreign { .. } => (ExitCode::Conflict, "put back the files that belong together, from one copy"),
            Self::Newer { .. } => {
                (ExitCode::Failed, "start the version of mainstay-coordinator that wrote it, or a later one")
            }
            Self::Damaged(_) => (ExitCode::Failed, REPLACE),
            Self::Missing { .. } => (
                ExitCode::Failed,
                "put the file back, if somebody moved it; else replace this replica: remove \
                 it, and join with an empty --data-dir, or restore from a backup",
            ),
            Self::Disk { .. } => (ExitCode::Failed, "check the disk and its mount, then start again"),
        };
        Failure::new(code, format!("the log in {folder} cannot be opened"), self.to_string(), try_next)
    }
}

/// Why a store cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one already, or a part of one.
    #[error("there is a log here already: {0}")]
    Exists(String),
    /// The disk is full.
    #[error("there is no room on the disk for a log")]
    NoRoom,
    /// The disk does not do as it is told.
    #[error("the log cannot be made: {0}")]
    Disk(#[from] io::Error),
}

/// Why a write did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The disk is full. Nothing was written; the store goes on by itself when there is room again.
    #[error("there is no room on the disk for more of the log; nothing was written")]
    NoRoom,
    /// More than one record takes. Nothing was written.
    #[error("{bytes} bytes are more than the {limit} that one record takes; nothing was written")]
    TooLarge {
        /// What the record would take.
        bytes: usize,
        /// The most that one takes.
        limit: usize,
    },
    /// The caller asks for what no log may hold. Nothing was written.
    #[error("that does not fit the log: {0}; nothing was written")]
    Contradiction(#[from] Contradiction),
    /// The disk failed a write or a sync, now or earlier. Final: nobody knows what is durable, so nothing may be
    /// sent or answered any more, and the process has to end.
    #[error("the log is not usable any more: {0}; restart the replica, and check the disk")]
    Broken(String),
}
