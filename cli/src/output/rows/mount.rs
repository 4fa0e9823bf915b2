//! `mount ls`.

use std::cmp::Ordering;

use mainstay_common::{
    Timestamp,
    state::{MountState, RemoteState},
    text::Shown,
};
use mainstay_proto::v1 as pb;
use serde::{Serialize, Serializer};

use crate::output::{
    cell::Cell,
    row::{Row, Text, largest_first, rfc3339, rounded},
    style::Tone,
    table::Column,
};

/// An rclone, FUSE, NFS or CIFS mount.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MountRow {
    pub(crate) node: Text,
    pub(crate) path: Text,
    pub(crate) source: Text,
    pub(crate) fs: Text,
    pub(crate) state: MountState,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) state_since: Option<Timestamp>,
    pub(crate) remote_state: RemoteState,
    #[serde(serialize_with = "micros")]
    pub(crate) latency_ms: Option<f64>,
    pub(crate) total_bytes: Option<u64>,
    pub(crate) used_bytes: Option<u64>,
    pub(crate) avail_bytes: Option<u64>,
    pub(crate) upload_queue: Option<u64>,
    pub(crate) cache_bytes: Option<u64>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) read_at: Option<Timestamp>,
}

/// What `mount ls --sort` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MountOrder {
    /// Bad news first
    #[default]
    State,
    /// Most bytes first
    Used,
    /// Slowest first
    Latency,
    /// Most uploads waiting first
    Queue,
    /// Largest cache first
    Cache,
    /// By node and path
    Node,
}

/// How good a mount's state is.
pub(crate) fn state_tone(state: MountState) -> Tone {
    match state {
        MountState::Hung | MountState::Gone | MountState::Stale | MountState::Error => Tone::Bad,
        MountState::Slow | MountState::Denied => Tone::Warning,
        MountState::Unknown => Tone::Unknown,
        MountState::Ok => Tone::Good,
    }
}

impl From<pb::MountRow> for MountRow {
    fn from(row: pb::MountRow) -> Self {
        Self {
            node: row.node.into(),
            path: Text(row.path),
            source: Text(row.source),
            fs: row.fs.into(),
            state: MountState::from_number(row.state).unwrap_or(MountState::Unknown),
            state_since: row.state_since_ms.map(Timestamp),
            remote_state: RemoteState::from_number(row.remote_state).unwrap_or(RemoteState::Unknown),
            latency_ms: row.latency_ms,
            total_bytes: row.total_bytes,
            used_bytes: row.used_bytes,
            avail_bytes: row.avail_bytes,
            upload_queue: row.upload_queue,
            cache_bytes: row.cache_bytes,
            read_at: row.read_at_ms.map(Timestamp),
        }
    }
}

impl MountRow {
    fn is_rclone(&self) -> bool {
        self.fs.0 == b"fuse.rclone"
    }

    /// What only rclone has: elsewhere it does not apply.
    fn of_rclone(&self, known: bool, cell: Cell) -> Cell {
        if !known && !self.is_rclone() { Cell::none() } else { cell }
    }

    fn latency_cell(&self) -> Cell {
        match self.state {
            // Who does not answer has no time to answer in.
            MountState::Hung | MountState::Gone => Cell::none(),
            MountState::Ok
            | MountState::Slow
            | MountState::Stale
            | MountState::Denied
            | MountState::Error
            | MountState::Unknown => Cell::latency(self.latency_ms),
        }
    }
}

impl Row for MountRow {
    type Order = MountOrder;
    const KEY: &'static [&'static str] = &["node", "path"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NODE", 8, |row, _| Cell::text(&row.node)),
        Column::text("PATH", 12, |row, _| Cell::text(&row.path)),
        Column::text("SOURCE", 10, |row, _| Cell::text(&row.source)),
        Column::state("STATE", |row, now| {
            Cell::state_for(state_tone(row.state), row.state.as_str(), row.state_since, now)
        }),
        Column::number("LATENCY", |row, _| row.latency_cell()),
        Column::number("QUEUE", |row, _| row.of_rclone(row.upload_queue.is_some(), Cell::number(row.upload_queue))),
        Column::text("FS", 5, |row: &Self, _| Cell::text(&row.fs)).wide(),
        Column::number("CACHE", |row: &Self, _| row.of_rclone(row.cache_bytes.is_some(), Cell::bytes(row.cache_bytes)))
            .wide(),
    ];

    fn name(&self) -> String {
        format!("{}/{}", Shown::new(&self.node), Shown::new(&self.path))
    }

    fn compare(&self, other: &Self, order: MountOrder) -> Ordering {
        match order {
            MountOrder::State => state_tone(self.state).cmp(&state_tone(other.state)),
            MountOrder::Used => largest_first(self.used_bytes, other.used_bytes),
            MountOrder::Latency => largest_first(self.latency_ms, other.latency_ms),
            MountOrder::Queue => largest_first(self.upload_queue, other.upload_queue),
            MountOrder::Cache => largest_first(self.cache_bytes, other.cache_bytes),
            MountOrder::Node => (&self.node, &self.path).cmp(&(&other.node, &other.path)),
        }
    }
}

/// Milliseconds to the microsecond.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn micros<S: Serializer>(millis: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    millis.map(|millis| rounded(millis, 3)).serialize(serializer)
}
