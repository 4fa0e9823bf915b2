//! `cluster status`.

use std::cmp::Ordering;

use mainstay_common::text::Shown;
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text},
    style::Tone,
    table::Column,
};

/// A replica of the coordinator.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReplicaRow {
    pub(crate) replica: Text,
    pub(crate) address: Text,
    pub(crate) role: Text,
    pub(crate) term: u64,
    pub(crate) applied_index: Option<u64>,
    pub(crate) lag_entries: Option<u64>,
    pub(crate) healthy: bool,
    /// Absent where the coordinator knows of none.
    pub(crate) generation: Option<u64>,
}

impl From<pb::ReplicaStanding> for ReplicaRow {
    fn from(row: pb::ReplicaStanding) -> Self {
        Self {
            replica: row.replica.into(),
            address: row.address.into(),
            role: row.role.into(),
            term: row.term,
            applied_index: row.applied_index,
            lag_entries: row.lag_entries,
            healthy: row.healthy,
            generation: Some(row.generation).filter(|generation| *generation > 0),
        }
    }
}

impl Row for ReplicaRow {
    type Order = ();
    const KEY: &'static [&'static str] = &["replica"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("REPLICA", 7, |row, _| Cell::text(&row.replica)),
        Column::state("STATE", |row: &Self, _| {
            if row.healthy { Cell::state(Tone::Good, "healthy") } else { Cell::state(Tone::Bad, "silent") }
        }),
        Column::text("ROLE", 8, |row, _| Cell::text(&row.role)),
        Column::text("ADDRESS", 16, |row, _| Cell::text(&row.address)),
        Column::number("TERM", |row, _| Cell::number(Some(row.term))),
        Column::number("APPLIED", |row, _| Cell::number(row.applied_index)),
        Column::number("LAG", |row, _| Cell::number(row.lag_entries)),
        Column::number("GENERATION", |row: &Self, _| Cell::number(row.generation)).wide(),
    ];

    fn name(&self) -> String {
        Shown::new(&self.replica).to_string()
    }

    /// The leader first.
    fn compare(&self, other: &Self, (): ()) -> Ordering {
        let leads = |row: &Self| row.role.0 == b"leader";
        leads(other).cmp(&leads(self)).then_with(|| self.replica.cmp(&other.replica))
    }
}
