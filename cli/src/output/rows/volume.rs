//! `volume ls`.

use std::cmp::Ordering;

use mainstay_common::{Timestamp, text::Shown};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, largest_first, rfc3339},
    table::Column,
};

/// A container volume.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct VolumeRow {
    pub(crate) node: Text,
    pub(crate) name: Text,
    pub(crate) driver: Text,
    pub(crate) size_bytes: Option<u64>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) measured_at: Option<Timestamp>,
    pub(crate) in_use: Option<bool>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) read_at: Option<Timestamp>,
}

/// What `volume ls --sort` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum VolumeOrder {
    /// Largest first
    #[default]
    #[value(alias = "used")]
    Size,
    /// Measured longest ago first
    Measured,
    /// By name
    Name,
    /// By node and name
    Node,
}

impl From<pb::VolumeRow> for VolumeRow {
    fn from(row: pb::VolumeRow) -> Self {
        Self {
            node: row.node.into(),
            name: Text(row.name),
            driver: row.driver.into(),
            size_bytes: row.size_bytes,
            measured_at: row.measured_at_ms.map(Timestamp),
            in_use: row.in_use,
            read_at: row.read_at_ms.map(Timestamp),
        }
    }
}

impl Row for VolumeRow {
    type Order = VolumeOrder;
    const KEY: &'static [&'static str] = &["node", "name"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NODE", 8, |row, _| Cell::text(&row.node)),
        Column::text("NAME", 16, |row, _| Cell::text(&row.name)),
        Column::number("SIZE", |row, _| Cell::bytes(row.size_bytes)),
        Column::number("MEASURED", |row, now| Cell::age(row.measured_at, now)),
        Column::text("IN-USE", 6, |row, _| {
            row.in_use.map_or_else(Cell::unknown, |in_use| Cell::text(if in_use { "yes" } else { "no" }))
        }),
        Column::text("DRIVER", 6, |row: &Self, _| Cell::text(&row.driver)).wide(),
    ];

    fn name(&self) -> String {
        format!("{}/{}", Shown::new(&self.node), Shown::new(&self.name))
    }

    fn compare(&self, other: &Self, order: VolumeOrder) -> Ordering {
        match order {
            VolumeOrder::Size => largest_first(self.size_bytes, other.size_bytes),
            VolumeOrder::Measured => self.measured_at.cmp(&other.measured_at),
            VolumeOrder::Name => self.name.cmp(&other.name),
            VolumeOrder::Node => (&self.node, &self.name).cmp(&(&other.node, &other.name)),
        }
    }
}
