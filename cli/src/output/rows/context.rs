//! `context ls`.

use std::cmp::Ordering;

use mainstay_common::{Timestamp, text::Shown};
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, rfc3339},
    style::Tone,
    table::Column,
};

/// A way into one cluster, as one person.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ContextRow {
    pub(crate) name: Text,
    /// The one in use.
    pub(crate) current: bool,
    pub(crate) cluster: Text,
    pub(crate) user: Text,
    pub(crate) role: Text,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) expires_at: Option<Timestamp>,
    /// host:port of every replica, with blanks between.
    pub(crate) addresses: Text,
    pub(crate) file: Text,
    /// Why the file cannot be used.
    pub(crate) error: Text,
}

impl ContextRow {
    fn expiry(&self, now: Timestamp) -> Cell {
        match self.expires_at {
            _ if !self.error.0.is_empty() => Cell::state(Tone::Bad, "unreadable"),
            Some(at) if at <= now => Cell::state_for(Tone::Bad, "expired", Some(at), now),
            at => Cell::until(at, now),
        }
    }
}

impl Row for ContextRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["name"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NAME", 12, |row, _| Cell::text(&row.name)),
        Column::text("CURRENT", 7, |row, _| if row.current { Cell::text("yes") } else { Cell::none() }),
        Column::text("CLUSTER", 10, |row, _| Cell::text(&row.cluster)),
        Column::text("USER", 8, |row, _| Cell::text(&row.user)),
        Column::text("ROLE", 8, |row, _| Cell::text(&row.role)),
        Column::state("EXPIRES", Self::expiry),
        Column::text("ADDRESSES", 14, |row: &Self, _| Cell::text(&row.addresses)).wide(),
        Column::text("FILE", 14, |row: &Self, _| Cell::text(&row.file)).wide(),
    ];

    fn name(&self) -> String {
        Shown::new(&self.name).to_string()
    }

    fn compare(&self, _other: &Self, (): ()) -> Ordering {
        Ordering::Equal
    }
}
