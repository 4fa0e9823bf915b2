//! Rules: what the catalogue says, and what operators changed of it.

use std::{fmt, time::Duration};

use mainstay_common::text;
use minicbor::{Decode, Encode};

use super::{
    model::RuleId,
    quantity::{Floor, Level, Percent, Size, write_span},
};
use crate::{Table, pattern::Pattern};

/// How a rule judges one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Below this it is a warning.
    pub warning: Level,
    /// Below this it is critical.
    pub critical: Level,
    /// How long the condition must hold on fresh samples.
    pub hold: Duration,
    /// The same for what is critical.
    pub critical_hold: Duration,
    /// How far above the level it must be to count as gone.
    pub clear_margin: Percent,
    /// How long it must be gone.
    pub clear_hold: Duration,
}

const GIB: u64 = 1 << 30;

impl RuleId {
    /// What the catalogue says: alerting.md section 3. The levels of `fs.space` stand between node-mixin's (5 % and 3 %,
    /// late on small filesystems) and Netdata's (90 % and 98 % used, noisy on large ones).
    #[must_use]
    pub fn settings(self) -> Settings {
        match self {
            Self::FsSpace => Settings {
                warning: Level { percent: Some(Percent(1_000)), size: Some(Size(100 * GIB)), floor: None },
                critical: Level {
                    percent: Some(Percent(500)),
                    size: Some(Size(20 * GIB)),
                    floor: Some(Floor { below: Size(GIB), above: Size(8 * GIB) }),
                },
                hold: Duration::from_secs(600),
                critical_hold: Duration::from_secs(120),
                clear_margin: Percent(300),
                clear_hold: Duration::from_secs(600),
            },
        }
    }

    /// One sentence on what it watches.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::FsSpace => "Space that users can still fill on a local filesystem.",
        }
    }
}

/// Where a changed rule applies. Empty: everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Where {
    /// On these nodes.
    #[n(0)]
    pub node: Option<Pattern>,
    /// On these mounts.
    #[n(1)]
    pub mount: Option<Pattern>,
}

impl Where {
    /// Whether a place is meant.
    #[must_use]
    pub fn matches(&self, node: &str, mount: &str) -> bool {
        self.node.as_ref().is_none_or(|pattern| pattern.matches(node))
            && self.mount.as_ref().is_none_or(|pattern| pattern.matches(mount))
    }

    /// More keys come before fewer, exact ones before globs.
    fn rank(&self) -> (usize, usize) {
        let keys = [&self.node, &self.mount];
        let given = keys.iter().filter_map(|key| key.as_ref());
        (given.clone().count(), given.filter(|pattern| pattern.is_exact()).count())
    }

    /// Whether neither comes before the other although one place could be meant by both.
    #[must_use]
    pub fn ties_with(&self, other: &Self) -> bool {
        let meet = |a: &Option<Pattern>, b: &Option<Pattern>| match (a, b) {
            (Some(a), Some(b)) => a.meets(b),
            (None, _) | (_, None) => true,
        };
        self.rank() == other.rank() && meet(&self.node, &other.node) && meet(&self.mount, &other.mount)
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node, &self.mount) {
            (None, None) => f.write_str("everywhere"),
            (Some(node), None) => write!(f, "node={node}"),
            (None, Some(mount)) => write!(f, "mount={mount}"),
            (Some(node), Some(mount)) => write!(f, "node={node} mount={mount}"),
        }
    }
}

/// What an operator changed of a rule. What is not given stays as the catalogue has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Change {
    /// Another level for a warning.
    #[n(0)]
    pub warning: Option<Level>,
    /// Another level for critical.
    #[n(1)]
    pub critical: Option<Level>,
    /// Another hold.
    #[n(2)]
    #[cbor(with = "crate::codec::maybe_span", has_nil)]
    pub hold: Option<Duration>,
    /// Another hold for what is critical.
    #[n(3)]
    #[cbor(with = "crate::codec::maybe_span", has_nil)]
    pub critical_hold: Option<Duration>,
    /// Another margin.
    #[n(4)]
    pub clear_margin: Option<Percent>,
    /// How long it must be gone; as `hold` where only that is given.
    #[n(5)]
    #[cbor(with = "crate::codec::maybe_span", has_nil)]
    pub clear_hold: Option<Duration>,
}

impl Change {
    /// The settings with this change.
    #[must_use]
    pub fn on(&self, settings: Settings) -> Settings {
        Settings {
            warning: self.warning.unwrap_or(settings.warning),
            critical: self.critical.unwrap_or(settings.critical),
            hold: self.hold.unwrap_or(settings.hold),
            critical_hold: self.critical_hold.unwrap_or(settings.critical_hold),
            clear_margin: self.clear_margin.unwrap_or(settings.clear_margin),
            clear_hold: self.clear_hold.or(self.hold).unwrap_or(settings.clear_hold),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let mut part = |key: &str, value: Option<String>| parts.extend(value.map(|value| format!("{key}=\"{value}\"")));
        part("warning", self.warning.map(|level| level.to_string()));
        part("critical", self.critical.map(|level| level.to_string()));
        part("hold", self.hold.map(write_span));
        part("critical_hold", self.critical_hold.map(write_span));
        part("clear_margin", self.clear_margin.map(|margin| margin.to_string()));
        part("clear_hold", self.clear_hold.map(write_span));
        f.write_str(&if parts.is_empty() { "as the catalogue has it".into() } else { parts.join(" ") })
    }
}

/// Changed rules, by rule and place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub(crate) Table<(RuleId, Where), Change>);

impl Rules {
    /// How a rule judges a place, and where that was said; `None` where it is the catalogue's own.
    #[must_use]
    pub fn settings(&self, rule: RuleId, node: &str, mount: &[u8]) -> (Settings, Option<&Where>) {
        if self.0.is_empty() {
            return (rule.settings(), None);
        }
        let mount = text::exact(mount);
        let meant = self.0.iter().filter(|((of, place), _)| *of == rule && place.matches(node, &mount));
        match meant.max_by_key(|((_, place), _)| place.rank()) {
            Some(((_, place), change)) => (change.on(rule.settings()), Some(place)),
            None => (rule.settings(), None),
        }
    }

    /// Every change, by rule and place.
    pub fn iter(&self) -> impl Iterator<Item = (RuleId, &Where, &Change)> {
        self.0.iter().map(|((rule, place), change)| (*rule, place, change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_change_wins() {
        let mut rules = Rules::default();
        for (node, mount, percent) in [
            (None, None, 1),
            (Some("db*"), None, 2),
            (None, Some("/data"), 3),
            (Some("db*"), Some("/data"), 4),
            (Some("db1"), Some("/*"), 4),
            (Some("db1"), Some("/data"), 5),
        ] {
            let change = Change { clear_margin: Some(Percent(percent)), ..Change::default() };
            rules.0.insert((RuleId::FsSpace, place(node, mount)), change);
        }
        let margin = |node: &str, mount: &str| rules.settings(RuleId::FsSpace, node, mount.as_bytes()).0.clear_margin.0;
        assert_eq!(margin("web", "/"), 1);
        assert_eq!(margin("db2", "/"), 2);
        assert_eq!(margin("db2", "/srv/x"), 2);
        assert_eq!(margin("web", "/data"), 3);
        assert_eq!(margin("db2", "/data"), 4);
        assert_eq!(margin("db1", "/data"), 5);
    }

    #[test]
    fn a_tie_is_two_changes_of_one_rank_for_one_place() {
        let tie = |a: (Option<&str>, Option<&str>), b: (Option<&str>, Option<&str>)| {
            place(a.0, a.1).ties_with(&place(b.0, b.1))
        };
        assert!(tie((Some("db*"), None), (Some("*1"), None)));
        assert!(tie((Some("db1"), None), (None, Some("/data"))));
        assert!(tie((Some("db1"), Some("/*")), (Some("d*"), Some("/data"))));
        assert!(!tie((Some("db*"), None), (Some("web*"), None)));
        assert!(!tie((Some("db1"), None), (Some("db*"), None)));
        assert!(!tie((Some("db*"), Some("/data")), (Some("db*"), None)));
    }

    #[test]
    fn a_hold_is_the_clear_hold_too_unless_that_is_given() {
        let hour = Some(Duration::from_secs(3_600));
        let change = Change { hold: hour, ..Change::default() };
        assert_eq!(change.on(RuleId::FsSpace.settings()).clear_hold, Duration::from_secs(3_600));
        let change = Change { clear_hold: Some(Duration::ZERO), ..change };
        assert_eq!(change.on(RuleId::FsSpace.settings()).clear_hold, Duration::ZERO);
        assert_eq!(change.to_string(), "hold=\"1h\" clear_hold=\"0s\"");
    }

    fn place(node: Option<&str>, mount: Option<&str>) -> Where {
        let pattern = |text: &str| text.parse().unwrap();
        Where { node: node.map(pattern), mount: mount.map(pattern) }
    }
}
