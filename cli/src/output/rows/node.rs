//! `node ls`.

use std::{cmp::Ordering, collections::BTreeMap};

use mainstay_common::{Timestamp, state::NodeState};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{
    cell::Cell,
    row::{Row, Text, largest_first, rfc3339},
    style::Tone,
    table::Column,
};

/// A machine with an agent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeRow {
    pub(crate) name: Text,
    pub(crate) state: Option<NodeState>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) state_since: Option<Timestamp>,
    pub(crate) version: Text,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) last_seen: Option<Timestamp>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory_bytes: Option<u64>,
}

/// What `node ls --sort` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NodeOrder {
    /// Bad news first
    #[default]
    State,
    /// By name
    Name,
    /// Longest silent first
    Seen,
    /// Most CPUs first
    Cpus,
    /// Most memory first
    Memory,
    /// By version
    Version,
}

/// How good a node's state is.
pub(crate) fn state_tone(state: Option<NodeState>) -> Tone {
    match state {
        None => Tone::Unknown,
        Some(NodeState::Unreachable) => Tone::Bad,
        Some(NodeState::Stale | NodeState::Cordoned) => Tone::Warning,
        Some(NodeState::Draining | NodeState::Pending) => Tone::Busy,
        Some(NodeState::Ready) => Tone::Good,
        Some(NodeState::Drained) => Tone::Idle,
    }
}

impl From<pb::NodeRow> for NodeRow {
    fn from(row: pb::NodeRow) -> Self {
        Self {
            name: row.name.into(),
            state: NodeState::from_number(row.state),
            state_since: row.state_since_ms.map(Timestamp),
            version: row.version.into(),
            last_seen: row.last_seen_ms.map(Timestamp),
            labels: row.labels.into_iter().collect(),
            cpus: row.cpus,
            memory_bytes: row.memory_bytes,
        }
    }
}

impl NodeRow {
    pub(crate) fn state_cell(&self, now: Timestamp) -> Cell {
        let word = self.state.map_or("unknown", NodeState::as_str);
        Cell::state_for(state_tone(self.state), word, self.state_since, now)
    }

    /// `zone=a rack=7`, empty without labels.
    pub(crate) fn labels_text(&self) -> String {
        self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }
}

impl Row for NodeRow {
    type Order = NodeOrder;
    const KEY: &'static [&'static str] = &["name"];
    const COLUMNS: &'static [Column<Self>] =
        &[
            Column::text("NAME", 12, |row, _| Cell::text(&row.name)),
            Column::state("STATE", Self::state_cell),
            Column::number("SEEN", |row, now| Cell::age(row.last_seen, now)),
            Column::number("CPUS", |row, _| Cell::number(row.cpus)),
            Column::number("MEMORY", |row, _| Cell::bytes(row.memory_bytes)),
            Column::text("VERSION", 7, |row, _| Cell::text(&row.version)),
            Column::text("LABELS", 12, |row: &Self, _| {
                if row.labels.is_empty() { Cell::none() } else { Cell::text(&row.labels_text()) }
            })
            .wide(),
        ];

    fn name(&self) -> String {
        mainstay_common::text::Shown::new(&self.name).to_string()
    }

    fn compare(&self, other: &Self, order: NodeOrder) -> Ordering {
        match order {
            NodeOrder::State => state_tone(self.state).cmp(&state_tone(other.state)),
            NodeOrder::Name => Ordering::Equal,
            NodeOrder::Seen => self.last_seen.cmp(&other.last_seen),
            NodeOrder::Cpus => largest_first(self.cpus, other.cpus),
            NodeOrder::Memory => largest_first(self.memory_bytes, other.memory_bytes),
            NodeOrder::Version => self.version.cmp(&other.version),
        }
    }
}
