//! `audit`.

use std::cmp::Ordering;

use mainstay_common::Timestamp;
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, rfc3339},
    table::Column,
};

/// Who did what, when, from where, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AuditRow {
    pub(crate) index: u64,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) at: Option<Timestamp>,
    pub(crate) actor: Text,
    pub(crate) from: Text,
    pub(crate) action: Text,
    pub(crate) object: Text,
    pub(crate) outcome: Text,
    pub(crate) detail: Text,
    /// The replica that took it in; unknown for entries of earlier versions.
    pub(crate) through: Option<Text>,
}

impl From<pb::AuditRow> for AuditRow {
    fn from(row: pb::AuditRow) -> Self {
        Self {
            index: row.index,
            at: Some(Timestamp(row.at_ms)),
            actor: row.actor.into(),
            from: row.from.into(),
            action: row.action.into(),
            object: row.object.into(),
            outcome: row.outcome.into(),
            detail: Text(row.detail),
            through: Some(row.through).filter(|replica| !replica.is_empty()).map(Text::from),
        }
    }
}

fn or_none(text: &Text) -> Cell {
    if text.0.is_empty() { Cell::none() } else { Cell::text(text) }
}

impl Row for AuditRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["index"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::state("AT", |row: &Self, _| {
            row.at.map_or_else(Cell::unknown, |at| Cell::text(at.to_string().as_str()))
        }),
        Column::text("ACTOR", 12, |row, _| Cell::text(&row.actor)),
        Column::text("ACTION", 12, |row, _| Cell::text(&row.action)),
        Column::text("OBJECT", 12, |row, _| or_none(&row.object)),
        Column::text("OUTCOME", 12, |row, _| Cell::text(&row.outcome)),
        Column::text("FROM", 9, |row: &Self, _| or_none(&row.from)).wide(),
        Column::text("THROUGH", 7, |row: &Self, _| row.through.as_ref().map_or_else(Cell::unknown, Cell::text)).wide(),
        Column::number("INDEX", |row: &Self, _| Cell::number(Some(row.index))).wide(),
        Column::text("DETAIL", 12, |row: &Self, _| or_none(&row.detail)).wide(),
    ];

    fn name(&self) -> String {
        self.index.to_string()
    }

    /// In the order in which it was decided.
    fn compare(&self, other: &Self, (): ()) -> Ordering {
        self.index.cmp(&other.index)
    }
}
