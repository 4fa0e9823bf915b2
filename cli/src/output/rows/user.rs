//! `user ls`.

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

/// A person with a certificate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct UserRow {
    pub(crate) name: Text,
    pub(crate) role: Text,
    pub(crate) state: Text,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) added_at: Option<Timestamp>,
    pub(crate) added_by: Text,
}

impl From<pb::UserRow> for UserRow {
    fn from(row: pb::UserRow) -> Self {
        Self {
            name: row.name.into(),
            role: row.role.into(),
            state: row.state.into(),
            added_at: Some(Timestamp(row.added_at_ms)),
            added_by: row.added_by.into(),
        }
    }
}

impl UserRow {
    fn tone(&self) -> Tone {
        if self.state.0 == b"active" { Tone::Good } else { Tone::Idle }
    }
}

impl Row for UserRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["name"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NAME", 12, |row, _| Cell::text(&row.name)),
        Column::text("ROLE", 8, |row, _| Cell::text(&row.role)),
        Column::state("STATE", |row, _| Cell::state(row.tone(), &Shown::new(&row.state).to_string())),
        Column::number("ADDED", |row, now| Cell::age(row.added_at, now)),
        Column::text("BY", 6, |row, _| Cell::text(&row.added_by)),
    ];

    fn name(&self) -> String {
        Shown::new(&self.name).to_string()
    }

    /// Those who may come in first.
    fn compare(&self, other: &Self, (): ()) -> Ordering {
        self.tone().cmp(&other.tone())
    }
}
