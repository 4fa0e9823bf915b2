//! `receiver ls`.

use std::cmp::Ordering;

use mainstay_common::{Timestamp, text::Shown};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, rfc3339},
    style::Tone,
    table::Column,
};

/// Where messages go.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReceiverRow {
    pub(crate) name: Text,
    pub(crate) kind: Text,
    pub(crate) target: Text,
    pub(crate) allow_private_address: bool,
    pub(crate) owed: u64,
    pub(crate) delivered: u64,
    pub(crate) given_up: u64,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last_delivered_at: Option<Timestamp>,
    pub(crate) last_error: Text,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last_error_at: Option<Timestamp>,
}

impl From<pb::ReceiverRow> for ReceiverRow {
    fn from(row: pb::ReceiverRow) -> Self {
        Self {
            name: row.name.into(),
            kind: row.kind.into(),
            target: row.target.into(),
            allow_private_address: row.allow_private_address,
            owed: row.owed,
            delivered: row.delivered,
            given_up: row.given_up,
            last_delivered_at: row.last_delivered_ms.map(Timestamp),
            last_error: Text(row.last_error),
            last_error_at: row.last_error_ms.map(Timestamp),
        }
    }
}

impl ReceiverRow {
    /// What its last attempt came to.
    fn state(&self) -> (Tone, &'static str) {
        match (self.last_delivered_at, self.last_error_at) {
            (None, None) => (Tone::Idle, "unused"),
            (delivered, failed) if failed > delivered => (Tone::Bad, "failing"),
            _ => (Tone::Good, "ok"),
        }
    }
}

impl Row for ReceiverRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["name"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NAME", 10, |row, _| Cell::text(&row.name)),
        Column::text("KIND", 7, |row, _| Cell::text(&row.kind)),
        Column::state("STATE", |row: &Self, _| {
            let (tone, word) = row.state();
            Cell::state(tone, word)
        }),
        Column::number("OWED", |row, _| Cell::number(Some(row.owed))),
        Column::number("DELIVERED", |row, _| Cell::number(Some(row.delivered))),
        Column::number("GIVEN-UP", |row, _| Cell::number(Some(row.given_up))),
        Column::text("TARGET", 16, |row, _| Cell::text(&row.target)),
        Column::text("LAST-ERROR", 16, |row: &Self, _| {
            if row.last_error.0.is_empty() { Cell::none() } else { Cell::text(&row.last_error) }
        }),
    ];

    fn name(&self) -> String {
        Shown::new(&self.name).to_string()
    }

    /// Those that fail first.
    fn compare(&self, other: &Self, (): ()) -> Ordering {
        self.state().0.cmp(&other.state().0)
    }
}
