//! What is between the state and what is wished.

use std::{collections::BTreeMap, fmt};

use super::{Change, Declare, Declared};
use crate::State;

/// One difference, for a person: what it is called, what is there, what is wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// For example `receiver ops`.
    pub what: String,
    /// As it is; `None` where there is none.
    pub before: Option<String>,
    /// As it will be; `None` where it goes.
    pub after: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {}: {after}", self.what),
            (Some(before), None) => write!(f, "- {}: {before}", self.what),
            // A secret may have changed behind what is shown.
            (Some(before), Some(after)) if before == after => write!(f, "~ {}: {after} (its URL)", self.what),
            (Some(before), Some(after)) => write!(f, "~ {}: {before} -> {after}", self.what),
            (None, None) => write!(f, "  {}", self.what),
        }
    }
}

/// All differences, for the log and for people, in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The command that makes them.
    pub declare: Declare,
    /// The same for people.
    pub steps: Vec<Step>,
}

/// What has to change. What is there and not wished stays, unless `prune` says that it goes.
#[must_use]
pub fn diff(state: &State, wished: &Declared, prune: bool) -> Changes {
    let there = Declared::of(state);
    let mut found = Found { prune, changes: Vec::new(), steps: Vec::new() };
    found.table(
        (&there.receivers, &wished.receivers),
        |name| format!("receiver {name}"),
        ToString::to_string,
        |name, to| Change::Receiver(name.clone(), to.cloned()),
    );
    found.table(
        (&there.routes, &wished.routes),
        |matcher| format!("route {matcher}"),
        |who| who.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        |matcher, to| Change::Route(matcher.clone(), to.cloned()),
    );
    found.table(
        (&there.rules, &wished.rules),
        |(rule, place)| format!("rule {rule} {place}"),
        ToString::to_string,
        |(rule, place), to| Change::Rule(*rule, place.clone(), to.copied()),
    );
    Changes { declare: Declare { changes: found.changes, expecting: state.declared_at }, steps: found.steps }
}

struct Found {
    prune: bool,
    changes: Vec<Change>,
    steps: Vec<Step>,
}

impl Found {
    fn table<K: Ord, V: PartialEq>(
        &mut self,
        (there, wished): (&BTreeMap<K, V>, &BTreeMap<K, V>),
        name: impl Fn(&K) -> String,
        words: impl Fn(&V) -> String,
        change: impl Fn(&K, Option<&V>) -> Change,
    ) {
        for (key, after) in wished {
            let before = there.get(key);
            if before != Some(after) {
                self.changes.push(change(key, Some(after)));
                self.steps.push(Step { what: name(key), before: before.map(&words), after: Some(words(after)) });
            }
        }
        for (key, before) in there.iter().filter(|(key, _)| self.prune && !wished.contains_key(*key)) {
            self.changes.push(change(key, None));
            self.steps.push(Step { what: name(key), before: Some(words(before)), after: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mainstay_common::{ReceiverName, Timestamp};

    use super::*;
    use crate::{
        Actor, Command, Entry, Origin, Rejected,
        alert::{Change as RuleChange, RuleId, Where},
        cluster::Founding,
        declare::{self, Contradiction},
        notify::{Address, Matcher, Receiver, Webhook},
    };

    #[test]
    fn differences_are_shown_applied_and_then_gone() {
        let mut state = state();
        let wished = declared(&[("ops", "https://a.example/s3cret")], &[(Some("db*"), None, "15%")]);
        let changes = diff(&state, &wished, false);
        let lines: Vec<String> = changes.steps.iter().map(ToString::to_string).collect();
        let expected = ["+ receiver ops: webhook https://a.example/…", "+ rule fs.space node=db*: warning=\"15%\""];
        assert_eq!(lines, expected);
        apply(&mut state, 5, changes.declare).unwrap();
        assert_eq!(Declared::of(&state), wished);
        assert!(diff(&state, &wished, true).steps.is_empty());

        let other = declared(&[("ops", "https://a.example/another")], &[]);
        let lines: Vec<String> = diff(&state, &other, true).steps.iter().map(ToString::to_string).collect();
        let expected =
            ["~ receiver ops: webhook https://a.example/… (its URL)", "- rule fs.space node=db*: warning=\"15%\""];
        assert_eq!(lines, expected);
        assert_eq!(diff(&state, &other, false).steps.len(), 1, "what is not mentioned stays");
    }

    #[test]
    fn two_people_do_not_overwrite_each_other() {
        let mut state = state();
        let one = diff(&state, &declared(&[("ops", "https://a.example/")], &[]), false).declare;
        let other = diff(&state, &declared(&[("dev", "https://b.example/")], &[]), true).declare;
        apply(&mut state, 7, one).unwrap();
        let refused = apply(&mut state, 8, other);
        assert_eq!(refused, Err(Rejected::Declare(declare::Rejected::Revision { expected: 0, now: 7 })));
    }

    #[test]
    fn a_tie_names_both() {
        let tied = declared(&[], &[(Some("db*"), None, "15%"), (Some("*1"), None, "20%")]);
        let error = tied.check().unwrap_err();
        assert!(matches!(error, Contradiction::Tie { .. }));
        assert!(error.to_string().contains("\"node=*1\" and \"node=db*\""), "{error}");
        let mut state = state();
        let declare = diff(&state, &tied, false).declare;
        let refused = apply(&mut state, 1, declare);
        assert!(matches!(refused, Err(Rejected::Declare(declare::Rejected::Contradiction(_)))));
    }

    #[test]
    fn a_route_leads_to_somebody() {
        let mut wished = declared(&[("ops", "https://a.example/")], &[]);
        let who = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<ReceiverName>>();
        wished.routes.insert(Matcher::default(), who(&["ops", "opps"]));
        assert!(wished.check().unwrap_err().to_string().contains("names receiver opps, which is not declared"));
        wished.routes.insert(Matcher::default(), who(&[]));
        assert!(matches!(wished.check(), Err(Contradiction::Nobody(_))));
    }

    #[test]
    fn critical_is_worse_than_a_warning() {
        assert!(matches!(declared(&[], &[(None, None, "4%")]).check(), Err(Contradiction::Levels { .. })));
        assert_eq!(declared(&[], &[(None, None, "5%")]).check(), Ok(()));
    }

    fn declared(receivers: &[(&str, &str)], rules: &[(Option<&str>, Option<&str>, &str)]) -> Declared {
        let webhook = |url: &str| Webhook { address: Address::Url(url.into()), allow_private_address: false };
        let receivers = receivers.iter().map(|(name, url)| (name.parse().unwrap(), Receiver::Webhook(webhook(url))));
        let rule = |(node, mount, warning): &(Option<&str>, Option<&str>, &str)| {
            let pattern = |text: &str| text.parse().unwrap();
            let change = RuleChange { warning: Some(warning.parse().unwrap()), ..RuleChange::default() };
            ((RuleId::FsSpace, Where { node: node.map(pattern), mount: mount.map(pattern) }), change)
        };
        Declared { receivers: receivers.collect(), routes: BTreeMap::new(), rules: rules.iter().map(rule).collect() }
    }

    fn apply(state: &mut State, index: u64, declare: Declare) -> Result<crate::Consequence, Rejected> {
        let command = Command::Declare(declare);
        let entry = Entry {
            at: Timestamp(0),
            actor: Actor::Root,
            from: Origin::Socket,
            request: None,
            command,
            asked: None,
            through: None,
        };
        state.apply(index, &entry)
    }

    fn state() -> State {
        State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        })
    }
}
