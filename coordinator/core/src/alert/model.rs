//! What an alert is.

use std::{fmt, str::FromStr};

use mainstay_common::{
    NodeId, Timestamp,
    state::{AlertState, Severity},
    text,
    unit::percent_floor,
};
use minicbor::{Decode, Encode};

/// A rule of the catalogue. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum RuleId {
    /// A filesystem runs out of space.
    #[n(0)]
    FsSpace,
}

impl RuleId {
    /// The whole catalogue.
    pub const ALL: &'static [Self] = &[Self::FsSpace];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FsSpace => "fs.space",
        }
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no rule's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rule: there is {known}", known = RuleId::ALL.iter().map(|rule| rule.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownRule(pub String);

impl FromStr for RuleId {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        Self::ALL.iter().find(|rule| rule.as_str() == text).copied().ok_or_else(|| UnknownRule(text.into()))
    }
}

/// Where a rule holds; shown as `fs.space/n1//data`. Ordered by node, so that all of one node stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct AlertId {
    /// On which machine.
    #[n(0)]
    pub node: NodeId,
    /// Which rule.
    #[n(1)]
    pub rule: RuleId,
    /// Of what: a mount's path, bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub target: Vec<u8>,
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.rule, self.node, text::exact(&self.target))
    }
}

/// What a filesystem tells of its space, in bytes as df counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Space {
    /// Used.
    #[n(0)]
    pub used: u64,
    /// What users can still fill.
    #[n(1)]
    pub available: u64,
}

impl Space {
    /// Used and available together: what df takes for the whole.
    #[must_use]
    pub fn whole(self) -> u128 {
        u128::from(self.used) + u128::from(self.available)
    }

    /// How full, rounded down so that 100 means full.
    #[must_use]
    pub fn percent_used(self) -> u8 {
        percent_floor(self.used, self.available).unwrap_or(0)
    }

    /// What is available, in percent of the whole; what levels are compared with.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    pub fn percent_available(self) -> f64 {
        if self.whole() == 0 { 0.0 } else { self.available as f64 * 100.0 / self.whole() as f64 }
    }
}

/// How far an alert got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Phase {
    /// The condition holds, not long enough yet.
    #[n(0)]
    Pending,
    /// It held long enough; receivers are told.
    #[n(1)]
    Firing,
}

/// An alert that is not over. Its marks are part of the state, so that no timer begins anew with another leader.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Alert {
    /// When the condition was first seen: with the id it names the episode.
    #[n(0)]
    pub since: Timestamp,
    /// Changes so far; what a proposal expects, so that one made of an older state is refused.
    #[n(1)]
    pub step: u32,
    /// How far it got.
    #[n(2)]
    pub phase: Phase,
    /// When it got there.
    #[n(3)]
    pub phase_since: Timestamp,
    /// The worst of the episode: an episode that was critical stays so until it is over.
    #[n(4)]
    pub severity: Severity,
    /// Since when the condition holds without a time of which nothing is known.
    #[n(5)]
    pub held_since: Timestamp,
    /// Since when it is critical.
    #[n(6)]
    pub critical_since: Option<Timestamp>,
    /// Since when it is gone.
    #[n(7)]
    pub clear_since: Option<Timestamp>,
    /// Since when nothing is known.
    #[n(8)]
    pub unknown_since: Option<Timestamp>,
    /// The reading that changed it last.
    #[n(9)]
    pub space: Space,
}

impl Alert {
    /// The word for how it stands.
    #[must_use]
    pub fn state(&self) -> AlertState {
        match (self.unknown_since, self.phase) {
            (Some(_), _) => AlertState::Unknown,
            (None, Phase::Pending) => AlertState::Pending,
            (None, Phase::Firing) => AlertState::Firing,
        }
    }

    /// Since when it stands so.
    #[must_use]
    pub fn state_since(&self) -> Timestamp {
        self.unknown_since.unwrap_or(self.phase_since)
    }
}

/// An alert at a certain point: what commands are about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Episode {
    /// Which alert.
    #[n(0)]
    pub alert: AlertId,
    /// Which of its episodes.
    #[n(1)]
    pub since: Timestamp,
    /// Changes that it had.
    #[n(2)]
    pub step: u32,
}

/// Why an alert is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum End {
    /// The condition is gone.
    #[n(0)]
    Cleared,
    /// The filesystem is not mounted there any more.
    #[n(1)]
    Gone,
    /// The node was removed.
    #[n(2)]
    NodeRemoved,
}

impl End {
    /// The words for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Gone => "no longer mounted",
            Self::NodeRemoved => "the node was removed",
        }
    }
}

/// An alert that is over, as the history keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Resolved {
    /// As it was when it ended.
    #[n(0)]
    pub alert: Alert,
    /// When that was.
    #[n(1)]
    pub at: Timestamp,
    /// Why.
    #[n(2)]
    pub end: End,
}

/// What receivers are told of, each at most once in an episode. In the order in which they may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Event {
    /// It began.
    #[n(0)]
    Fired,
    /// It became critical.
    #[n(1)]
    Escalated,
    /// It is over.
    #[n(2)]
    Resolved,
}

impl Event {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
        }
    }
}

/// What there is to tell, as it was at that moment: a message that is sent late or twice says the same.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Told {
    /// Of which alert.
    #[n(0)]
    pub alert: AlertId,
    /// Of which episode.
    #[n(1)]
    pub since: Timestamp,
    /// What happened.
    #[n(2)]
    pub event: Event,
    /// When.
    #[n(3)]
    pub at: Timestamp,
    /// How bad.
    #[n(4)]
    pub severity: Severity,
    /// The reading.
    #[n(5)]
    pub space: Space,
    /// Why it is over, where it is.
    #[n(6)]
    pub end: Option<End>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_rule_node_and_place() {
        let id = AlertId { node: "n1".parse().unwrap(), rule: RuleId::FsSpace, target: b"/data/\xff".to_vec() };
        assert_eq!(id.to_string(), "fs.space/n1//data/\\xff");
        assert_eq!("fs.spac".parse::<RuleId>().unwrap_err().to_string(), "\"fs.spac\" is no rule: there is fs.space");
    }

    #[test]
    fn percent_counts_as_df_does() {
        let space = Space { used: 909, available: 91 };
        assert_eq!(space.percent_used(), 90);
        assert!((space.percent_available() - 9.1).abs() < 1e-9);
        assert_eq!(Space { used: 0, available: 0 }.percent_used(), 0);
    }
}
