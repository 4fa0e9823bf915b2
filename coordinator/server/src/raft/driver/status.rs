//! How a replica stands, for people and metrics.

use std::time::Duration;

use raft::StateRole;

use super::{Driver, Position, TICK};

/// What this replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides the order of entries.
    Leader,
    /// It follows, and votes.
    Follower,
    /// It follows without a vote.
    Learner,
    /// It asks for votes.
    Candidate,
}

impl Role {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Candidate => "candidate",
        }
    }
}

/// What a member is to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// It votes.
    Voter,
    /// It follows without a vote.
    Learner,
    /// It votes until a change of members that is under way is done.
    Outgoing,
}

/// A member as this replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// What it is.
    pub role: MemberRole,
    /// Up to where it has the leader's log; `None` where this replica does not lead.
    pub matched: Option<u64>,
    /// Whether it answered within two election timeouts; `None` where this replica does not lead.
    pub alive: Option<bool>,
}

/// How a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub id: u64,
    /// What it is.
    pub role: Role,
    /// The latest term it has seen.
    pub term: u64,
    /// Who leads as far as it knows.
    pub leader: Option<u64>,
    /// Up to where it knows entries to be committed.
    pub commit: u64,
    /// The last entry that is part of its state.
    pub applied: Position,
    /// The last entry of its log.
    pub last: Position,
    /// The newest checkpoint.
    pub checkpoint: Position,
    /// Everybody, by number.
    pub members: Vec<Member>,
    /// A change of members is under way.
    pub is_joint: bool,
    /// How long ago the leader was heard, by ticks; nothing at the leader itself, `None` where it never was.
    pub heard: Option<Duration>,
    /// How often it asked for votes since it started.
    pub campaigns: u64,
}

impl Driver {
    /// Writes that the disk was given and is not done with.
    #[must_use]
    pub fn writes_under_way(&self) -> usize {
        self.outstanding.count()
    }

    /// True where this replica leads, applied or not.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leads()
    }

    /// The term in which this replica leads, whatever is applied.
    #[must_use]
    pub fn leading(&self) -> Option<u64> {
        self.led
    }

    /// How this replica stands now.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let role = match raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower if raft.promotable() => Role::Follower,
            StateRole::Follower => Role::Learner,
        };
        let leads = role == Role::Leader;
        let member = |id| {
            let role = if self.conf_state.voters.contains(&id) {
                MemberRole::Voter
            } else if self.conf_state.learners.contains(&id) {
                MemberRole::Learner
            } else {
                MemberRole::Outgoing
            };
            let matched = raft.prs().get(id).filter(|_| leads).map(|progress| progress.matched);
            let alive = leads.then(|| id == self.config.id || self.peers.is_alive(id, self.now));
            Member { id, role, matched, alive }
        };
        Status {
            id: self.config.id,
            role,
            term: raft.term,
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: self.applied,
            last: Position { index: raft.raft_log.last_index(), term: raft.raft_log.last_term() },
            checkpoint: self.node.store().checkpoint(),
            members: self.conf_state.all().into_iter().map(member).collect(),
            is_joint: !self.conf_state.voters_outgoing.is_empty(),
            heard: self.heard.map(|heard| TICK * u32::try_from(self.now - heard).unwrap_or(u32::MAX)),
            campaigns: self.campaigns,
        }
    }
}
