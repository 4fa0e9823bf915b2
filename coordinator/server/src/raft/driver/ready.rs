//! What Raft wants done: sent, written, applied; and what it may do once that is durable.

use std::collections::VecDeque;

use raft::eraftpb::{ConfChangeV2, EntryType, Message, MessageType};

use super::{Answer, Appended, ChangeRefused, Driver, Effect, Mistake, Position, Write, convert};
use crate::raft::store::{ConfState, Entry, HardState};

/// Writes that are not durable yet, and what waits for them.
#[derive(Debug)]
pub(super) struct Outstanding {
    writes: VecDeque<Waiting>,
    durable: HardState,
    /// The last durable entry.
    last: Position,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// The last ready that is done with this write: those without a write of their own wait behind it.
    covers: u64,
    /// The tick at which it was given to the disk.
    since: u64,
    hard_state: HardState,
    install: Option<(Position, ConfState)>,
    /// The last of its entries.
    last: Option<Position>,
    messages: Vec<Message>,
}

impl Outstanding {
    pub(super) fn new(durable: HardState, last: Position) -> Self {
        Self { writes: VecDeque::new(), durable, last }
    }

    /// The term and the last entry.
    pub(super) fn durable(&self) -> (u64, Position) {
        (self.durable.term, self.last)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.writes.len()
    }

    /// True while a checkpoint from elsewhere is not durable: the log before it is gone, and its state is not here yet.
    pub(super) fn is_installing(&self) -> bool {
        self.writes.iter().any(|write| write.install.is_some())
    }

    /// The disk could not begin with any of these before.
    pub(super) fn begin_again(&mut self, now: u64) {
        self.writes.iter_mut().for_each(|write| write.since = now);
    }

    /// The tick at which the oldest write was given to the disk.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.writes.front().map(|write| write.since)
    }

    fn is_durable(&self, hard_state: HardState) -> bool {
        (self.durable.term, self.durable.vote) == (hard_state.term, hard_state.vote)
    }
}

impl Driver {
    /// One ready of the crate: its parts are taken out, the mirror shows them, then they become effects.
    pub(super) fn ready(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        let mut hard_state = convert::hard_state_in(&self.node.raft.hard_state());
        let (now_messages, mut later_messages) = (ready.take_messages(), ready.take_persisted_messages());
        let (committed, read_states) = (ready.take_committed_entries(), ready.take_read_states());
        let lost_leadership = self.appended.first_key_value().is_some_and(|(_, first)| self.led != Some(first.term));

        let snapshot = ready.snapshot();
        let install = (snapshot.get_metadata().index > 0).then(|| {
            (convert::snapshot_place(snapshot), convert::conf_state_in(snapshot.get_metadata().get_conf_state()))
        });
        let entries: Vec<Entry> = ready.entries().iter().map(convert::entry_in).collect();
        let only_commit = ready.hs().is_some() && !ready.must_sync();
        let writes = ready.must_sync() || install.is_some() || !entries.is_empty();
        let mirror = self.node.mut_store();
        if let Some((at, conf_state)) = &install {
            mirror.reset(*at, conf_state.clone());
        }
        mirror.append(ready.entries());
        self.node.advance_append_async(ready);

        match self.config.mistake {
            Some(Mistake::LoseHardState) => {
                hard_state = HardState { commit: hard_state.commit, ..self.founding_state() }
            }
            Some(Mistake::LoseVote) => hard_state.vote = 0,
            _ => {}
        }
        let is_term_durable = self.outstanding.is_durable(hard_state);
        let mut send: Vec<Message> = Vec::new();
        if is_term_durable {
            send = now_messages;
        } else {
            // A sole voter leads a term before that is durable: whoever heard of it could hear of it twice.
            later_messages.splice(..0, now_messages);
        }
        if self.makes(Mistake::SendBeforePersisted) {
            send.append(&mut later_messages);
        }
        // It promises no entries, and a slow disk must not look like a dead replica.
        if is_term_durable {
            let early = |message: &mut Message| message.get_msg_type() == MessageType::MsgHeartbeatResponse;
            send.extend(later_messages.extract_if(.., early));
        }
        self.send(send);

        if writes {
            let write =
                Write { number, install: install.as_ref().map(|(at, _)| *at), entries: entries.clone(), hard_state };
            let last = entries.last().map(|last| Position { index: last.index, term: last.term });
            let last = last.or(install.as_ref().map(|(at, _)| *at));
            self.outstanding.writes.push_back(Waiting {
                last,
                number,
                covers: number,
                since: self.now,
                hard_state,
                install,
                messages: later_messages,
            });
            self.effects.push(Effect::Write(write));
        } else {
            if only_commit {
                self.effects.push(Effect::NoteCommit(hard_state.commit));
            }
            match self.outstanding.writes.back_mut() {
                Some(last) => {
                    last.covers = number;
                    last.messages.append(&mut later_messages);
                }
                None => {
                    self.send(later_messages);
                    self.node.on_persist_ready(number);
                }
            }
        }
        if self.makes(Mistake::CountUnpersisted) && self.leads() {
            self.node.on_persist_ready(number);
        }

        for read_state in read_states {
            self.reads.answered(&read_state.request_ctx, read_state.index);
        }
        if self.makes(Mistake::ApplyBeforeCommit) {
            self.show_early(&entries);
        }
        for entry in committed {
            self.apply(&entry);
        }
        if lost_leadership {
            if self.makes(Mistake::UnknownAsCommitted) {
                self.show_appended();
            }
            self.lose_appended();
        }
        self.settle();
    }

    /// The disk is done with a write.
    pub(super) fn persisted(&mut self, number: u64) {
        while let Some(write) = self.outstanding.writes.pop_front_if(|write| write.number <= number) {
            self.outstanding.durable = write.hard_state;
            self.outstanding.last = write.last.unwrap_or(self.outstanding.last);
            self.send(write.messages);
            self.node.on_persist_ready(write.covers);
            if let Some((at, conf_state)) = write.install {
                self.installed(at, conf_state);
            }
        }
    }

    fn installed(&mut self, at: Position, conf_state: ConfState) {
        (self.applied, self.shown) = (at, at.index);
        self.effects.push(Effect::Install(at));
        if !self.makes(Mistake::NoAdvanceAfterInstall) {
            self.node.advance_apply_to(at.index);
        }
        self.set_members(conf_state);
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.effects.extend(messages.into_iter().map(Effect::Send));
    }

    fn apply(&mut self, entry: &raft::eraftpb::Entry) {
        let at = Position { index: entry.index, term: entry.term };
        self.applied = at;
        if entry.get_entry_type() != EntryType::EntryNormal {
            self.apply_change(entry);
        }
        let waiting = self.appended.remove(&at.index);
        let is_ours = waiting.filter(|appended| appended.term == at.term);
        let ticket = is_ours.filter(|appended| !appended.is_change).map(|appended| appended.ticket);
        if entry.index > self.shown {
            self.shown = entry.index;
            self.effects.push(Effect::Apply(convert::entry_in(entry), ticket));
        }
        if let Some(Appended { ticket, is_change: true, .. }) = is_ours {
            // The crate makes an empty entry of a change that it dislikes.
            let answer = match entry.get_entry_type() {
                EntryType::EntryNormal => Answer::ChangeRefused(ChangeRefused::Pending),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Answer::Changed,
            };
            self.effects.push(Effect::Answer(ticket, answer));
        } else if let (Some(appended), None) = (waiting, is_ours) {
            let answer =
                if appended.is_change { Answer::ChangeRefused(ChangeRefused::Overtaken) } else { Answer::Unknown };
            self.effects.push(Effect::Answer(appended.ticket, answer));
        }
        self.node.advance_apply_to(at.index);
        if self.leads() && self.told_leads.is_none() && at.term == self.node.raft.term {
            self.told_leads = Some(at.term);
            self.effects.push(Effect::Leads(self.told_leads));
        }
    }

    /// Every entry of members counts, also one without data: it ends a joint configuration.
    fn apply_change(&mut self, entry: &raft::eraftpb::Entry) {
        if entry.data.is_empty() && self.makes(Mistake::SkipEmptyChange) {
            return;
        }
        let change: Result<ConfChangeV2, _> = protobuf::Message::parse_from_bytes(&entry.data);
        // What the crate refuses here it refuses on every replica.
        if let Some(Ok(conf_state)) = change.ok().map(|change| self.node.apply_conf_change(&change)) {
            self.set_members(convert::conf_state_in(&conf_state));
        }
    }

    fn set_members(&mut self, conf_state: ConfState) {
        let removed = self.conf_state.all().contains(&self.config.id) && !conf_state.all().contains(&self.config.id);
        self.conf_state = conf_state;
        self.effects.push(Effect::Members(self.conf_state.clone()));
        if removed && self.leads() {
            // Whoever has everything leads at once; else the others choose in their own time, with this one's vote.
            self.transfer(None);
        }
    }

    /// What a checkpoint of what is applied has to say of members.
    #[must_use]
    pub fn conf_state(&self) -> ConfState {
        if self.makes(Mistake::ForgetMembers) { self.founding.clone() } else { self.conf_state.clone() }
    }

    fn founding_state(&self) -> HardState {
        HardState { term: self.node.store().before().term.max(1), vote: 0, commit: 0 }
    }

    fn show_early(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.index <= self.shown {
                continue;
            }
            self.shown = entry.index;
            let ticket = self.appended.get(&entry.index).map(|appended| appended.ticket);
            self.effects.push(Effect::Apply(entry.clone(), ticket));
        }
    }

    /// Tells what is only in the log as if it were decided.
    fn show_appended(&mut self) {
        for (index, appended) in std::mem::take(&mut self.appended) {
            if let Some(entry) = self.node.store().entry(index) {
                self.effects.push(Effect::Apply(convert::entry_in(entry), Some(appended.ticket)));
            }
        }
    }
}
