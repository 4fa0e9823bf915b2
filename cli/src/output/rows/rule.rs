//! `rule ls`.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use mainstay_common::{text::Shown, time::span};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text},
    table::Column,
};

/// A rule of the catalogue, or one that a declaration narrowed and changed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RuleRow {
    pub(crate) name: Text,
    /// What it is narrowed to; empty: everything.
    #[serde(rename = "match")]
    pub(crate) narrowed: BTreeMap<String, String>,
    pub(crate) builtin: bool,
    pub(crate) warning: Text,
    pub(crate) critical: Text,
    pub(crate) hold_seconds: u64,
    pub(crate) critical_hold_seconds: u64,
    pub(crate) clear_margin: Text,
    pub(crate) clear_hold_seconds: u64,
    pub(crate) help: Text,
}

impl From<pb::RuleRow> for RuleRow {
    fn from(row: pb::RuleRow) -> Self {
        Self {
            name: row.name.into(),
            narrowed: row.r#match.into_iter().collect(),
            builtin: row.builtin,
            warning: row.warning.into(),
            critical: row.critical.into(),
            hold_seconds: row.hold_ms / 1_000,
            critical_hold_seconds: row.critical_hold_ms / 1_000,
            clear_margin: row.clear_margin.into(),
            clear_hold_seconds: row.clear_hold_ms / 1_000,
            help: row.help.into(),
        }
    }
}

impl RuleRow {
    /// `node=db* mount=/data`
    pub(crate) fn narrowed_text(&self) -> String {
        let pairs: Vec<String> = self.narrowed.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(" ")
    }
}

/// A level that is off is no unknown.
fn level(text: &Text) -> Cell {
    if text.0.is_empty() { Cell::none() } else { Cell::text(text) }
}

fn held(seconds: u64) -> Cell {
    Cell::text(&span(Duration::from_secs(seconds)))
}

impl Row for RuleRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["name", "match"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NAME", 12, |row, _| Cell::text(&row.name)),
        Column::text("MATCH", 12, |row: &Self, _| {
            if row.narrowed.is_empty() { Cell::none() } else { Cell::text(&row.narrowed_text()) }
        }),
        Column::text("WARNING", 10, |row, _| level(&row.warning)),
        Column::number("HOLD", |row, _| held(row.hold_seconds)),
        Column::text("CRITICAL", 10, |row, _| level(&row.critical)),
        Column::number("CRIT-HOLD", |row, _| held(row.critical_hold_seconds)),
        Column::text("MARGIN", 6, |row: &Self, _| level(&row.clear_margin)).wide(),
        Column::number("CLEAR", |row: &Self, _| held(row.clear_hold_seconds)).wide(),
    ];

    fn name(&self) -> String {
        Shown::new(&self.name).to_string()
    }

    /// The catalogue's own first, then what narrows it, widest first.
    fn compare(&self, other: &Self, (): ()) -> Ordering {
        let key = |row: &Self| (row.name.clone(), row.narrowed.len(), row.narrowed_text());
        key(self).cmp(&key(other))
    }
}
