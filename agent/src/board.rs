//! The board: what every collector saw last. Collectors write, sessions and `/metrics` read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mainstay_common::Timestamp;
use mainstay_proto::v1 as pb;
use tokio::sync::watch;

/// Names of the collectors, as they appear in errors and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collector {
    /// CPU, memory, network, clock.
    Host,
    /// Local filesystems.
    Disk,
    /// rclone, FUSE, NFS, CIFS.
    Mount,
    /// Container volumes.
    Volume,
    /// Containers and their engine.
    Container,
    /// Swarm.
    Swarm,
}

impl Collector {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Disk => "disk",
            Self::Mount => "mount",
            Self::Volume => "volume",
            Self::Container => "container",
            Self::Swarm => "swarm",
        }
    }
}

/// Rows by key (the bytes that name a row on the wire), and when they were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table<R> {
    /// When the rows were read; a row may carry an older moment of its own.
    pub read_at: Timestamp,
    /// The rows.
    pub rows: BTreeMap<Vec<u8>, R>,
    /// Rows beyond the limit, not listed.
    pub left_out: u64,
}

/// How a collector fared last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fare {
    /// How long it took last.
    pub took: Duration,
    /// Times that it could not read, or not all.
    pub errors_total: u64,
    /// What is wrong now, and since when.
    pub error: Option<(String, Timestamp)>,
}

/// Everything the agent knows now. `None`: not read yet.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The machine.
    pub host: Option<Arc<pb::Host>>,
    /// Local filesystems by mount.
    pub disks: Option<Arc<Table<pb::Disk>>>,
    /// Network and FUSE mounts by path.
    pub mounts: Option<Arc<Table<pb::Mount>>>,
    /// Volumes by name; `None` while the engine is unknown.
    pub volumes: Option<Arc<Table<pb::Volume>>>,
    /// Containers by id; `None` while the engine is unknown.
    pub containers: Option<Arc<Table<pb::Container>>>,
    /// The container engine.
    pub engine: Option<Arc<pb::Engine>>,
    /// The Swarm.
    pub swarm: Option<Arc<pb::Swarm>>,
    /// How every collector fares.
    pub fares: BTreeMap<Collector, Fare>,
    /// Counts changes that should be told at once: a mount's state, an engine that went away, a container that died.
    pub urgent: u64,
}

/// The board itself: cheap to clone.
#[derive(Clone, Debug)]
pub struct Board(watch::Sender<Snapshot>);

impl Default for Board {
    fn default() -> Self {
        Self(watch::Sender::new(Snapshot::default()))
    }
}

impl Board {
    /// Changes the board; readers see the change whole.
    pub fn put(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.send_modify(change);
    }

    /// Changes the board and asks sessions to send at once.
    pub fn put_urgent(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.send_modify(|snapshot| {
            change(snapshot);
            snapshot.urgent += 1;
        });
    }

    /// Notes how a collector fared: how long it took and what is wrong, `None` if nothing.
    pub fn fared(&self, collector: Collector, took: Duration, error: Option<String>, now: Timestamp) {
        self.0.send_modify(|snapshot| {
            let fare = snapshot.fares.entry(collector).or_default();
            fare.took = took;
            fare.errors_total += u64::from(error.is_some());
            fare.error = error.map(|reason| match fare.error.take() {
                Some((before, since)) if before == reason => (before, since),
                _ => (reason, now),
            });
        });
    }

    /// What it says now.
    #[must_use]
    pub fn read(&self) -> Snapshot {
        self.0.borrow().clone()
    }

    /// Follows it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.0.subscribe()
    }
}
