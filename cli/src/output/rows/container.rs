//! `container ls`.

use std::cmp::Ordering;

use mainstay_common::{
    Timestamp,
    state::{ContainerState, HealthState},
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

/// A container, running or not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ContainerRow {
    pub(crate) node: Text,
    pub(crate) name: Text,
    pub(crate) image: Text,
    pub(crate) state: ContainerState,
    pub(crate) health: HealthState,
    #[serde(serialize_with = "hundredths")]
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) restarts: Option<u64>,
    #[serde(serialize_with = "rfc3339")]
    pub(crate) read_at: Option<Timestamp>,
}

/// What `container ls --sort` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ContainerOrder {
    /// Bad news first
    #[default]
    State,
    /// Busiest first
    Cpu,
    /// Most memory first
    #[value(alias = "used")]
    Mem,
    /// Most restarts first
    Restarts,
    /// By name
    Name,
    /// By node and name
    Node,
}

/// How good a container's state is.
pub(crate) fn state_tone(state: ContainerState) -> Tone {
    match state {
        ContainerState::Dead => Tone::Bad,
        ContainerState::Restarting | ContainerState::Paused => Tone::Warning,
        ContainerState::Unknown => Tone::Unknown,
        ContainerState::Removing => Tone::Busy,
        ContainerState::Running => Tone::Good,
        ContainerState::Created | ContainerState::Exited => Tone::Idle,
    }
}

/// How good a health check's word is.
pub(crate) fn health_tone(health: HealthState) -> Tone {
    match health {
        HealthState::Unhealthy => Tone::Bad,
        HealthState::Unknown => Tone::Unknown,
        HealthState::Starting => Tone::Busy,
        HealthState::Healthy => Tone::Good,
        HealthState::None => Tone::Idle,
    }
}

impl From<pb::ContainerRow> for ContainerRow {
    fn from(row: pb::ContainerRow) -> Self {
        Self {
            node: row.node.into(),
            name: row.name.into(),
            image: row.image.into(),
            state: ContainerState::from_number(row.state).unwrap_or(ContainerState::Unknown),
            health: HealthState::from_number(row.health).unwrap_or(HealthState::Unknown),
            cpu_percent: row.cpu_percent,
            memory_bytes: row.memory_bytes,
            restarts: row.restarts,
            read_at: row.read_at_ms.map(Timestamp),
        }
    }
}

impl ContainerRow {
    /// The worse of state and health; a container without a health check is as good as its state.
    fn tone(&self) -> Tone {
        let health = health_tone(self.health);
        if health == Tone::Idle { state_tone(self.state) } else { state_tone(self.state).min(health) }
    }

    /// What a container at rest uses is not unknown, but nothing.
    fn of_running(&self, known: bool, cell: Cell) -> Cell {
        let rests = matches!(self.state, ContainerState::Created | ContainerState::Exited | ContainerState::Dead);
        if rests && !known { Cell::none() } else { cell }
    }
}

impl Row for ContainerRow {
    type Order = ContainerOrder;
    const KEY: &'static [&'static str] = &["node", "name"];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::text("NODE", 8, |row, _| Cell::text(&row.node)),
        Column::text("NAME", 12, |row, _| Cell::text(&row.name)),
        Column::state("STATE", |row, _| Cell::state(state_tone(row.state), row.state.as_str())),
        Column::state("HEALTH", |row, _| {
            let known = row.health;
            if known == HealthState::None { Cell::none() } else { Cell::state(health_tone(known), known.as_str()) }
        }),
        Column::number("CPU%", |row, _| row.of_running(row.cpu_percent.is_some(), Cell::cpu(row.cpu_percent))),
        Column::number("MEM", |row, _| row.of_running(row.memory_bytes.is_some(), Cell::bytes(row.memory_bytes))),
        Column::number("RESTARTS", |row, _| Cell::number(row.restarts)),
        Column::text("IMAGE", 12, |row: &Self, _| Cell::text(&row.image)).wide(),
    ];

    fn name(&self) -> String {
        format!("{}/{}", Shown::new(&self.node), Shown::new(&self.name))
    }

    fn compare(&self, other: &Self, order: ContainerOrder) -> Ordering {
        match order {
            ContainerOrder::State => self.tone().cmp(&other.tone()),
            ContainerOrder::Cpu => largest_first(self.cpu_percent, other.cpu_percent),
            ContainerOrder::Mem => largest_first(self.memory_bytes, other.memory_bytes),
            ContainerOrder::Restarts => largest_first(self.restarts, other.restarts),
            ContainerOrder::Name => self.name.cmp(&other.name),
            ContainerOrder::Node => (&self.node, &self.name).cmp(&(&other.node, &other.name)),
        }
    }
}

/// Percent to the hundredth.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn hundredths<S: Serializer>(percent: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    percent.map(|percent| rounded(percent, 2)).serialize(serializer)
}
