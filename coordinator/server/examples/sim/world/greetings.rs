//! Connections: both ends show how they stand, and whoever knows better refuses the other.

use std::collections::BTreeMap;

use mainstay_coordinator::raft::driver::{Message, Shown};
use raft::eraftpb::MessageType;

use super::World;

/// What replicas said to others that live still, as the world saw it: no driver is asked.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<(u64, u64), Promise>);

#[derive(Debug, Default)]
struct Promise {
    /// The life that heard it.
    heard_by: u64,
    term: u64,
    /// In a term, to its leader: the log up to there.
    acknowledged: (u64, u64),
}

impl Said {
    fn note(&mut self, message: &Message, life: u64, leading: Option<u64>) {
        let kind = message.get_msg_type();
        let promises = [
            MessageType::MsgRequestVote,
            MessageType::MsgRequestVoteResponse,
            MessageType::MsgAppend,
            MessageType::MsgAppendResponse,
            MessageType::MsgHeartbeat,
            MessageType::MsgHeartbeatResponse,
        ];
        if !promises.contains(&kind) {
            return;
        }
        let promise = self.0.entry((message.from, message.to)).or_default();
        if promise.heard_by != life {
            *promise = Promise { heard_by: life, ..Promise::default() };
        }
        promise.term = promise.term.max(message.term);
        if kind == MessageType::MsgAppendResponse && !message.reject && leading == Some(message.term) {
            promise.acknowledged = promise.acknowledged.max((message.term, message.index));
        }
    }
}

impl World {
    /// A message is about to be stepped.
    pub(super) fn heard(&mut self, message: &Message) {
        let Some(node) = self.nodes.get(&message.to) else { return };
        let leading = node.replica.as_ref().and_then(|replica| replica.driver.leading());
        self.said.note(message, node.life, leading);
    }

    /// Whether somebody within reach of `id`, which stands so, was told of more than that.
    pub(super) fn is_known_better(&self, id: u64, shown: Shown) -> Option<u64> {
        let knows = |to: u64| {
            let node = self.nodes.get(&to).filter(|node| node.replica.is_some())?;
            let promise = self.said.0.get(&(id, to)).filter(|promise| promise.heard_by == node.life)?;
            let (in_term, acknowledged) = promise.acknowledged;
            let is_less = shown.term < promise.term || shown.term == in_term && shown.last.index < acknowledged;
            is_less.then_some(to)
        };
        let reachable = |to: &u64| !self.cut.contains(&(id, *to)) && !self.cut.contains(&(*to, id));
        self.nodes.keys().copied().filter(reachable).find_map(knows)
    }

    /// A program that begins is connected to all that it reaches.
    pub(super) fn connect_all(&mut self, id: u64) -> Result<(), String> {
        for other in self.running() {
            if other != id && !self.cut.contains(&(id, other)) && !self.cut.contains(&(other, id)) {
                self.connect(id, other)?;
            }
        }
        Ok(())
    }

    /// The lives between which there is a connection, made where there is none.
    pub(super) fn connect(&mut self, one: u64, other: u64) -> Result<Option<(u64, u64)>, String> {
        let (Some(first), Some(second)) = (self.shown(one), self.shown(other)) else { return Ok(None) };
        let lives = (first.boot, second.boot);
        if self.links.get(&(one, other)) == Some(&lives) {
            return Ok(Some(lives));
        }
        for (peer, shown, of) in [(one, first, other), (other, second, one)] {
            let Some(replica) = self.nodes.get_mut(&of).and_then(|node| node.replica.as_mut()) else { return Ok(None) };
            if let Err(why) = replica.driver.greeted(peer, shown) {
                self.refused(peer, of, &why.to_string())?;
                return Ok(None);
            }
        }
        self.links.insert((one, other), lives);
        self.links.insert((other, one), (lives.1, lives.0));
        Ok(Some(lives))
    }

    fn shown(&self, id: u64) -> Option<Shown> {
        self.nodes.get(&id)?.replica.as_ref().map(|replica| replica.driver.shown())
    }

    /// It may not take part any more, and is replaced by whoever reads that.
    fn refused(&mut self, id: u64, by: u64, why: &str) -> Result<(), String> {
        self.tell(|| format!("{by} refuses {id}: {why}"));
        if !self.doubtful.contains(&id) {
            return Err(format!("{by} refuses {id}, whose disk is as it left it: {why}"));
        }
        self.lose(id)
    }
}
