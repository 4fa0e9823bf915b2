//! `alert ls`.

use std::cmp::Ordering;

use clap::ValueEnum;
use mainstay_common::{
    Timestamp,
    state::{AlertState, Severity},
    text::Shown,
};
use mainstay_proto::v1 as pb;
use serde::{Serialize, Serializer};

use crate::output::{
    cell::Cell,
    row::{Row, Text, rfc3339, rounded},
    style::Tone,
    table::Column,
};

/// What `alert ls --sort` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlertOrder {
    /// Worst first
    #[default]
    Severity,
    /// Newest first
    Since,
    /// By node
    Node,
}

/// One place where a rule holds, or held.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AlertRow {
    pub(crate) id: Text,
    pub(crate) rule: Text,
    #[serde(serialize_with = "word")]
    pub(crate) severity: Option<Severity>,
    pub(crate) node: Text,
    pub(crate) target: Text,
    #[serde(serialize_with = "word")]
    pub(crate) state: Option<AlertState>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) since: Option<Timestamp>,
    /// What the rule looks at: of fs.space the available percent.
    pub(crate) value: Option<f64>,
    #[serde(skip)]
    pub(crate) unit: Text,
    pub(crate) summary: Text,
    pub(crate) acked_by: Text,
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn word<T: std::fmt::Display, S: Serializer>(state: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match state {
        Some(state) => serializer.collect_str(state),
        // A word of a newer version.
        None => serializer.serialize_none(),
    }
}

impl From<pb::AlertRow> for AlertRow {
    fn from(row: pb::AlertRow) -> Self {
        Self {
            id: row.id.into(),
            rule: row.rule.into(),
            severity: Severity::from_number(row.severity),
            node: row.node.into(),
            target: Text(row.target),
            state: AlertState::from_number(row.state),
            since: Some(Timestamp(row.since_ms)),
            value: row.value.map(|value| rounded(value, 3)),
            unit: row.unit.into(),
            summary: Text(row.summary),
            acked_by: row.acked_by.into(),
        }
    }
}

impl AlertRow {
    /// How it stands, and since when.
    pub(crate) fn state_cell(&self, now: Timestamp) -> Cell {
        let word = self.state.map_or("?", AlertState::as_str);
        Cell::state_for(self.tone(), word, self.since, now)
    }

    /// How bad it is while it fires.
    pub(crate) fn tone(&self) -> Tone {
        match (self.state, self.severity) {
            (Some(AlertState::Firing), Some(Severity::Critical)) => Tone::Bad,
            (Some(AlertState::Firing), Some(Severity::Warning) | None) => Tone::Warning,
            (Some(AlertState::Pending | AlertState::Acked), _) => Tone::Busy,
            (Some(AlertState::Resolved), _) => Tone::Good,
            (Some(AlertState::Unknown) | None, _) => Tone::Unknown,
        }
    }

    /// warning, critical.
    pub(crate) fn severity_word(&self) -> &'static str {
        self.severity.map_or("?", Severity::as_str)
    }
}

impl Row for AlertRow {
    type Order = AlertOrder;
    const KEY: &'static [&'static str] = &["id"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("RULE", 12, |row, _| Cell::text(&row.rule)),
        Column::text("NODE", 8, |row, _| Cell::text(&row.node)),
        Column::text(
            "TARGET",
            12,
            |row: &Self, _| {
                if row.target.0.is_empty() { Cell::none() } else { Cell::text(&row.target) }
            },
        ),
        Column::state("STATE", Self::state_cell),
        Column::text("SEVERITY", 8, |row, _| Cell::text(row.severity_word())),
        Column::number("VALUE", |row: &Self, _| {
            let value = row.value.map(|value| format!("{value:.1}{}", Shown::new(&row.unit)));
            value.map_or_else(Cell::unknown, |value| Cell::text(&value))
        }),
        Column::text("SUMMARY", 20, |row: &Self, _| Cell::text(&row.summary)).wide(),
    ];

    fn name(&self) -> String {
        Shown::new(&self.id).to_string()
    }

    fn compare(&self, other: &Self, order: AlertOrder) -> Ordering {
        match order {
            AlertOrder::Severity => self.tone().cmp(&other.tone()).then_with(|| other.since.cmp(&self.since)),
            AlertOrder::Since => other.since.cmp(&self.since),
            AlertOrder::Node => self.node.cmp(&other.node),
        }
    }
}
