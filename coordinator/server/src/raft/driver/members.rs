//! Who belongs to the group, and how that may change: one change at a time, and never to what nobody could decide in.

use std::collections::{BTreeMap, BTreeSet};

use raft::{
    ProgressTracker,
    eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2},
};

use super::patience::ELECTION_TICKS;
use crate::raft::store::ConfState;

/// A peer counts as alive for so long after its last answer, in ticks: two election timeouts.
const ALIVE_TICKS: u64 = 2 * ELECTION_TICKS as u64;
/// A learner may be so many entries behind what is committed to become a voter.
const MAY_LAG: u64 = 100;
/// It has to be so for this long, in ticks: an election timeout.
const STEADY_TICKS: u64 = ELECTION_TICKS as u64;
/// The leader promotes it by itself after this long: until then somebody may want it in a voter's place.
const PROMOTE_TICKS: u64 = 3 * STEADY_TICKS;

/// How the group shall change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new replica follows, without a vote. When it has caught up, the leader makes it a voter by itself.
    Add(u64),
    /// A learner gets a vote.
    Promote(u64),
    /// A replica goes for good: its id is never used again.
    Remove(u64),
    /// A learner takes a voter's place, in one step.
    Replace {
        /// The voter that goes.
        remove: u64,
        /// The learner that gets its vote.
        promote: u64,
    },
}

/// Why the group does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Only a leader changes members.
    #[error("this replica does not lead")]
    NotLeader(Option<u64>),
    /// Another change, or the leader's first entry, is not done yet.
    #[error("another change of the members is not done yet: try again in a moment")]
    Pending,
    /// It is a member already.
    #[error("replica {0} is a member already")]
    Member(u64),
    /// It is no member.
    #[error("replica {0} is no member")]
    NoMember(u64),
    /// It is no learner that could be promoted.
    #[error("replica {0} is no learner")]
    NoLearner(u64),
    /// It does not know enough yet, or does not answer.
    #[error("replica {0} has not caught up yet")]
    Behind(u64),
    /// A leader never removes itself: in the end nobody would lead.
    #[error("replica {0} leads: transfer leadership first")]
    Leads(u64),
    /// Without it nobody could decide.
    #[error("replica {0} is the last one that decides")]
    Last(u64),
    /// With the replicas that are alive no majority of the old or the new members could decide.
    #[error("only {alive} of {voters} deciding replicas would be alive: a majority has to be, before and after")]
    NoMajority {
        /// Those that answer.
        alive: usize,
        /// Those that decide.
        voters: usize,
    },
    /// Another leader's entry took the place of the change.
    #[error("another leader came in between: look at the members, then try again")]
    Overtaken,
}

/// What the leader knows of its peers besides what Raft does.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// The tick of the last answer.
    heard: BTreeMap<u64, u64>,
    /// Since when a learner has been close behind.
    close: BTreeMap<u64, u64>,
}

impl Peers {
    pub(super) fn heard(&mut self, from: u64, now: u64) {
        self.heard.insert(from, now);
    }

    /// Leadership begins or ends: what was heard before does not count.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_alive(&self, id: u64, now: u64) -> bool {
        self.heard.get(&id).is_some_and(|heard| now < heard + ALIVE_TICKS)
    }

    /// Another tick: which learners have caught up.
    pub(super) fn watch(&mut self, progress: &ProgressTracker, commit: u64, now: u64) -> Vec<u64> {
        let learners = progress.conf().learners();
        let mut caught_up = Vec::new();
        let mut ids: Vec<u64> = learners.iter().copied().collect();
        ids.sort_unstable();
        self.close.retain(|id, _| ids.contains(id));
        for id in ids {
            let matched = progress.get(id).map_or(0, |progress| progress.matched);
            if matched == 0 || matched + MAY_LAG < commit || !self.is_alive(id, now) {
                self.close.remove(&id);
            } else if now >= *self.close.entry(id).or_insert(now) + PROMOTE_TICKS {
                caught_up.push(id);
            }
        }
        caught_up
    }

    fn has_caught_up(&self, id: u64, now: u64) -> bool {
        self.close.get(&id).is_some_and(|since| now >= since + STEADY_TICKS) && self.is_alive(id, now)
    }

    /// Whether the leader `own` may make this change, and how the crate writes it.
    pub(super) fn check(
        &self,
        own: u64,
        members: &ConfState,
        change: Change,
        now: u64,
    ) -> Result<ConfChangeV2, ChangeRefused> {
        let voter = |id: u64| members.voters.contains(&id);
        let learner = |id: u64| members.learners.contains(&id);
        let mut after: BTreeSet<u64> = members.voters.iter().copied().collect();
        let promotable = |id: u64| match (learner(id), self.has_caught_up(id, now)) {
            (false, _) => Err(ChangeRefused::NoLearner(id)),
            (true, false) => Err(ChangeRefused::Behind(id)),
            (true, true) => Ok(()),
        };
        let steps = match change {
            Change::Add(id) if voter(id) || learner(id) => return Err(ChangeRefused::Member(id)),
            Change::Add(id) => vec![(ConfChangeType::AddLearnerNode, id)],
            Change::Promote(id) => {
                promotable(id)?;
                after.insert(id);
                vec![(ConfChangeType::AddNode, id)]
            }
            Change::Remove(id) if !voter(id) && !learner(id) => return Err(ChangeRefused::NoMember(id)),
            Change::Remove(id) if voter(id) && after.len() == 1 => return Err(ChangeRefused::Last(id)),
            Change::Remove(id) if id == own => return Err(ChangeRefused::Leads(id)),
            Change::Remove(id) => {
                after.remove(&id);
                vec![(ConfChangeType::RemoveNode, id)]
            }
            Change::Replace { remove, .. } if !voter(remove) => return Err(ChangeRefused::NoMember(remove)),
            Change::Replace { remove, .. } if remove == own => return Err(ChangeRefused::Leads(remove)),
            Change::Replace { remove, promote } => {
                promotable(promote)?;
                after.remove(&remove);
                after.insert(promote);
                vec![(ConfChangeType::AddNode, promote), (ConfChangeType::RemoveNode, remove)]
            }
        };
        self.majority(own, members.voters.iter().copied(), now)?;
        self.majority(own, after.into_iter(), now)?;
        Ok(written(steps))
    }

    fn majority(&self, own: u64, voters: impl Iterator<Item = u64>, now: u64) -> Result<(), ChangeRefused> {
        let alive: Vec<_> = voters.map(|id| id == own || self.is_alive(id, now)).collect();
        let (voters, alive) = (alive.len(), alive.into_iter().filter(|alive| *alive).count());
        if alive > voters / 2 { Ok(()) } else { Err(ChangeRefused::NoMajority { alive, voters }) }
    }
}

fn written(steps: Vec<(ConfChangeType, u64)>) -> ConfChangeV2 {
    let single = |(change_type, node_id)| ConfChangeSingle { change_type, node_id, ..ConfChangeSingle::default() };
    let mut change = ConfChangeV2::default();
    // More than one step goes through a joint configuration, which ends by itself.
    change.set_transition(ConfChangeTransition::Auto);
    change.set_changes(steps.into_iter().map(single).collect());
    change
}
