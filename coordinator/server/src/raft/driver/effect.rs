//! What goes into a driver and what comes out of it.

use raft::eraftpb::Message;

use super::{Change, ChangeRefused, Position};
use crate::raft::store::{ConfState, Entry, HardState};

/// Names something that waits for an answer; the caller never uses one twice in a life.
pub type Ticket = u64;

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// One [`TICK`](super::TICK) passed. After a pause one comes, not a burst.
    Tick,
    /// A peer sent this. Its `from` is what the peer's certificate says.
    Message(Message),
    /// Somebody wants an entry with these data, which are not empty.
    Propose(Ticket, Vec<u8>),
    /// Somebody wants to read what is true now, wherever this replica stands.
    Read(Ticket),
    /// The write of this number is durable, and all before it.
    Persisted(u64),
    /// The oldest write waits for room on the disk, or no more: it does not hang then.
    DiskFull(bool),
    /// A checkpoint of what was applied here is durable.
    CheckpointMade(Position, ConfState),
    /// The body that [`Effect::Fetch`] asked for is here and proven whole.
    CheckpointReceived(Position),
    /// It could not be had.
    CheckpointMissed(Position),
    /// A peer is being sent a checkpoint, and took some more of it.
    CheckpointSending(u64),
    /// A peer did not get its checkpoint whole.
    CheckpointNotSent(u64),
    /// What was sent to that peer last may be lost.
    Unreachable(u64),
    /// That peer's process ended: the connection broke and its host refuses another. Told 5 to 100 ms after that, at
    /// random, so that not all followers ask for votes at once.
    LeaderGone(u64),
    /// Leadership shall move: to that replica, or to the one that is best prepared.
    Transfer(Option<u64>),
    /// Somebody wants other members.
    Change(Ticket, Change),
}

/// What is to be done, in the order in which it comes.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send it to the peer that it names. May be lost.
    Send(Message),
    /// Make it durable, then say so.
    Write(Write),
    /// Entries are committed up to here: it has to be in the next write, and needs none of its own.
    NoteCommit(u64),
    /// Part of the state from now on. The ticket is of the proposal that it was here.
    Apply(Entry, Option<Ticket>),
    /// The checkpoint with this place is the state from now on.
    Install(Position),
    /// Make a checkpoint of what is applied: a peer needs one. Asked again until there is one.
    MakeCheckpoint,
    /// Get the body of that checkpoint from that peer.
    Fetch {
        /// Who has it.
        from: u64,
        /// Its last entry.
        checkpoint: Position,
    },
    /// Somebody's answer.
    Answer(Ticket, Answer),
    /// The term in which this replica leads, from its first applied entry on; `None` when it does no more.
    Leads(Option<u64>),
    /// Who leads as far as this replica knows.
    Leader(Option<u64>),
    /// Who decides, as of the last applied entry.
    Members(ConfState),
    /// Nothing more may be done here: the process ends.
    Stop(Stop),
}

/// What becomes durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number; numbers rise.
    pub number: u64,
    /// A checkpoint whose body is here takes the place of the log; before the entries.
    pub install: Option<Position>,
    /// New entries; the log is cut before the first of them.
    pub entries: Vec<Entry>,
    /// The hard state as of these entries.
    pub hard_state: HardState,
}

/// Bytes of an entry in a record besides its data.
const ENTRY_HEADER: usize = 13;

/// The records that a write takes whose entries have more than `limit` bytes: each with the hard state, whose commit is
/// no further than the log by then. So no entry is there without its term. `last` and `commit` are what is stored.
#[must_use]
pub fn in_records(
    entries: &[Entry],
    hard_state: HardState,
    mut last: u64,
    mut commit: u64,
    limit: usize,
) -> Vec<(&[Entry], HardState)> {
    let (mut records, mut rest) = (Vec::new(), entries);
    loop {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|entry| {
            bytes += ENTRY_HEADER + entry.data.len();
            bytes <= limit
        });
        let count = fit.count().max(1).min(rest.len());
        let (part, behind) = rest.split_at(count);
        last = part.last().map_or(last, |entry| entry.index);
        commit = hard_state.commit.min(last).max(commit);
        records.push((part, HardState { commit, ..hard_state }));
        rest = behind;
        if rest.is_empty() {
            return records;
        }
    }
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not taken, nothing changed: ask the leader, if one is named; else again.
    Refused(Option<u64>),
    /// It may come about or not: leadership was lost with it in the log.
    Unknown,
    /// The state as of now answers the read.
    Readable,
    /// Nobody could say what is true within the deadline.
    NotReadable,
    /// The members are changed.
    Changed,
    /// The members are not changed.
    ChangeRefused(ChangeRefused),
}

/// Why a replica must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// A write is not done after ten seconds.
    #[error("the disk has not done a write for 10 s")]
    DiskHangs,
    /// The leader knows of entries that this replica had and has no more: its disk went back in time, or was emptied.
    #[error(
        "r{from} knows that this replica had entry {had}, but its log ends at {last}: its disk went back in time, or was \
         emptied"
    )]
    LogLost {
        /// Who says so.
        from: u64,
        /// What this replica had.
        had: u64,
        /// What it has.
        last: u64,
    },
    /// A peer replaces what is committed here: one of the two is not what it was.
    #[error("r{from} says that entry {index} is another than the one that is committed here")]
    Contradiction {
        /// Who says so.
        from: u64,
        /// The entry.
        index: u64,
    },
}
