//! What others promised to this replica: all of that was durable, so it must be there when they come back.

use std::collections::BTreeMap;

use raft::eraftpb::{Message, MessageType};

use super::Position;

/// How a replica stands as its disk has it: said when a connection begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Differs at every start; 0 from versions that do not say.
    pub boot: u64,
    /// The latest durable term.
    pub term: u64,
    /// The last durable entry.
    pub last: Position,
}

/// A replica has less than it promised: its disk went back in time, or was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "r{peer} said that it had term {in_term} and entry {had}, and shows term {} and entry {}: its disk went back in time, \
     or was emptied",
    shown.term,
    shown.last.index
)]
pub struct LogWentBack {
    /// Who.
    pub peer: u64,
    /// What it said that it had.
    pub had: u64,
    /// When it said so.
    pub in_term: u64,
    /// What it has.
    pub shown: Shown,
}

/// By replica. Kept as long as this replica lives: whoever knows better says so.
#[derive(Debug, Default)]
pub(super) struct Promises(BTreeMap<u64, Promise>);

#[derive(Debug, Default)]
struct Promise {
    /// Of the life in which it was made.
    boot: u64,
    /// A message of this term was sent, so the term was durable.
    term: u64,
    /// In that term, the log up to there was acknowledged to this replica, which led it.
    acknowledged: (u64, u64),
    /// Committed and acknowledged: no later leader replaces that.
    committed: u64,
}

impl Promises {
    /// A peer says something; this replica leads in `leading` and knows what is committed.
    pub(super) fn heard(&mut self, message: &Message, leading: Option<u64>, committed: u64) {
        let kind = message.get_msg_type();
        // What is asked and answered before an election names a term that nobody has yet.
        if matches!(kind, MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse) {
            return;
        }
        let promise = self.0.entry(message.from).or_default();
        promise.term = promise.term.max(message.term);
        if kind == MessageType::MsgAppendResponse && !message.reject && leading == Some(message.term) {
            promise.acknowledged = promise.acknowledged.max((message.term, message.index));
            promise.committed = promise.committed.max(message.index.min(committed));
        }
    }

    /// This replica leads in `term`, and so much is committed.
    pub(super) fn committed(&mut self, term: u64, committed: u64) {
        for promise in self.0.values_mut().filter(|promise| promise.acknowledged.0 == term) {
            promise.committed = promise.committed.max(promise.acknowledged.1.min(committed));
        }
    }

    /// A peer shows itself at the beginning of a connection.
    pub(super) fn check(&mut self, peer: u64, shown: Shown) -> Result<(), LogWentBack> {
        let promise = self.0.entry(peer).or_default();
        // In one life nothing is lost; what it said meanwhile may have come before this.
        if shown.boot == 0 || promise.boot == shown.boot {
            return Ok(());
        }
        let (in_term, acknowledged) = promise.acknowledged;
        let had = if in_term == shown.term { acknowledged.max(promise.committed) } else { promise.committed };
        if shown.term < promise.term || shown.last.index < had {
            let had = had.max(promise.committed);
            return Err(LogWentBack { peer, had, in_term: promise.term, shown });
        }
        promise.boot = shown.boot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageType, term: u64, index: u64) -> Message {
        let mut message = Message { from: 2, to: 1, term, index, ..Message::default() };
        message.set_msg_type(kind);
        message
    }

    fn shown(boot: u64, term: u64, index: u64) -> Shown {
        Shown { boot, term, last: Position { index, term } }
    }

    fn promised(messages: &[Message], leading: Option<u64>, committed: u64) -> Promises {
        let mut promises = Promises::default();
        promises.check(2, shown(1, 1, 1)).unwrap();
        messages.iter().for_each(|message| promises.heard(message, leading, committed));
        promises
    }

    #[test]
    fn what_was_acknowledged_in_a_term_is_there_in_that_term() {
        let acknowledged = [message(MessageType::MsgAppendResponse, 4, 30)];
        assert!(promised(&acknowledged, Some(4), 10).check(2, shown(2, 4, 29)).is_err());
        assert!(promised(&acknowledged, Some(4), 10).check(2, shown(2, 4, 30)).is_ok());
        assert!(promised(&acknowledged, Some(4), 10).check(2, shown(1, 4, 29)).is_ok(), "it is the same life still");
    }

    #[test]
    fn a_later_leader_replaces_only_what_was_not_committed() {
        let acknowledged = [message(MessageType::MsgAppendResponse, 4, 30)];
        assert!(promised(&acknowledged, Some(4), 10).check(2, shown(2, 5, 10)).is_ok());
        assert!(promised(&acknowledged, Some(4), 10).check(2, shown(2, 5, 9)).is_err());
        let mut promises = promised(&acknowledged, Some(4), 10);
        promises.committed(4, 40);
        assert!(promises.check(2, shown(2, 5, 29)).is_err());
    }

    #[test]
    fn a_term_that_was_spoken_in_is_never_forgotten_and_one_that_was_only_asked_about_is() {
        let voted = [message(MessageType::MsgRequestVoteResponse, 7, 0)];
        assert!(promised(&voted, None, 1).check(2, shown(2, 6, 50)).is_err());
        let asked =
            [message(MessageType::MsgRequestPreVote, 7, 0), message(MessageType::MsgRequestPreVoteResponse, 7, 0)];
        assert!(promised(&asked, None, 1).check(2, shown(2, 6, 50)).is_ok());
    }

    #[test]
    fn only_a_leader_knows_what_an_acknowledgement_means() {
        let late = [message(MessageType::MsgAppendResponse, 4, 30)];
        assert!(promised(&late, Some(5), 40).check(2, shown(2, 5, 3)).is_ok());
        assert!(promised(&late, None, 40).check(2, shown(2, 4, 3)).is_ok());
    }
}
