//! The live view: what every agent saw last, and how long that still proves anything.
//!
//! Pure: samples and moments come in, rows with their age come out. Every replica has its own.

mod cpu;
mod lease;
mod observe;
mod reporter;
pub mod sample;
mod trouble;

use std::{sync::Arc, time::Duration};

use mainstay_common::{NodeId, Timestamp};

pub use lease::{Presence, lease_of, presence, stale_after_of};
pub use reporter::swarm_reporters;
pub use sample::{
    CollectorError, Container, Disk, Engine, Host, Link, Mount, Rclone, Rows, Sample, Swarm, SwarmNode, SwarmService,
    SwarmTask, SwarmView, Update, Volume,
};
pub use trouble::{Trouble, troubles};

use crate::Table;

/// What an agent says of itself when its session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The agent's version.
    pub version: String,
    /// Of the machine's current boot.
    pub boot_id: String,
    /// Time between two samples.
    pub interval: Duration,
}

/// Rows of one kind on one node, and when they were read. `None` rows: never read, or not known now.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<R: Clone> {
    /// When the agent read them, by its clock corrected to ours.
    pub read_at: Timestamp,
    /// The rows by key.
    pub rows: Table<Vec<u8>, Arc<R>>,
    /// Rows that the agent left out.
    pub left_out: u64,
}

/// Everything one agent saw last.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// What it said at the beginning of its session.
    pub hello: Option<Hello>,
    /// When its session began.
    pub session_since: Option<Timestamp>,
    /// When it last sent anything.
    pub last_seen: Option<Timestamp>,
    /// Since when it sends without a gap.
    pub ready_since: Option<Timestamp>,
    /// How far its clock is ahead of ours, in milliseconds, negative when behind.
    pub clock_ahead_ms: i64,
    /// The machine.
    pub host: Option<Arc<Host>>,
    /// Local filesystems by mount.
    pub disks: Option<Seen<Disk>>,
    /// Network and FUSE mounts by path.
    pub mounts: Option<Seen<Mount>>,
    /// Volumes by name.
    pub volumes: Option<Seen<Volume>>,
    /// Containers by id.
    pub containers: Option<Seen<Container>>,
    /// The container engine.
    pub engine: Option<Arc<Engine>>,
    /// The Swarm.
    pub swarm: Option<Arc<Swarm>>,
    /// What collectors complain of.
    pub errors: Arc<Vec<CollectorError>>,
    /// The agent about itself.
    pub agent: mainstay_common::metric::Readings,
    /// The view's count when it changed last.
    changed_at: u64,
}

/// What every agent saw last, as this replica knows it.
#[derive(Clone, Debug)]
pub struct LiveView {
    /// When this replica began to listen: before one lease is over, silence proves nothing.
    pub listening_since: Timestamp,
    nodes: Table<NodeId, Arc<NodeView>>,
    /// Counts changes.
    changes: u64,
    /// Which node changed at which count, its last change only.
    changed: Table<u64, NodeId>,
}

impl LiveView {
    /// A view that has seen nothing yet.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { listening_since: now, nodes: Table::default(), changes: 0, changed: Table::default() }
    }

    /// What is known of a node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeView> {
        self.nodes.get(id).map(AsRef::as_ref)
    }

    /// Every node that ever spoke.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeView)> {
        self.nodes.iter().map(|(id, view)| (id, view.as_ref()))
    }

    /// Forgets a node that was removed.
    pub fn forget(&mut self, id: &NodeId) {
        if let Some(view) = self.nodes.remove(id) {
            self.changed.remove(&view.changed_at);
            self.changes += 1;
        }
    }

    /// Counts every change: what [`LiveView::changed_since`] is asked with later.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Nodes that sent something since the count was this, each once. Those that were forgotten are not among them.
    pub fn changed_since(&self, changes: u64) -> impl Iterator<Item = &NodeId> {
        self.changed.from(&changes.saturating_add(1)).map(|(_, id)| id)
    }

    fn node_mut(&mut self, id: &NodeId) -> &mut NodeView {
        self.changes += 1;
        let view = Arc::make_mut(self.nodes.entry(id.clone(), Arc::default));
        self.changed.remove(&view.changed_at);
        self.changed.insert(self.changes, id.clone());
        view.changed_at = self.changes;
        view
    }
}
