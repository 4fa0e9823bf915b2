//! What a log is for: a state that only entries change.

use std::{fmt, io, ops::RangeInclusive};

use super::store::{Position, PutPiece, Section, each_piece};

/// The state, as the log knows it. Cloning is cheap: readers and checkpoints hold clones while it goes on.
pub trait Machine: Clone + Send + Sync + 'static {
    /// What is proposed.
    type Entry: Send + 'static;
    /// What applying one says, a refusal included.
    type Outcome: Send + 'static;

    /// Applies an entry: the same on every replica, and every time the log is replayed.
    fn apply(&mut self, at: Position, entry: &Self::Entry) -> Self::Outcome;

    /// The entry as it is kept, for ever; never nothing.
    fn encode(entry: &Self::Entry) -> Vec<u8>;

    /// Reads an entry.
    ///
    /// # Errors
    /// [`Undecodable`], which ends the start.
    fn decode(data: &[u8]) -> Result<Self::Entry, Undecodable>;

    /// True for what is small and helps when the disk is full: deletions, silences.
    fn is_essential(entry: &Self::Entry) -> bool;

    /// All of the state, for a checkpoint. Runs in a thread of its own.
    fn sections(&self) -> Vec<Section>;

    /// The same piece by piece, so that nobody has to hold all of it.
    ///
    /// # Errors
    /// What `put` says.
    fn pieces(&self, put: &mut PutPiece<'_>) -> io::Result<()> {
        each_piece(&self.sections(), put)
    }

    /// The state that a checkpoint holds.
    ///
    /// # Errors
    /// [`Undecodable`], which ends the start.
    fn from_sections(sections: &[Section]) -> Result<Self, Undecodable>;
}

/// Why this version cannot read an entry or a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// A later version wrote it.
    #[error("{what} is not known to this version")]
    Newer {
        /// What is there, as the encoding names it.
        what: String,
        /// The first version that knows it, if that can be told.
        version: Option<String>,
    },
    /// No version writes that.
    #[error("{0}")]
    Nonsense(String),
}

/// Sees every entry that is applied, in order and once it is durable: an audit trail. Every call returns at once, since
/// the log's thread makes it: a disk that hangs must keep neither ticks nor heartbeats waiting.
pub trait Observer<M: Machine>: Send {
    /// The first index that it wants to see when the log is replayed.
    fn wanted(&self) -> u64;

    /// An entry was applied. It is called with indexes that rise, without those of empty entries.
    fn applied(&mut self, at: Position, entry: &M::Entry, outcome: &M::Outcome);

    /// Entries that it wanted are in a checkpoint already and cannot be shown: with [`Observer::keep`] done, only where
    /// the observer is new or lost its own files.
    fn missed(&mut self, indexes: RangeInclusive<u64>);

    /// What makes durable all that it saw so far: a checkpoint comes, and what is in it is not shown again.
    fn keep(&mut self) -> Keep;
}

/// Done in the thread that writes a checkpoint, before it does. Where it fails there is no checkpoint for now.
pub struct Keep(Box<dyn FnOnce() -> io::Result<()> + Send>);

impl Keep {
    /// Done by this.
    pub fn by(deed: impl FnOnce() -> io::Result<()> + Send + 'static) -> Self {
        Self(Box::new(deed))
    }

    pub(super) fn carry_out(self) -> io::Result<()> {
        (self.0)()
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keep")
    }
}
