//! The driver's effects become deeds.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::{Job, Runner, WAKE_EVERY, Waiting, answer, message::Proposal};
use crate::{
    failpoint,
    raft::{
        ChangeError, End, Machine, ProposeError, ReadError,
        driver::{Answer, ChangeRefused, Effect, Message, Stop, Ticket, Write},
        start,
        store::{Disk, Entry, EntryKind, Position},
    },
};

impl<D: Disk, M: Machine> Runner<D, M> {
    pub(super) fn turns(&mut self) {
        loop {
            let effects = self.driver.turn();
            self.carry_out(effects);
            if self.end.is_some() || !self.driver.has_more() {
                return;
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let (mut outcomes, mut answers, mut leads, mut changed) = (Vec::new(), Vec::new(), Vec::new(), false);
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    self.send(&message);
                    if message.entries.iter().any(|entry| !entry.data.is_empty()) {
                        failpoint::reach("log-sent");
                    }
                }
                Effect::Write(write) => self.write(write),
                Effect::NoteCommit(commit) => self.noted = commit,
                Effect::Apply(entry, ticket) => {
                    changed = true;
                    match self.apply(entry, ticket) {
                        Ok(outcome) => {
                            outcomes.extend(outcome);
                            self.make_common_checkpoint();
                        }
                        Err(end) => {
                            self.end = Some(end);
                            break;
                        }
                    }
                }
                Effect::Install(at) => {
                    changed = true;
                    if let Err(end) = self.install(at) {
                        self.end = Some(end);
                        break;
                    }
                }
                Effect::MakeCheckpoint => self.make_checkpoint(false, true),
                Effect::Fetch { from, checkpoint } => self.fetch(from, checkpoint),
                Effect::Answer(ticket, answer) => answers.push((ticket, answer)),
                Effect::Leads(term) => leads.push(term),
                Effect::Leader(leader) => {
                    if leader.is_some() {
                        self.pulse.leader_changes.fetch_add(1, Relaxed);
                    }
                    self.outlets.known_leader.send_replace(leader);
                }
                Effect::Members(members) => {
                    self.peers.members(&members);
                    self.members = members.clone();
                    self.outlets.members.send_replace(members);
                    failpoint::reach("change-applied");
                }
                Effect::Stop(why @ (Stop::LogLost { .. } | Stop::Contradiction { .. })) => {
                    self.end = Some(End::Barred(why.to_string()));
                }
                Effect::Stop(why @ Stop::DiskHangs) => self.end = Some(End::Broken(why.to_string())),
            }
        }
        if changed {
            // Shown before it is answered: who was answered sees it.
            self.show();
        }
        for term in leads {
            match term {
                Some(term) => tracing::info!(term, index = self.applied.index, "leads"),
                None => tracing::info!("leads no longer"),
            }
            self.outlets.leader.send_replace(term);
        }
        outcomes.into_iter().for_each(|(proposal, outcome): (Proposal<M>, M::Outcome)| {
            answer(proposal.answer, Ok(outcome));
        });
        answers.into_iter().for_each(|(ticket, answer)| self.answer(ticket, answer));
    }

    fn show(&mut self) {
        let mut state = Arc::new(self.state.clone());
        self.outlets.state.send_if_modified(|shown| {
            std::mem::swap(shown, &mut state);
            false
        });
        // Rows that only the one before had go without readers waiting for it.
        drop(state);
        self.outlets.applied.send_replace(self.applied);
        self.owes_wake = true;
        let now = Instant::now();
        if now >= self.woken + WAKE_EVERY {
            self.wake(now);
        }
    }

    /// Those who follow the state.
    pub(super) fn wake(&mut self, now: Instant) {
        (self.woken, self.owes_wake) = (now, false);
        self.outlets.state.send_modify(|_| ());
    }

    /// It goes with the next job: for its own sake nobody has to wake the disk's thread.
    pub(super) fn note_commit(&mut self) {
        let commit = std::mem::take(&mut self.noted);
        if commit > 0 {
            self.jobs.send(Job::NoteCommit(commit)).unwrap_or(());
        }
    }

    fn send(&self, message: &Message) {
        match protobuf::Message::write_to_bytes(message) {
            Ok(frame) => self.peers.send(message.to, frame),
            Err(error) => tracing::error!(%error, "a message cannot be written"),
        }
    }

    fn write(&mut self, write: Write) {
        for entry in write.entries.iter().filter(|entry| !entry.data.is_empty()) {
            failpoint::reach(match entry.kind {
                EntryKind::Normal => "log-appended",
                EntryKind::Configuration => "change-proposed",
            });
        }
        let body = match write.install.map(|at| self.bodies.get(&at.index).map(|body| Arc::clone(&body.received))) {
            None => None,
            Some(Some(body)) => Some(body),
            Some(None) => {
                self.end = Some(End::Broken("a checkpoint is to be installed that is not here".into()));
                return;
            }
        };
        self.note_commit();
        self.jobs.send(Job::Write(write, body)).unwrap_or(());
    }

    /// Applies an entry; whoever proposed it here is told later.
    #[expect(clippy::type_complexity, reason = "a proposal and its outcome")]
    fn apply(&mut self, entry: Entry, ticket: Option<Ticket>) -> Result<Option<(Proposal<M>, M::Outcome)>, End> {
        self.applied = Position { index: entry.index, term: entry.term };
        self.keeping.count(entry.data.len());
        let own = ticket.and_then(|ticket| match self.waiting.remove(&ticket)? {
            Waiting::Proposal(proposal) => Some(proposal),
            Waiting::Read(_) | Waiting::Change(_) => None,
        });
        let decoded = match &own {
            Some(_) => None,
            None => match start::command::<M>(&entry).map_err(|error| error.end())? {
                None => return Ok(None),
                decoded => decoded,
            },
        };
        let Some(command) = decoded.as_ref().or(own.as_ref().map(|own| &own.entry)) else { return Ok(None) };
        let at = self.applied;
        failpoint::reach("log-committed");
        let outcome = self.state.apply(at, command);
        for observer in self.observers.iter_mut().filter(|observer| observer.wanted() <= at.index) {
            observer.applied(at, command, &outcome);
        }
        failpoint::reach("log-applied");
        if own.is_some() {
            failpoint::reach("proposal-applied");
        }
        Ok(own.map(|proposal| (proposal, outcome)))
    }

    fn answer(&mut self, ticket: Ticket, given: Answer) {
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        match (waiting, given) {
            (Waiting::Proposal(proposal), Answer::Refused(leader)) => {
                answer(proposal.answer, Err(ProposeError::NotLeader(leader)));
            }
            (Waiting::Proposal(proposal), _) => answer(proposal.answer, Err(ProposeError::Unknown)),
            (Waiting::Read(reader), Answer::Readable) => answer(reader, Ok(self.outlets.state.borrow().clone())),
            (Waiting::Read(reader), _) => answer(reader, Err(ReadError::NoLeader)),
            (Waiting::Change(changer), Answer::Changed) => answer(changer, Ok(())),
            (Waiting::Change(changer), Answer::ChangeRefused(why)) => {
                let is_unknown = why == ChangeRefused::Overtaken;
                answer(changer, Err(if is_unknown { ChangeError::Unknown } else { ChangeError::Refused(why) }));
            }
            (Waiting::Change(changer), _) => answer(changer, Err(ChangeError::Unknown)),
        }
    }
}
