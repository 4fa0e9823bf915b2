//! What is said of an alert.

use mainstay_common::{state::Severity, text::Shown, unit};

use super::model::{Alert, AlertId, Space};

/// Columns that a path may take of a line.
const PATH_COLUMNS: usize = 60;

impl AlertId {
    /// Where it is, for people: `n1 /data`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{} {}", self.node, Shown::new(&self.target).cut(PATH_COLUMNS))
    }
}

impl Space {
    /// How full, for people: `91 % full, 9.00 GiB left of 100 GiB`.
    #[must_use]
    pub fn shown(self) -> String {
        let whole = u64::try_from(self.whole()).unwrap_or(u64::MAX);
        let (left, whole) = (unit::bytes(self.available), unit::bytes(whole));
        format!("{} % full, {left} left of {whole}", self.percent_used())
    }

    /// What the rule looks at, for programs: the available percent, with one digit behind the point.
    #[must_use]
    pub fn value(self) -> f64 {
        (self.percent_available() * 10.0).round() / 10.0
    }
}

impl Alert {
    /// One line: how bad, where, what. In the order that alerting.md gives all texts.
    #[must_use]
    pub fn summary(&self, id: &AlertId) -> String {
        summary(id, self.severity, self.space)
    }
}

pub(crate) fn summary(id: &AlertId, severity: Severity, space: Space) -> String {
    let word = match severity {
        Severity::Warning => "WARN",
        Severity::Critical => "CRIT",
    };
    format!("{word} {} {}", id.place(), space.shown())
}
