//! Inputs: what each does to Raft.

use raft::{
    ProgressState, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeV2, Message, MessageType},
};

use super::{
    Answer, Appended, Change, ChangeRefused, Driver, ELECTION_TICKS, Effect, Mistake, Position, Stop, convert,
};
use crate::raft::store::ConfState;

/// A leader that stays in a joint configuration so long proposes to leave it: 5 s.
const JOINT_TICKS: u64 = 100;
/// A peer that wants a checkpoint, and of which nothing was heard for so long, is offered one again: 5 s.
const SENDING_TICKS: u64 = 100;
/// That the leader of a term is gone is believed once in so long: 5 s. The next one may go sooner.
const HINT_TICKS: u64 = 100;

/// What a peer that was sent a checkpoint needs behind it is kept for so long: 10 min.
const PIN_TICKS: u64 = 12_000;

/// Ticks of a peer that gets a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// It has been in want of one since then.
    since: u64,
    /// The last news of it.
    heard: u64,
}

impl Driver {
    pub(super) fn tick(&mut self) {
        self.now += 1;
        if self.leads() || self.may_campaign() {
            self.node.tick();
        }
        self.settle();
        if self.leads() {
            self.heard = Some(self.now);
        }
        for ticket in self.reads.tick(self.now) {
            self.effects.push(Effect::Answer(ticket, Answer::NotReadable));
        }
        self.watch_disk();
        if self.leads() {
            self.promises.committed(self.node.raft.term, self.node.raft.raft_log.committed);
            self.promote();
            self.leave_joint();
            self.look_after_sending();
        }
    }

    /// Whether votes may be asked for. A sole voter elects itself within one call, for which the crate wants all of its
    /// log to be durable; with a checkpoint under way it looks for entries that are gone, and ends the process.
    fn may_campaign(&self) -> bool {
        !self.outstanding.is_installing() && (!self.is_sole() || self.outstanding.is_empty())
    }

    pub(super) fn step(&mut self, mut message: Message) {
        if message.to != self.config.id || message.from == self.config.id || message.from == 0 {
            return;
        }
        if let Some(stop) = self.contradiction(&message) {
            if self.makes(Mistake::ReuseId) {
                message.commit = message.commit.min(self.node.raft.raft_log.last_index());
            } else {
                return self.stop(stop);
            }
        }
        self.promises.heard(&message, self.led, self.node.raft.raft_log.committed);
        let (kind, is_of_this_term) = (message.get_msg_type(), message.term == self.node.raft.term);
        if is_of_this_term && Some(message.from) == self.leader() && is_of_a_leader(kind) {
            self.heard = Some(self.now);
        }
        if kind == MessageType::MsgSnapshot {
            return self.await_checkpoint(message);
        }
        // Proposals are made where the leader is: nobody forwards them.
        let is_misplaced = kind == MessageType::MsgPropose
            || kind == MessageType::MsgAppend && !is_contiguous(&message)
            || kind == MessageType::MsgTimeoutNow && !self.may_campaign();
        if is_misplaced {
            return;
        }
        if [MessageType::MsgAppendResponse, MessageType::MsgHeartbeatResponse].contains(&kind) && is_of_this_term {
            self.peers.heard(message.from, self.now);
        }
        // What it refuses is of a peer that is unknown here, or comes too late.
        self.node.step(message).unwrap_or(());
    }

    /// What may not be stepped: the crate would end the process without a word that helps.
    fn contradiction(&self, message: &Message) -> Option<Stop> {
        let raft = &self.node.raft;
        if message.term < raft.term {
            return None;
        }
        let (from, last) = (message.from, raft.raft_log.last_index());
        if message.get_msg_type() == MessageType::MsgHeartbeat && message.commit > last {
            return Some(Stop::LogLost { from, had: message.commit, last });
        }
        if message.get_msg_type() != MessageType::MsgAppend {
            return None;
        }
        let other = |entry: &&raft::eraftpb::Entry| {
            entry.index <= raft.raft_log.committed
                && raft.raft_log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term)
        };
        message.get_entries().iter().find(other).map(|entry| Stop::Contradiction { from, index: entry.index })
    }

    /// A checkpoint's place without its body: it counts when the body is here.
    fn await_checkpoint(&mut self, message: Message) {
        if message.term < self.node.raft.term {
            return;
        }
        let checkpoint = convert::snapshot_place(message.get_snapshot());
        let from = message.from;
        if checkpoint.index <= self.node.raft.raft_log.committed {
            // Nothing to fetch for: the crate answers with what is here.
            return self.node.step(message).unwrap_or(());
        }
        self.awaited = Some(message);
        self.effects.push(Effect::Fetch { from, checkpoint });
    }

    pub(super) fn checkpoint_received(&mut self, at: Position) {
        let is_it = |message: &mut Message| convert::snapshot_place(message.get_snapshot()) == at;
        if let Some(message) = self.awaited.take_if(is_it) {
            self.node.step(message).unwrap_or(());
        }
    }

    pub(super) fn checkpoint_missed(&mut self, at: Position) {
        self.awaited.take_if(|message| convert::snapshot_place(message.get_snapshot()) == at);
    }

    pub(super) fn checkpoint_sending(&mut self, to: u64) {
        if let Some(sending) = self.sending.get_mut(&to) {
            sending.heard = self.now;
        }
    }

    /// Whoever is being sent an older one goes on from there with entries, or would need the next, and the next.
    pub(super) fn checkpoint_made(&mut self, at: Position, conf_state: ConfState) {
        let (now, progress) = (self.now, self.node.raft.prs());
        let pinned =
            self.sending.iter().filter(|(_, sending)| now < sending.since + PIN_TICKS).filter_map(|(id, _)| {
                let progress = progress.get(*id).filter(|progress| progress.state == ProgressState::Snapshot)?;
                Some(progress.pending_snapshot)
            });
        let pinned = pinned.min();
        self.node.mut_store().compact(at, conf_state, pinned);
    }

    pub(super) fn checkpoint_not_sent(&mut self, to: u64) {
        self.sending.remove(&to);
        self.node.report_snapshot(to, SnapshotStatus::Failure);
    }

    /// A peer stays paused until somebody says what became of its checkpoint.
    fn look_after_sending(&mut self) {
        let in_want =
            |(id, progress): (&u64, &raft::Progress)| (progress.state == ProgressState::Snapshot).then_some(*id);
        let mut ids: Vec<u64> = self.node.raft.prs().iter().filter_map(in_want).collect();
        ids.sort_unstable();
        self.sending.retain(|id, _| ids.contains(id));
        for id in ids {
            let sending = self.sending.entry(id).or_insert(Sending { since: self.now, heard: self.now });
            if self.now >= sending.heard + SENDING_TICKS {
                self.checkpoint_not_sent(id);
            }
        }
    }

    /// The leader's process is gone: votes are asked for at once. A wrong hint changes no term, as PreVote asks first.
    pub(super) fn leader_gone(&mut self, leader: u64) {
        let term = self.node.raft.term;
        let may = self.hinted.is_none_or(|(in_term, at)| in_term != term || self.now >= at + HINT_TICKS);
        // The crate asks itself only at ticks whether this one votes at all.
        let may = may && self.node.raft.promotable() && self.may_campaign();
        if may && self.leader() == Some(leader) && self.node.raft.state == StateRole::Follower {
            self.hinted = Some((term, self.now));
            self.node.raft.leader_id = 0;
            self.node.campaign().unwrap_or(());
        }
    }

    /// Gives leadership to `to`, or to the voter that has most of the log and answers.
    pub(super) fn transfer(&mut self, to: Option<u64>) {
        if !self.leads() {
            return;
        }
        let matched = |id: u64| self.node.raft.prs().get(id).map_or(0, |progress| progress.matched);
        let others = || self.conf_state.voters.iter().copied().filter(|id| *id != self.config.id);
        let best = || {
            let alive = others().filter(|id| self.peers.is_alive(*id, self.now));
            alive.max_by_key(|id| (matched(*id), std::cmp::Reverse(*id)))
        };
        let to = to.map_or_else(best, |to| others().find(|id| *id == to));
        if let Some(to) = to {
            if self.node.raft.lead_transferee == Some(to) {
                // What was sent may be lost, and the crate does not repeat it.
                self.node.raft.abort_leader_transfer();
            }
            self.node.transfer_leader(to);
        }
    }

    /// A leader that was removed leads no more, and keeps its vote and its log for those who do not know of it yet. The
    /// crate would go on, and end the process when a write of its own is durable: a leader counts itself as a member.
    pub(super) fn give_up_leading(&mut self) {
        if self.leads() && !self.conf_state.all().contains(&self.config.id) {
            self.node.raft.become_follower(self.node.raft.term, raft::INVALID_ID);
        }
    }

    /// Learners that have caught up get their vote.
    fn promote(&mut self) {
        let commit = self.node.raft.raft_log.committed;
        let caught_up = self.peers.watch(self.node.raft.prs(), commit, self.now);
        if let Some(id) = caught_up.first()
            && let Ok(change) = self.may_change(Change::Promote(*id))
        {
            self.node.propose_conf_change(vec![], change).unwrap_or(());
        }
    }

    /// Leaving a joint configuration is proposed by whoever applies the entry into it as the leader; a leader that came
    /// later makes up for it.
    fn leave_joint(&mut self) {
        if self.conf_state.voters_outgoing.is_empty() || self.node.raft.has_pending_conf() {
            self.joint_since = None;
            return;
        }
        if self.now >= *self.joint_since.get_or_insert(self.now) + JOINT_TICKS {
            self.joint_since = None;
            self.node.propose_conf_change(vec![], ConfChangeV2::default()).unwrap_or(());
        }
    }

    pub(super) fn change_members(&mut self) {
        for (ticket, change) in std::mem::take(&mut self.changes) {
            match self.may_change(change) {
                Ok(written) => {
                    let (term, index) = (self.node.raft.term, self.node.raft.raft_log.last_index() + 1);
                    if self.node.propose_conf_change(vec![], written).is_ok() {
                        self.appended.insert(index, Appended { term, ticket, is_change: true });
                    } else {
                        self.effects.push(Effect::Answer(ticket, Answer::ChangeRefused(ChangeRefused::Pending)));
                    }
                }
                Err(why) => self.effects.push(Effect::Answer(ticket, Answer::ChangeRefused(why))),
            }
        }
    }

    /// Whether a change would be made if it was asked for now.
    ///
    /// # Errors
    /// [`ChangeRefused`] says why not.
    pub fn allows(&self, change: Change) -> Result<(), ChangeRefused> {
        self.may_change(change).map(drop)
    }

    fn may_change(&self, change: Change) -> Result<ConfChangeV2, ChangeRefused> {
        if !self.leads() {
            return Err(ChangeRefused::NotLeader(self.leader()));
        }
        let raft = &self.node.raft;
        if self.told_leads.is_none() || raft.has_pending_conf() || !self.conf_state.voters_outgoing.is_empty() {
            return Err(ChangeRefused::Pending);
        }
        let checked = self.peers.check(self.config.id, &self.conf_state, change, self.now);
        // A leader that has only just begun has not heard of everybody yet.
        let is_new = self.now < self.led_since + ELECTION_TICKS as u64;
        let is_no_majority = |why: &ChangeRefused| matches!(why, ChangeRefused::NoMajority { .. });
        checked.map_err(|why| if is_new && is_no_majority(&why) { ChangeRefused::Pending } else { why })
    }
}

/// Only leaders say such things.
fn is_of_a_leader(kind: MessageType) -> bool {
    [MessageType::MsgHeartbeat, MessageType::MsgAppend, MessageType::MsgSnapshot].contains(&kind)
}

fn is_contiguous(message: &Message) -> bool {
    let (mut index, mut term) = (message.index, message.log_term);
    message.get_entries().iter().all(|entry| {
        let follows = entry.index == index + 1 && entry.term >= term;
        (index, term) = (entry.index, entry.term);
        follows
    })
}
