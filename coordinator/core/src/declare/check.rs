//! What declarations may not say together.

use mainstay_common::ReceiverName;

use super::Declared;
use crate::{
    alert::{RuleId, Where},
    notify::Matcher,
};

/// Things of one kind that may be declared.
const MAX: usize = 500;

/// Why declarations make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Nobody could say which counts.
    #[error(
        "two declarations of {rule} are equally specific and can be about one place: \"{one}\" and \"{other}\"; name the node or the mount exactly in one of them"
    )]
    Tie {
        /// Of which rule.
        rule: RuleId,
        /// The one.
        one: Where,
        /// The other.
        other: Where,
    },
    /// A route leads nowhere.
    #[error("the route for {route} names receiver {receiver}, which is not declared")]
    Receiver {
        /// Which route.
        route: Matcher,
        /// Which receiver.
        receiver: ReceiverName,
    },
    /// A route without anybody.
    #[error("the route for {0} names no receiver")]
    Nobody(Matcher),
    /// It could resolve before it was critical, and so on.
    #[error("{rule} {place}: critical is above warning, so it would be critical without ever being a warning")]
    Levels {
        /// Of which rule.
        rule: RuleId,
        /// Where.
        place: Where,
    },
    /// Too many.
    #[error("more than {MAX} {0}")]
    TooMany(&'static str),
}

impl Declared {
    /// Whether everything fits together.
    ///
    /// # Errors
    /// The first [`Contradiction`] found.
    pub fn check(&self) -> Result<(), Contradiction> {
        let counts = [("receivers", self.receivers.len()), ("routes", self.routes.len()), ("rules", self.rules.len())];
        if let Some((noun, _)) = counts.into_iter().find(|(_, count)| *count > MAX) {
            return Err(Contradiction::TooMany(noun));
        }
        for (route, receivers) in &self.routes {
            if receivers.is_empty() {
                return Err(Contradiction::Nobody(route.clone()));
            }
            if let Some(receiver) = receivers.iter().find(|name| !self.receivers.contains_key(*name)) {
                return Err(Contradiction::Receiver { route: route.clone(), receiver: receiver.clone() });
            }
        }
        for (at, ((rule, place), change)) in self.rules.iter().enumerate() {
            let tied = |(of, other): &&(RuleId, Where)| of == rule && place.ties_with(other);
            if let Some((_, other)) = self.rules.keys().skip(at + 1).find(tied) {
                return Err(Contradiction::Tie { rule: *rule, one: place.clone(), other: other.clone() });
            }
            let settings = change.on(rule.settings());
            let above = |a: Option<u64>, b: Option<u64>| matches!((a, b), (Some(a), Some(b)) if a > b);
            let percent = |level: crate::alert::quantity::Level| level.percent.map(|percent| percent.0.into());
            let size = |level: crate::alert::quantity::Level| level.size.map(|size| size.0);
            let (warning, critical) = (settings.warning, settings.critical);
            if above(percent(critical), percent(warning)) || above(size(critical), size(warning)) {
                return Err(Contradiction::Levels { rule: *rule, place: place.clone() });
            }
        }
        Ok(())
    }
}
