//! What somebody waits for: what is proposed, until it is applied or lost.

use raft::eraftpb::{Entry, MessageType};

use super::{Answer, ChangeRefused, Driver, Effect, Message, Mistake, Ticket};

/// The most entries of one turn's proposals.
const BATCH_ENTRIES: usize = 512;
/// The most bytes of them; one alone may have more.
const BATCH_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) term: u64,
    pub(super) ticket: Ticket,
    pub(super) is_change: bool,
}

impl Driver {
    /// True where proposals wait that another turn would take.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.stopped && !self.proposals.is_empty() && self.is_ready_to_propose()
    }

    /// Takes back proposals that are not in the log yet.
    pub fn take_held(&mut self) -> Vec<Ticket> {
        self.proposals.drain(..).map(|(ticket, _)| ticket).collect()
    }

    fn is_ready_to_propose(&self) -> bool {
        // Before a leader's first entry is applied it holds what comes: it may not have the disk's room to lead at all.
        !self.leads() || self.told_leads.is_some()
    }

    /// All that waits, as far as it fits, as one message: each would be one to every follower otherwise.
    pub(super) fn propose(&mut self) {
        if self.proposals.is_empty() || !self.is_ready_to_propose() {
            return;
        }
        if !self.leads() {
            // The crate would forward them, and nobody could tell what became of them.
            let leader = self.leader();
            let refused = self.proposals.drain(..).map(|(ticket, _)| Effect::Answer(ticket, Answer::Refused(leader)));
            self.effects.extend(refused);
            return;
        }
        let (mut bytes, mut tickets, mut entries) = (0, Vec::new(), Vec::new());
        while let Some((ticket, data)) = self.proposals.pop_front() {
            bytes += data.len();
            if !entries.is_empty() && (bytes > BATCH_BYTES || entries.len() >= BATCH_ENTRIES) {
                self.proposals.push_front((ticket, data));
                break;
            }
            tickets.push(ticket);
            entries.push(Entry { data: data.into(), ..Entry::default() });
        }
        let (term, first) = (self.node.raft.term, self.node.raft.raft_log.last_index() + 1);
        let mut message = Message { from: self.config.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        if self.node.step(message).is_ok() {
            let appended = |ticket| Appended { term, ticket, is_change: false };
            self.appended.extend((first..).zip(tickets.into_iter().map(appended)));
        } else {
            // Leadership is on its way to somebody else, or too much waits already.
            self.effects.extend(tickets.into_iter().map(|ticket| Effect::Answer(ticket, Answer::Refused(None))));
        }
    }

    /// Nobody is left without an answer when nothing more can be done.
    pub(super) fn answer_all(&mut self) {
        self.lose_appended();
        let proposals = self.proposals.drain(..).map(|(ticket, _)| Effect::Answer(ticket, Answer::Refused(None)));
        self.effects.extend(proposals);
        let changes = self.changes.drain(..);
        self.effects.extend(
            changes.map(|(ticket, _)| Effect::Answer(ticket, Answer::ChangeRefused(ChangeRefused::NotLeader(None)))),
        );
        let reads = self.reads.give_up_all().into_iter();
        self.effects.extend(reads.map(|ticket| Effect::Answer(ticket, Answer::NotReadable)));
    }

    /// Leadership is lost: another leader decides what becomes of these.
    pub(super) fn lose_appended(&mut self) {
        let answer = match self.config.mistake {
            Some(Mistake::UnknownAsRefused) => Answer::Refused(None),
            _ => Answer::Unknown,
        };
        for (_, Appended { ticket, .. }) in std::mem::take(&mut self.appended) {
            self.effects.push(Effect::Answer(ticket, answer.clone()));
        }
    }
}
