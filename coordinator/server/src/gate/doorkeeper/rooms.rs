//! The rooms of the house, and who is in each of them.

use std::{collections::BTreeSet, time::Instant};

use mainstay_common::{NodeId, ReplicaId, UserName};

use super::{
    Block,
    crowd::Crowd,
    guest::{Id, Place},
};

/// How many are in each place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) strangers: usize,
    pub(crate) agents: usize,
    pub(crate) people: usize,
}

#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// The silent and the waiting.
    pub(super) lobby: Crowd<Block>,
    pub(super) silent: Crowd<Block>,
    /// By turn.
    pub(super) waiting: BTreeSet<(Instant, Id)>,
    pub(super) seated: Crowd<Block>,
    pub(super) agents: Crowd<NodeId>,
    pub(super) people: Crowd<UserName>,
    pub(super) replicas: Crowd<ReplicaId>,
}

impl Rooms {
    pub(super) fn census(&self) -> Census {
        let strangers = self.lobby.len() + self.seated.len();
        Census { strangers, agents: self.agents.len(), people: self.people.len() }
    }

    pub(super) fn enter(&mut self, id: Id, block: Block, place: &Place) {
        match place {
            Place::Silent => {
                self.lobby.join(block, id);
                self.silent.join(block, id);
            }
            Place::Waiting(turn) => {
                self.lobby.join(block, id);
                self.waiting.insert((*turn, id));
            }
            Place::Seated(_) => self.seated.join(block, id),
            Place::Agent(node) => self.agents.join(node.clone(), id),
            Place::Person(name) => self.people.join(name.clone(), id),
            Place::Replica(replica) => self.replicas.join(replica.clone(), id),
            Place::Gone => {}
        }
    }

    pub(super) fn leave(&mut self, id: Id, block: Block, place: &Place) {
        match place {
            Place::Silent => {
                self.lobby.leave(block, id);
                self.silent.leave(block, id);
            }
            Place::Waiting(turn) => {
                self.lobby.leave(block, id);
                self.waiting.remove(&(*turn, id));
            }
            Place::Seated(_) => self.seated.leave(block, id),
            Place::Agent(node) => self.agents.leave(node.clone(), id),
            Place::Person(name) => self.people.leave(name.clone(), id),
            Place::Replica(replica) => self.replicas.leave(replica.clone(), id),
            Place::Gone => {}
        }
    }
}
