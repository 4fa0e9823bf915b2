//! Mistakes that the simulation has to find: a driver makes one when it is told to, and only the simulation tells it.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// Votes and acknowledgements go out before they are durable.
    SendBeforePersisted,
    /// Term and vote are never written.
    LoseHardState,
    /// The vote is not written, the term is.
    LoseVote,
    /// All reads ask with the same context.
    RepeatReadContext,
    /// A read is answered when the leader said up to where, not when that is applied.
    ReadBeforeApplied,
    /// A leader answers reads without asking anybody.
    ReadWithoutQuorum,
    /// Entries are applied as soon as they are appended.
    ApplyBeforeCommit,
    /// A change of members without data, which leaves a joint configuration, is taken for an empty entry.
    SkipEmptyChange,
    /// Nothing is said of an installed checkpoint being applied.
    NoAdvanceAfterInstall,
    /// What was in the log when leadership was lost is told as done.
    UnknownAsCommitted,
    /// What was in the log when leadership was lost is told as not done.
    UnknownAsRefused,
    /// The leader counts what it has sent to its disk as durable.
    CountUnpersisted,
    /// A failed sync is passed over.
    IgnoreSyncError,
    /// A replica that lost its disk goes on under its old id.
    ReuseId,
    /// An agent takes work from leaders of the past.
    IgnoreFence,
    /// A checkpoint says of members what it found at the start.
    ForgetMembers,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SendBeforePersisted,
        Self::LoseHardState,
        Self::LoseVote,
        Self::RepeatReadContext,
        Self::ReadBeforeApplied,
        Self::ReadWithoutQuorum,
        Self::ApplyBeforeCommit,
        Self::SkipEmptyChange,
        Self::NoAdvanceAfterInstall,
        Self::UnknownAsCommitted,
        Self::UnknownAsRefused,
        Self::CountUnpersisted,
        Self::IgnoreSyncError,
        Self::ReuseId,
        Self::IgnoreFence,
        Self::ForgetMembers,
    ];
}
