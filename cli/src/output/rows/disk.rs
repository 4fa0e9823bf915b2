//! `disk ls`.

use std::cmp::Ordering;

use mainstay_common::{Timestamp, state::DiskState, text::Shown, unit::percent_floor};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, largest_first, rfc3339},
    style::Tone,
    table::Column,
};

/// A local filesystem.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DiskRow {
    pub(crate) node: Text,
    pub(crate) mount: Text,
    pub(crate) device: Text,
    pub(crate) fs: Text,
    pub(crate) total_bytes: Option<u64>,
    pub(crate) used_bytes: Option<u64>,
    pub(crate) avail_bytes: Option<u64>,
    pub(crate) inodes_used: Option<u64>,
    pub(crate) inodes_total: Option<u64>,
    pub(crate) state: DiskState,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) read_at: Option<Timestamp>,
}

/// What `disk ls --sort` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DiskOrder {
    /// Fullest first, in percent
    #[default]
    Used,
    /// Largest first
    Size,
    /// Least room first
    Avail,
    /// Fewest free inodes first, in percent
    Inodes,
    /// Bad news first
    State,
    /// By node and mount
    Node,
}

/// How good a disk's state is.
pub(crate) fn state_tone(state: DiskState) -> Tone {
    match state {
        DiskState::Ok => Tone::Good,
        DiskState::Readonly => Tone::Warning,
        DiskState::Error => Tone::Bad,
        DiskState::Unknown => Tone::Unknown,
    }
}

impl From<pb::DiskRow> for DiskRow {
    fn from(row: pb::DiskRow) -> Self {
        Self {
            node: row.node.into(),
            mount: Text(row.mount),
            device: Text(row.device),
            fs: row.fs.into(),
            total_bytes: row.total_bytes,
            used_bytes: row.used_bytes,
            avail_bytes: row.avail_bytes,
            inodes_used: row.inodes_used,
            inodes_total: row.inodes_total,
            state: DiskState::from_number(row.state).unwrap_or(DiskState::Unknown),
            read_at: row.read_at_ms.map(Timestamp),
        }
    }
}

impl DiskRow {
    /// As `df` counts.
    fn used_percent(&self) -> Option<u64> {
        percent_floor(self.used_bytes?, self.avail_bytes?).map(u64::from)
    }

    fn inode_percent(&self) -> Option<u64> {
        let (used, total) = (self.inodes_used?, self.inodes_total?);
        percent_floor(used, total.checked_sub(used)?).map(u64::from)
    }
}

impl Row for DiskRow {
    type Order = DiskOrder;
    const KEY: &'static [&'static str] = &["node", "mount"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NODE", 8, |row, _| Cell::text(&row.node)),
        Column::text("MOUNT", 12, |row, _| Cell::text(&row.mount)),
        Column::number("USED%", |row, now| Cell::percent(row.used_percent(), row.read_at, now)),
        Column::number("USED", |row, _| Cell::bytes(row.used_bytes)),
        Column::number("SIZE", |row, _| Cell::bytes(row.total_bytes)),
        // Some filesystems make inodes as they need them, and tell 0.
        Column::number("INODE%", |row, now| match row.inodes_total {
            Some(0) => Cell::none(),
            _ => Cell::percent(row.inode_percent(), None, now),
        }),
        Column::state("STATE", |row, _| Cell::state(state_tone(row.state), row.state.as_str())),
        Column::text("DEVICE", 12, |row: &Self, _| Cell::text(&row.device)).wide(),
        Column::text("FS", 5, |row: &Self, _| Cell::text(&row.fs)).wide(),
        Column::number("AVAIL", |row: &Self, _| Cell::bytes(row.avail_bytes)).wide(),
    ];

    fn name(&self) -> String {
        format!("{}/{}", Shown::new(&self.node), Shown::new(&self.mount))
    }

    fn compare(&self, other: &Self, order: DiskOrder) -> Ordering {
        match order {
            DiskOrder::Used => largest_first(self.used_percent(), other.used_percent()),
            DiskOrder::Size => largest_first(self.total_bytes, other.total_bytes),
            // What is not known comes last here too.
            DiskOrder::Avail => {
                let room = |row: &Self| (row.avail_bytes.is_none(), row.avail_bytes);
                room(self).cmp(&room(other))
            }
            DiskOrder::Inodes => largest_first(self.inode_percent(), other.inode_percent()),
            DiskOrder::State => state_tone(self.state).cmp(&state_tone(other.state)),
            DiskOrder::Node => (&self.node, &self.mount).cmp(&(&other.node, &other.mount)),
        }
    }
}
