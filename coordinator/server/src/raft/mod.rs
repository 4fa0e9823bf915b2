//! The replicated log: what is proposed becomes durable, then part of the state, in one order for all.
//!
//! [`driver`] decides, without IO; the log's thread carries it out; another thread writes, so that a slow disk delays
//! neither heartbeats nor votes; [`Peers`] is the way to other replicas. A cluster is founded by a checkpoint at index 1;
//! a replica that is its whole group begins a new term at every start, with an empty entry.

mod agreement;
pub mod driver;
mod keeping;
mod machine;
mod mail;
mod peers;
mod pulse;
mod receiving;
mod runner;
mod start;
pub mod store;
#[cfg(test)]
mod tests;
mod visits;

use std::{fmt, io, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{Semaphore, oneshot, watch};

pub use self::{
    agreement::StateHash,
    driver::{Change, ChangeRefused, LogWentBack, MemberRole, Role, Shown, Status},
    machine::{Keep, Machine, Observer, Undecodable},
    peers::{Alone, Peers},
    pulse::{Proposals, Pulse, Writes},
    receiving::Receiving,
    start::{StartError, Whole, found, found_at, join, read_whole, start, start_member},
    store::{ConfState, DiskFile, Position},
    visits::{Unadmitted, Visit},
};
use self::{
    mail::Sender,
    runner::{Inlet, Message, Proposal, Put},
    start::Bodies,
    visits::Visits,
};

/// How a log batches, and when it makes checkpoints.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the store uses its disk.
    pub store: store::Settings,
    /// The most entries that become durable together.
    pub batch_entries: usize,
    /// The most bytes of them; one entry may have more.
    pub batch_bytes: usize,
    /// The most bytes that one entry may have.
    pub entry_limit_bytes: usize,
    /// How many proposals may wait for the disk; the next ones wait for these.
    pub waiting: usize,
    /// A checkpoint is made after so many entries,
    pub checkpoint_entries: u64,
    /// or so many bytes of them.
    pub checkpoint_bytes: u64,
    /// How often a new term is tried again that a full disk refused; checkpoints are after 30 times that.
    pub retry_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store: store::Settings::default(),
            batch_entries: 512,
            batch_bytes: 256 << 10,
            entry_limit_bytes: 1 << 20,
            waiting: 1024,
            checkpoint_entries: 50_000,
            checkpoint_bytes: 64 << 20,
            retry_interval: Duration::from_secs(1),
        }
    }
}

/// Why a proposal did not become part of the state, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The entry is too long. Nothing changed.
    #[error("{bytes} bytes are more than the {limit} that one entry may have; nothing changed")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// The most that one may.
        limit: usize,
    },
    /// The disk is full. Nothing changed, nothing is lost; it works again when there is room.
    #[error("the coordinator's disk is full; nothing changed. Free some room on it, then try again")]
    NoRoom,
    /// The disk failed. The replica has to end; whether the entry stays shows when it was started again.
    #[error("the coordinator's disk failed ({0}); whether this was done shows when it was started again")]
    Broken(String),
    /// Another replica leads, or nobody does yet. Nothing changed.
    #[error("this replica does not lead; nothing changed")]
    NotLeader(Option<u64>),
    /// Leadership or the log's thread was lost in the middle of it: ask again, by name.
    #[error("the coordinator failed in the middle of it; whether this was done is not known")]
    Unknown,
    /// The replica ends. Nothing changed.
    #[error("this replica is ending; nothing changed")]
    Ending,
}

/// Why nobody can say what is true now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader said within 2 s what is committed.
    #[error("no leader answers")]
    NoLeader,
    /// The replica ends.
    #[error("this replica is ending")]
    Ending,
}

/// Why the members are not changed, or may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing changed.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// Leadership was lost in the middle of it: look at the members.
    #[error("leadership was lost in the middle of it; look at the members")]
    Unknown,
}

/// How a log came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody wished it.
    Asked,
    /// The disk failed, for this reason: the process has to end, and not with success.
    Broken(String),
    /// A later version wrote what comes next in the log.
    Newer(String),
    /// A mistake in the program: the thread panicked, and has told why.
    Panicked,
    /// It is not what others know of it, for this reason: it may not take part any more.
    Barred(String),
}

/// The log, for all who propose and read; clones are the same log.
pub struct Log<M: Machine>(Arc<Shared<M>>);

struct Shared<M: Machine> {
    inbox: Sender<Message<M>>,
    proposals: Inlet<M>,
    room: Arc<Semaphore>,
    entry_limit_bytes: usize,
    state: watch::Receiver<Arc<M>>,
    applied: watch::Receiver<Position>,
    leader: watch::Receiver<Option<u64>>,
    known_leader: watch::Receiver<Option<u64>>,
    members: watch::Receiver<ConfState>,
    bodies: Arc<dyn Bodies>,
    visits: Visits,
    standing: watch::Receiver<Option<Status>>,
    pulse: Arc<Pulse>,
    end: watch::Receiver<Option<End>>,
}

impl<M: Machine> Log<M> {
    /// Proposes an entry and waits until it is durable and applied. Whoever stops waiting changes nothing of that.
    ///
    /// # Errors
    /// [`ProposeError`]; what `apply` refuses is no error but its outcome.
    ///
    /// # Panics
    /// Where the machine encodes an entry as nothing.
    pub async fn propose(&self, entry: M::Entry) -> Result<M::Outcome, ProposeError> {
        let outcome = self.proposed(entry).await;
        self.0.pulse.answered(&outcome);
        outcome
    }

    async fn proposed(&self, entry: M::Entry) -> Result<M::Outcome, ProposeError> {
        let shared = &self.0;
        let (data, limit) = (M::encode(&entry), shared.entry_limit_bytes);
        assert!(!data.is_empty(), "an entry without data only begins a term");
        if data.len() > limit {
            return Err(ProposeError::TooLarge { bytes: data.len(), limit });
        }
        let Ok(place) = Arc::clone(&shared.room).acquire_owned().await else { return Err(self.why_ended().await) };
        let (answer, outcome) = oneshot::channel();
        let is_essential = M::is_essential(&entry);
        let proposal = Proposal { entry, data, is_essential, answer, _place: place };
        match shared.proposals.put(proposal) {
            Ok(Put::First) => self.tell(Message::Proposals),
            Ok(Put::Behind) => {}
            Err(_) => return Err(self.why_ended().await),
        }
        match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.why_ended().await),
        }
    }

    /// The state with everything that was answered so far in it.
    #[must_use]
    pub fn read(&self) -> Arc<M> {
        self.0.state.borrow().clone()
    }

    /// The state, and every change of it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<M>> {
        self.0.state.clone()
    }

    /// The last entry that is part of the state.
    #[must_use]
    pub fn applied(&self) -> Position {
        *self.0.applied.borrow()
    }

    /// The term in which this replica leads, from its first applied entry on; `None` while it does not.
    #[must_use]
    pub fn leader(&self) -> watch::Receiver<Option<u64>> {
        self.0.leader.clone()
    }

    /// Who leads as far as this replica knows: whom to ask instead.
    #[must_use]
    pub fn known_leader(&self) -> watch::Receiver<Option<u64>> {
        self.0.known_leader.clone()
    }

    /// Who decides, as of the last applied entry.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<ConfState> {
        self.0.members.clone()
    }

    /// The state with everything in it that anybody was answered before this was asked, on whatever replica.
    ///
    /// # Errors
    /// [`ReadError`] after 2 s at the latest.
    pub async fn read_now(&self) -> Result<Arc<M>, ReadError> {
        self.ask(Message::Read).await.unwrap_or(Err(ReadError::Ending))
    }

    /// Changes who belongs to the group. Only the leader does, one change at a time; the answer comes when it is
    /// applied here.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change(&self, change: Change) -> Result<(), ChangeError> {
        self.ask(|answer| Message::Change(change, answer)).await.unwrap_or(Err(ChangeError::Unknown))
    }

    /// Whether a change would be made if it was asked for now.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn allows(&self, change: Change) -> Result<(), ChangeError> {
        let allowed = self.ask(|answer| Message::Allows(change, answer)).await;
        allowed.ok_or(ChangeError::Unknown)?.map_err(Into::into)
    }

    /// Gives leadership to that voter, or to the one that is best prepared. [`Log::known_leader`] tells when it came
    /// about; it may not.
    pub fn transfer(&self, to: Option<u64>) {
        self.tell(Message::Transfer(to));
    }

    /// How this replica stood at the last tick; `None` before the first.
    #[must_use]
    pub fn standing(&self) -> Option<Status> {
        self.0.standing.borrow().clone()
    }

    /// What was counted while it worked.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }

    /// How this replica stands; `None` when it has ended.
    pub async fn status(&self) -> Option<Status> {
        self.ask(Message::Status).await
    }

    /// How this replica stands as its disk has it: what it shows when a connection begins. `None` when it has ended.
    pub async fn shown(&self) -> Option<Shown> {
        self.ask(Message::Shown).await
    }

    /// A connection to that replica begins, whoever made it, and it shows how it stands: whether there may be one.
    /// Frames are for a replica, and of one, that was admitted.
    ///
    /// # Errors
    /// [`Unadmitted`]; it ends when it is told that, except where it is to come again.
    pub async fn admit(&self, peer: u64, shown: Shown) -> Result<Visit, Unadmitted> {
        let visits = &self.0.visits;
        // A life that is not let in yet must not count as the one that made later promises.
        visits.look(peer, shown.boot)?;
        self.ask(|answer| Message::Greeted(peer, shown, answer)).await.ok_or(Unadmitted::Ending)??;
        visits.admit(peer, shown.boot)
    }

    /// Which life of that replica is connected, by its boot.
    #[must_use]
    pub fn visitor(&self, peer: u64) -> Option<u64> {
        self.0.visits.current(peer)
    }

    /// That replica has a checkpoint that holds this, and is of the same version: the same state is the same bytes.
    pub fn state_hash(&self, from: u64, hash: StateHash) {
        self.tell(Message::StateHash(from, hash));
    }

    /// Others said that this replica may not take part any more: it ends, with this reason.
    pub fn barred(&self, why: String) {
        self.tell(Message::Barred(why));
    }

    /// A frame came from `from`, as its certificate says.
    pub fn deliver(&self, from: u64, frame: Vec<u8>) {
        self.tell(Message::Frame(from, frame));
    }

    /// What was sent to that peer last may be lost. Once is enough.
    pub fn unreachable(&self, peer: u64) {
        self.tell(Message::Unreachable(peer));
    }

    /// That peer's process ended, said 5 to 100 ms after that: the stream broke, and its host refused another.
    pub fn leader_gone(&self, leader: u64) {
        self.tell(Message::LeaderGone(leader));
    }

    /// The file of a checkpoint, to be sent to a peer. It can be read as long as it is open.
    ///
    /// # Errors
    /// There is none with that index any more: say [`Log::checkpoint_not_sent`].
    pub fn open_checkpoint(&self, index: u64) -> io::Result<Box<dyn DiskFile>> {
        self.0.bodies.open(index)
    }

    /// A peer took some more of its checkpoint: said at least every 4 s, or it is offered one again.
    pub fn checkpoint_sending(&self, to: u64) {
        self.tell(Message::CheckpointSending(to));
    }

    /// A peer did not get its checkpoint whole.
    pub fn checkpoint_not_sent(&self, to: u64) {
        self.tell(Message::CheckpointNotSent(to));
    }

    /// Takes in the checkpoint that [`Peers::fetch`] was asked for. What it does may wait for the disk.
    ///
    /// # Errors
    /// There is no room for it, or the disk failed: it is taken as missed.
    pub fn receive_checkpoint(&self, at: Position) -> Result<Receiving<M>, store::WriteError> {
        let sink = self.0.bodies.receive(at).inspect_err(|_| self.checkpoint_missed(at))?;
        Ok(Receiving { log: self.clone(), at, sink: Some(sink) })
    }

    /// A checkpoint that was to be fetched could not be had; the leader offers one again.
    pub fn checkpoint_missed(&self, at: Position) {
        self.tell(Message::CheckpointMissed(at));
    }

    fn tell(&self, message: Message<M>) {
        // A log that has ended needs to know nothing.
        self.0.inbox.send(message).unwrap_or(());
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Message<M>) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.0.inbox.send(question(answer)).ok()?;
        answered.await.ok()
    }

    /// Waits for the log's end.
    pub async fn ended(&self) -> End {
        let mut end = self.0.end.clone();
        end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone()).unwrap_or(End::Panicked)
    }

    /// The thread is gone, or going: it says why as its last act.
    async fn why_ended(&self) -> ProposeError {
        match self.ended().await {
            End::Asked | End::Barred(_) | End::Newer(_) => ProposeError::Ending,
            End::Broken(why) => ProposeError::Broken(why),
            End::Panicked => ProposeError::Unknown,
        }
    }
}

impl<M: Machine> Clone for Log<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Machine> fmt::Debug for Log<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("applied", &self.applied()).finish_non_exhaustive()
    }
}

/// The log's thread. When this is dropped the thread has ended, its files are closed, and all that waited is answered.
#[derive(Debug)]
pub struct Running<M: Machine> {
    inbox: Sender<Message<M>>,
    end: watch::Receiver<Option<End>>,
    thread: Option<JoinHandle<()>>,
}

impl<M: Machine> Running<M> {
    /// Ends the log after what is being written; what waits is refused.
    pub async fn end(mut self) -> End {
        self.ask();
        let end = self.end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(End::Panicked)
    }

    /// Ends the log as a crash would: nothing is handed over, and who waits is told that nobody knows.
    pub fn cut(self) {
        // It may have ended by itself.
        self.inbox.send(Message::Cut).unwrap_or(());
    }

    fn ask(&self) {
        // It may have ended by itself.
        self.inbox.send(Message::End).unwrap_or(());
    }
}

impl<M: Machine> Drop for Running<M> {
    fn drop(&mut self) {
        self.ask();
        // The thread catches its panics, and tells of them through `end`.
        self.thread.take().map_or(Ok(()), JoinHandle::join).unwrap_or(());
    }
}
