//! Declarations: receivers, routes and rules as operators wish them, and how the state gets there.

mod check;
mod diff;

use std::collections::{BTreeMap, BTreeSet};

use mainstay_common::ReceiverName;
use minicbor::{Decode, Encode};

use crate::{
    State,
    alert::{Change as RuleChange, RuleId, Where},
    notify::{Matcher, Receiver},
};

pub use check::Contradiction;
pub use diff::{Changes, Step, diff};

/// Everything that was declared, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// By name.
    pub receivers: BTreeMap<ReceiverName, Receiver>,
    /// By what they are about.
    pub routes: BTreeMap<Matcher, BTreeSet<ReceiverName>>,
    /// By rule and place.
    pub rules: BTreeMap<(RuleId, Where), RuleChange>,
}

impl Declared {
    /// What the state holds.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let receivers = state.notifications.receivers().map(|(name, receiver, _)| (name.clone(), receiver.clone()));
        let routes = state.notifications.routes().map(|(matcher, who)| (matcher.clone(), who.clone()));
        let rules = state.alerts.rules.iter().map(|(rule, place, change)| ((rule, place.clone()), *change));
        Self { receivers: receivers.collect(), routes: routes.collect(), rules: rules.collect() }
    }
}

/// One thing that becomes different; without a value it is taken away. The numbers are the format on disk: never change
/// or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// A receiver.
    #[n(0)]
    Receiver(#[n(0)] ReceiverName, #[n(1)] Option<Receiver>),
    /// A route.
    #[n(1)]
    Route(#[n(0)] Matcher, #[n(1)] Option<BTreeSet<ReceiverName>>),
    /// A rule in a place.
    #[n(2)]
    Rule(#[n(0)] RuleId, #[n(1)] Where, #[n(2)] Option<RuleChange>),
}

/// Puts declarations into force: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Declare {
    /// What becomes different.
    #[n(0)]
    pub changes: Vec<Change>,
    /// The revision that the differences were taken from.
    #[n(1)]
    pub expecting: u64,
}

/// Why declarations did not come into force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Somebody else declared something meanwhile.
    #[error("the declarations changed meanwhile: they are at revision {now}, the plan was made of {expected}")]
    Revision {
        /// What the plan was made of.
        expected: u64,
        /// What it is.
        now: u64,
    },
    /// They contradict each other.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

impl Declare {
    /// Whether the state with these changes would make sense.
    ///
    /// # Errors
    /// [`Rejected`] says why not.
    pub fn check(&self, state: &State) -> Result<Declared, Rejected> {
        if self.expecting != state.declared_at {
            return Err(Rejected::Revision { expected: self.expecting, now: state.declared_at });
        }
        let mut declared = Declared::of(state);
        for change in &self.changes {
            match change.clone() {
                Change::Receiver(name, Some(receiver)) => drop(declared.receivers.insert(name, receiver)),
                Change::Receiver(name, None) => drop(declared.receivers.remove(&name)),
                Change::Route(matcher, Some(who)) => drop(declared.routes.insert(matcher, who)),
                Change::Route(matcher, None) => drop(declared.routes.remove(&matcher)),
                Change::Rule(rule, place, Some(change)) => drop(declared.rules.insert((rule, place), change)),
                Change::Rule(rule, place, None) => drop(declared.rules.remove(&(rule, place))),
            }
        }
        declared.check()?;
        Ok(declared)
    }
}
