//! The log's thread: everything that waits becomes durable with one sync, then is applied, shown and answered.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{
    End, Machine, Observer, ProposeError, Settings,
    keeping::Keeping,
    store::{Batch, Disk, Entry, EntryKind, HardState, Position, Priority, Store, WriteError},
};
use crate::failpoint;

/// What an entry takes in a record besides its data.
const ENTRY_HEADER: usize = 13;
/// An essential batch has to be small when the disk is full.
const ESSENTIAL_BYTES: usize = 32 << 10;

/// What the thread is told.
pub(super) enum Message<M: Machine> {
    Propose(Proposal<M>),
    CheckpointDone,
    End,
}

/// An entry that somebody waits for.
pub(super) struct Proposal<M: Machine> {
    pub(super) entry: M::Entry,
    pub(super) data: Vec<u8>,
    pub(super) is_essential: bool,
    pub(super) answer: oneshot::Sender<Result<M::Outcome, ProposeError>>,
    pub(super) _place: OwnedSemaphorePermit,
}

impl<M: Machine> Proposal<M> {
    fn bytes(&self) -> usize {
        ENTRY_HEADER + self.data.len()
    }

    fn answer(self, outcome: Result<M::Outcome, ProposeError>) {
        // Whoever asked may not wait any more.
        self.answer.send(outcome).unwrap_or(());
    }
}

/// Where the thread shows what it did.
pub(super) struct Outlets<M: Machine> {
    pub(super) state: watch::Sender<Arc<M>>,
    pub(super) applied: watch::Sender<Position>,
    pub(super) leader: watch::Sender<Option<u64>>,
}

pub(super) struct Runner<D: Disk, M: Machine> {
    store: Store<D>,
    state: M,
    applied: Position,
    observers: Vec<Box<dyn Observer<M>>>,
    keeping: Keeping<M>,
    settings: Settings,
    messages: Receiver<Message<M>>,
    /// A message that did not fit into the last batch.
    held: Option<Message<M>>,
    outlets: Outlets<M>,
    /// The term in which this replica leads.
    term: Option<u64>,
}

impl<D: Disk, M: Machine> Runner<D, M> {
    #[expect(clippy::too_many_arguments, reason = "the parts of a log, which `start` alone puts together")]
    pub(super) fn new(
        store: Store<D>,
        state: M,
        applied: Position,
        observers: Vec<Box<dyn Observer<M>>>,
        keeping: Keeping<M>,
        settings: Settings,
        messages: Receiver<Message<M>>,
        outlets: Outlets<M>,
    ) -> Self {
        Self { store, state, applied, observers, keeping, settings, messages, held: None, outlets, term: None }
    }

    /// The thread's life.
    pub(super) fn run(mut self) -> End {
        let end = self.turns().unwrap_or_else(|error| End::Broken(error.to_string()));
        self.outlets.leader.send_replace(None);
        let refusal = match &end {
            End::Broken(why) => ProposeError::Broken(why.clone()),
            End::Asked | End::Panicked => ProposeError::Ending,
        };
        let waiting = self.held.take().into_iter().chain(self.messages.try_iter());
        for message in waiting {
            if let Message::Propose(proposal) = message {
                proposal.answer(Err(refusal.clone()));
            }
        }
        end
    }

    fn turns(&mut self) -> Result<End, WriteError> {
        loop {
            if self.term.is_none() {
                self.begin_term()?;
            }
            match self.next() {
                Some(Message::Propose(first)) => {
                    let batch = self.gather(first);
                    self.write(batch)?;
                }
                Some(Message::CheckpointDone) => self.adopt_checkpoint()?,
                Some(Message::End) => {
                    self.adopt_checkpoint()?;
                    return Ok(End::Asked);
                }
                None => {}
            }
            self.make_checkpoint(self.term.is_none());
        }
    }

    /// The next message; `None` after a while, where this replica waits for room to lead.
    fn next(&mut self) -> Option<Message<M>> {
        if let Some(message) = self.held.take() {
            return Some(message);
        }
        let patience = if self.term.is_some() { Duration::MAX } else { self.settings.retry_interval };
        match self.messages.recv_timeout(patience) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Message::End),
        }
    }

    /// A sole replica elects itself: its term begins with an empty entry, which on a full disk is essential.
    fn begin_term(&mut self) -> Result<(), WriteError> {
        let (term, index) = (self.store.hard_state().term + 1, self.store.last().index + 1);
        let entry = Entry { index, term, kind: EntryKind::Normal, data: Vec::new() };
        match self.append(&[entry], term, Priority::Essential) {
            Ok(()) => {
                self.term = Some(term);
                self.applied = Position { index, term };
                self.keeping.count(0);
                self.outlets.applied.send_replace(self.applied);
                self.outlets.leader.send_replace(Some(term));
                tracing::info!(term, index, "leads");
                Ok(())
            }
            Err(WriteError::NoRoom) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All that waits, as far as it fits into one record.
    fn gather(&mut self, first: Proposal<M>) -> Vec<Proposal<M>> {
        let limit = self.settings.batch_bytes.min(self.store.batch_limit_bytes());
        let (mut bytes, mut batch) = (first.bytes(), vec![first]);
        while batch.len() < self.settings.batch_entries {
            match self.messages.try_recv() {
                Ok(Message::Propose(next)) if bytes + next.bytes() <= limit => {
                    bytes += next.bytes();
                    batch.push(next);
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        batch
    }

    fn write(&mut self, batch: Vec<Proposal<M>>) -> Result<(), WriteError> {
        let is_essential = batch.iter().all(|proposal| proposal.is_essential);
        let priority = if is_essential { Priority::Essential } else { Priority::Ordinary };
        let Some(refused) = self.try_write(batch, priority)? else { return Ok(()) };
        let (essential, ordinary): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|proposal| proposal.is_essential && !is_essential);
        ordinary.into_iter().for_each(|proposal| proposal.answer(Err(ProposeError::NoRoom)));
        for small in in_small_batches(essential) {
            let refused = self.try_write(small, Priority::Essential)?.unwrap_or_default();
            refused.into_iter().for_each(|proposal| proposal.answer(Err(ProposeError::NoRoom)));
        }
        self.make_checkpoint(true);
        Ok(())
    }

    /// Writes and applies a batch; gives it back where the disk is full.
    fn try_write(
        &mut self,
        mut batch: Vec<Proposal<M>>,
        priority: Priority,
    ) -> Result<Option<Vec<Proposal<M>>>, WriteError> {
        let Some(term) = self.term else { return Ok(Some(batch)) };
        let first = self.store.last().index + 1;
        let mut entries: Vec<_> = (first..)
            .zip(&mut batch)
            .map(|(index, proposal)| Entry {
                index,
                term,
                kind: EntryKind::Normal,
                data: std::mem::take(&mut proposal.data),
            })
            .collect();
        match self.append(&entries, term, priority) {
            Ok(()) => {
                failpoint::reach("log-written");
                entries.iter().for_each(|entry| self.keeping.count(entry.data.len()));
                self.apply(first, term, batch);
                Ok(None)
            }
            Err(WriteError::NoRoom) => {
                batch.iter_mut().zip(&mut entries).for_each(|(proposal, entry)| {
                    proposal.data = std::mem::take(&mut entry.data);
                });
                Ok(Some(batch))
            }
            Err(error) => {
                self.outlets.leader.send_replace(None);
                let why = ProposeError::Broken(error.to_string());
                batch.into_iter().for_each(|proposal| proposal.answer(Err(why.clone())));
                Err(error)
            }
        }
    }

    /// At the only voter, what is durable is committed: one record says both.
    fn append(&mut self, entries: &[Entry], term: u64, priority: Priority) -> Result<(), WriteError> {
        let commit = entries.last().map_or(self.applied.index, |entry| entry.index);
        let hard_state = Some(HardState { term, vote: self.store.identity().replica, commit });
        self.store.write(&Batch { entries, hard_state, priority })
    }

    fn apply(&mut self, first: u64, term: u64, batch: Vec<Proposal<M>>) {
        let mut answers = Vec::with_capacity(batch.len());
        for (index, proposal) in (first..).zip(batch) {
            self.applied = Position { index, term };
            let outcome = self.state.apply(self.applied, &proposal.entry);
            self.observers.iter_mut().for_each(|observer| observer.applied(self.applied, &proposal.entry, &outcome));
            answers.push((proposal, outcome));
        }
        failpoint::reach("log-applied");
        // Shown before it is answered: who was answered sees it.
        self.outlets.state.send_replace(Arc::new(self.state.clone()));
        self.outlets.applied.send_replace(self.applied);
        answers.into_iter().for_each(|(proposal, outcome)| proposal.answer(Ok(outcome)));
    }

    /// Waits for the checkpoint that is under way, if any.
    fn adopt_checkpoint(&mut self) -> Result<(), WriteError> {
        match self.keeping.finish()? {
            Some(saved) => self.store.adopt(saved),
            None => Ok(()),
        }
    }

    fn make_checkpoint(&mut self, is_full: bool) {
        if !self.keeping.is_due(is_full) {
            return;
        }
        // What is in a checkpoint is not shown to observers again.
        if let Err(error) = self.observers.iter_mut().try_for_each(|observer| observer.keep()) {
            tracing::warn!(%error, "no checkpoint: what was seen of the log cannot be kept");
            self.keeping.put_off(1);
            return;
        }
        self.keeping.begin(self.store.checkpoint_writer(), self.applied, self.state.clone(), is_full);
    }
}

/// Parts that are small enough for a full disk's reserve.
fn in_small_batches<M: Machine>(proposals: Vec<Proposal<M>>) -> Vec<Vec<Proposal<M>>> {
    let (mut batches, mut bytes) = (Vec::new(), usize::MAX);
    for proposal in proposals {
        if bytes.saturating_add(proposal.bytes()) > ESSENTIAL_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += proposal.bytes();
        if let Some(batch) = batches.last_mut() {
            batch.push(proposal);
        }
    }
    batches
}
