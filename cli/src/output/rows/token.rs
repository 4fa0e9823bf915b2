//! `token ls`.

use std::cmp::Ordering;

use mainstay_common::{Timestamp, text::Shown};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, largest_first, rfc3339},
    style::Tone,
    table::Column,
};

/// A join token; its secret is kept nowhere.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TokenRow {
    pub(crate) id: Text,
    pub(crate) role: Text,
    pub(crate) state: Text,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) uses_left: u32,
    /// Names of nodes that came in with it, with blanks between.
    pub(crate) admitted: Text,
    pub(crate) created_by: Text,
}

impl From<pb::TokenRow> for TokenRow {
    fn from(row: pb::TokenRow) -> Self {
        Self {
            id: row.id.into(),
            role: row.role.into(),
            state: row.state.into(),
            expires_at: Some(Timestamp(row.expires_at_ms)),
            uses_left: row.uses_left,
            admitted: row.admitted.join(" ").into(),
            created_by: row.created_by.into(),
        }
    }
}

impl TokenRow {
    fn tone(&self) -> Tone {
        if self.state.0 == b"active" { Tone::Good } else { Tone::Idle }
    }
}

impl Row for TokenRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["id"];
    const COLUMNS: &'static [Column<Self>] =
        &[
            Column::text("ID", 8, |row, _| Cell::text(&row.id)),
            Column::text("ROLE", 7, |row, _| Cell::text(&row.role)),
            Column::state("STATE", |row, _| Cell::state(row.tone(), &Shown::new(&row.state).to_string())),
            Column::text("EXPIRES", 12, |row, now| Cell::until(row.expires_at, now)),
            Column::number("USES-LEFT", |row, _| Cell::number(Some(row.uses_left))),
            Column::text("BY", 6, |row, _| Cell::text(&row.created_by)),
            Column::text("ADMITTED", 12, |row: &Self, _| {
                if row.admitted.0.is_empty() { Cell::none() } else { Cell::text(&row.admitted) }
            })
            .wide(),
        ];

    fn name(&self) -> String {
        Shown::new(&self.id).to_string()
    }

    /// Those that still count first, then the ones that expire last.
    fn compare(&self, other: &Self, (): ()) -> Ordering {
        self.tone().cmp(&other.tone()).then_with(|| largest_first(self.expires_at, other.expires_at))
    }
}
