//! What must hold after every event.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_coordinator::raft::{Position, driver::Message, store::Checkpoint};
use raft::eraftpb::MessageType;

/// What is known of the whole, which no replica knows.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Who led a term.
    leaders: BTreeMap<u64, u64>,
    /// Whom a replica voted for in a term.
    votes: BTreeMap<(u64, u64), u64>,
    /// What was applied first at an index: its term, and the state's chain after it.
    applied: BTreeMap<u64, (u64, u64)>,
    /// A name's place.
    done: BTreeMap<u64, u64>,
    /// Names whose clients were told that it is done, and where.
    acknowledged: BTreeMap<u64, u64>,
    refused: BTreeSet<u64>,
    /// What the first checkpoint at an index held.
    checkpoints: BTreeMap<u64, Checkpoint>,
    /// The highest index that anybody was told of.
    told: u64,
    /// The highest fence that an agent saw, and what it did.
    fence: u64,
    pub(crate) worked: BTreeMap<u64, u64>,
}

impl Checks {
    pub(crate) fn leads(&mut self, id: u64, term: u64) -> Result<(), String> {
        match *self.leaders.entry(term).or_insert(id) {
            leader if leader == id => Ok(()),
            leader => Err(format!("term {term} has two leaders, {leader} and {id}")),
        }
    }

    pub(crate) fn sent(&mut self, message: &Message) -> Result<(), String> {
        let kind = message.get_msg_type();
        let candidate = if kind == MessageType::MsgRequestVoteResponse && !message.reject {
            message.to
        } else if kind == MessageType::MsgRequestVote {
            message.from
        } else {
            return Ok(());
        };
        match *self.votes.entry((message.term, message.from)).or_insert(candidate) {
            before if before == candidate => Ok(()),
            before => Err(format!("{} voted for {before} and for {candidate} in term {}", message.from, message.term)),
        }
    }

    /// A replica applied an entry; `before` is what it applied last.
    pub(crate) fn applied(
        &mut self,
        id: u64,
        at: Position,
        before: u64,
        chain: u64,
        name: Option<u64>,
    ) -> Result<(), String> {
        if at.index != before + 1 {
            return Err(format!("{id} applied entry {} after {before}", at.index));
        }
        let (term, known) = *self.applied.entry(at.index).or_insert((at.term, chain));
        if term != at.term {
            return Err(format!("{id} applied entry {} of term {}, others of term {term}", at.index, at.term));
        }
        if known != chain {
            return Err(format!("{id} has another state than others at entry {}", at.index));
        }
        if let Some(name) = name {
            self.done.entry(name).or_insert(at.index);
            if self.refused.contains(&name) {
                return Err(format!("{name} is done, but its client was told that nothing changed"));
            }
        }
        Ok(())
    }

    pub(crate) fn installed(&mut self, id: u64, at: Position, chain: u64) -> Result<(), String> {
        match self.applied.get(&at.index) {
            Some((term, known)) if (*term, *known) != (at.term, chain) => {
                Err(format!("{id} installed another state than others have at entry {}", at.index))
            }
            _ => Ok(()),
        }
    }

    /// A replica makes a checkpoint: the same as any other there, byte for byte.
    pub(crate) fn checkpoint(&mut self, id: u64, made: &Checkpoint) -> Result<(), String> {
        let first = self.checkpoints.entry(made.index).or_insert_with(|| made.clone());
        if first == made {
            return Ok(());
        }
        let (theirs, ours) = (&first.conf_state, &made.conf_state);
        Err(format!("{id} has another checkpoint at {} than others: members {ours:?}, {theirs:?}", made.index))
    }

    /// The highest index that anybody was told of: what is asked from now on must know it.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    pub(crate) fn acknowledged(&mut self, name: u64, index: u64, asked_after: u64) -> Result<(), String> {
        self.told = self.told.max(index);
        self.acknowledged.insert(name, index);
        if index <= asked_after {
            return Err(format!("{name} is done at {index}, but was asked for when {asked_after} was told already"));
        }
        Ok(())
    }

    pub(crate) fn refused(&mut self, name: u64) -> Result<(), String> {
        self.refused.insert(name);
        match self.done.get(&name) {
            Some(index) => Err(format!("{name} is done at {index}, but its client was told that nothing changed")),
            None => Ok(()),
        }
    }

    /// A read was answered from a state as of `applied`.
    pub(crate) fn read(&mut self, id: u64, applied: u64, asked_after: u64) -> Result<(), String> {
        if applied < asked_after {
            return Err(format!(
                "{id} answered a read as of entry {applied}; {asked_after} was told before it was asked"
            ));
        }
        self.told = self.told.max(applied);
        Ok(())
    }

    /// A leader of `term` gives work to an agent; true where the agent takes it.
    pub(crate) fn work(&mut self, term: u64, name: u64, ignores_fence: bool) -> Result<(), String> {
        let is_old = term < self.fence;
        if is_old && !ignores_fence {
            return Ok(());
        }
        if is_old {
            return Err(format!("an agent took work {name} of term {term} after work of term {}", self.fence));
        }
        self.fence = term;
        *self.worked.entry(name).or_default() += 1;
        Ok(())
    }

    /// All who were told that something is done find it in this state, where they were told.
    pub(crate) fn nothing_lost(&self, id: u64, names: &BTreeMap<u64, u64>) -> Result<(), String> {
        for (name, index) in &self.acknowledged {
            match names.get(name) {
                Some(at) if at <= index => {}
                Some(at) => return Err(format!("{name} was told at {index}, {id} has it at {at}")),
                None => return Err(format!("{name} was told as done at {index}, {id} lacks it")),
            }
        }
        Ok(())
    }

    pub(crate) fn highest_applied(&self) -> u64 {
        self.applied.last_key_value().map_or(0, |(index, _)| *index)
    }
}
