//! What agents see, checked and in the coordinator's own words.

use std::collections::BTreeMap;

use mainstay_common::{
    Timestamp,
    metric::Readings,
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, RcState, RemoteState, SwarmState},
};

/// One sample: what changed since the last one on the same session.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When it was taken, by the agent's clock.
    pub taken_at: Timestamp,
    /// The machine, if it was read anew.
    pub host: Option<Host>,
    /// Local filesystems.
    pub disks: Option<Update<Disk>>,
    /// Network and FUSE mounts.
    pub mounts: Option<Update<Mount>>,
    /// Container volumes.
    pub volumes: Option<Update<Volume>>,
    /// Containers.
    pub containers: Option<Update<Container>>,
    /// The container engine.
    pub engine: Option<Engine>,
    /// The Swarm.
    pub swarm: Option<Swarm>,
    /// Everything that collectors complain of now.
    pub errors: Vec<CollectorError>,
    /// The agent about itself.
    pub agent: Option<Readings>,
}

/// Rows by key.
pub type Rows<R> = Vec<(Vec<u8>, R)>;

/// How a table changed.
#[derive(Clone, Debug, Default)]
pub struct Update<R> {
    /// When all rows were read, by the agent's clock.
    pub read_at: Timestamp,
    /// Rows that are not listed are gone.
    pub whole: bool,
    /// New and changed rows.
    pub changed: Rows<R>,
    /// Keys of rows that are gone.
    pub removed: Vec<Vec<u8>>,
    /// Rows that the agent left out.
    pub left_out: u64,
}

/// A collector that could not read, or not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorError {
    /// Which.
    pub collector: String,
    /// Why.
    pub reason: String,
    /// Since when, by the agent's clock.
    pub since: Timestamp,
}

impl<R> Update<R> {
    /// True where the agent says that it does not know the table any longer: that is not an empty table.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.read_at == Timestamp(0)
    }
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// When it was read, by the agent's clock.
    pub read_at: Timestamp,
    /// Its own name for itself.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub os: String,
    /// For example x86_64.
    pub architecture: String,
    /// Whether the distribution asks for a reboot.
    pub reboot_required: Option<bool>,
    /// Whether the kernel's clock is kept in step.
    pub clock_synchronized: Option<bool>,
    /// Numbers.
    pub readings: Readings,
    /// Network interfaces.
    pub links: Vec<Link>,
    /// CPU seconds by mode.
    pub cpu: Vec<(String, f64)>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Numbers.
    pub readings: Readings,
}

/// A local filesystem. Key: where it is mounted.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// The device below.
    pub device: Vec<u8>,
    /// Filesystem type.
    pub fs: String,
    /// How it fares.
    pub state: DiskState,
    /// Other places where the same device is mounted.
    pub aliases: Vec<Vec<u8>>,
    /// Numbers.
    pub readings: Readings,
    /// When they were read, where that is older than the table, by the agent's clock.
    pub read_at: Option<Timestamp>,
    /// Why the state is what it is.
    pub reason: String,
}

/// A network or FUSE mount. Key: where it is mounted.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// What is mounted.
    pub source: Vec<u8>,
    /// Filesystem type.
    pub fs: String,
    /// How it answers.
    pub state: MountState,
    /// Since when, by the agent's clock.
    pub state_since: Timestamp,
    /// How the remote answers.
    pub remote_state: RemoteState,
    /// Numbers.
    pub readings: Readings,
    /// When sizes were read, where that is older than the table, by the agent's clock.
    pub read_at: Option<Timestamp>,
    /// Why the state is what it is.
    pub reason: String,
    /// Other places where the same device is mounted.
    pub aliases: Vec<Vec<u8>>,
    /// The rclone behind it.
    pub rclone: Option<Rclone>,
}

/// The rclone process behind a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rclone {
    /// Whether its remote control answers.
    pub rc_state: RcState,
    /// Its version; empty where unknown.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its systemd unit; empty where unknown.
    pub unit: String,
    /// Its remote control runs commands for anyone who reaches it.
    pub rc_open: bool,
    /// What it last complained of.
    pub last_error: String,
}

/// A container volume. Key: its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its driver.
    pub driver: String,
    /// Containers that use it.
    pub used_by: Vec<String>,
    /// Whether any does.
    pub in_use: Option<bool>,
    /// When it was measured, by the agent's clock.
    pub measured_at: Option<Timestamp>,
    /// Numbers.
    pub readings: Readings,
    /// Why there is no size.
    pub reason: String,
    /// The device behind it.
    pub source: Vec<u8>,
}

/// A container. Key: its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// What it does.
    pub state: ContainerState,
    /// What its health check says.
    pub health: HealthState,
    /// When it started, by the agent's clock.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// Numbers.
    pub readings: Readings,
    /// CPU time per time, in percent of one CPU; computed here from two samples.
    pub cpu_percent: Option<f64>,
    /// Swarm service.
    pub service: String,
    /// Swarm task.
    pub task: String,
    /// Stack or Compose project.
    pub stack: String,
    /// Labels that the agent sends.
    pub labels: BTreeMap<String, String>,
    /// Labels that it left out.
    pub labels_left_out: u64,
}

/// The container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// When it was asked last, by the agent's clock.
    pub read_at: Timestamp,
    /// Whether it answers.
    pub state: EngineState,
    /// Since when, by the agent's clock.
    pub state_since: Timestamp,
    /// Its version.
    pub version: String,
    /// Where it keeps its data.
    pub root: String,
    /// Why the state is what it is.
    pub reason: String,
}

/// The Swarm as one node's engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm {
    /// When it was read, by the agent's clock.
    pub read_at: Timestamp,
    /// Membership.
    pub state: SwarmState,
    /// This node's id in the Swarm.
    pub node_id: String,
    /// The Swarm's id; only managers know it.
    pub cluster_id: String,
    /// Whether this node is a manager.
    pub manager: bool,
    /// What is wrong.
    pub error: String,
    /// This node's availability, where known.
    pub availability: String,
    /// This node's reachability, where known.
    pub reachability: String,
    /// Nodes, services and tasks, from the manager that reports them.
    pub view: Option<SwarmView>,
    /// Digest of the view, from the others.
    pub view_digest: u64,
}

/// What a manager sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmView {
    /// When it was read, by the agent's clock.
    pub read_at: Timestamp,
    /// Its nodes.
    pub nodes: Vec<SwarmNode>,
    /// Its services.
    pub services: Vec<SwarmService>,
    /// Its tasks.
    pub tasks: Vec<SwarmTask>,
}

/// A node of the Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmNode {
    /// Its id.
    pub id: String,
    /// Its name.
    pub hostname: String,
    /// manager or worker.
    pub role: String,
    /// active, pause or drain.
    pub availability: String,
    /// ready, down, ...
    pub state: String,
    /// reachable or unreachable; managers only.
    pub reachability: String,
    /// Whether it leads the managers.
    pub leader: bool,
    /// Its address.
    pub address: String,
}

/// A service of the Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmService {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// replicated, global, ...
    pub mode: String,
    /// Its image.
    pub image: String,
    /// Tasks it should have.
    pub desired: Option<u64>,
    /// Tasks that run.
    pub running: Option<u64>,
    /// How its last update went.
    pub update_state: String,
}

/// A task of the Swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmTask {
    /// Its id.
    pub id: String,
    /// Its service.
    pub service_id: String,
    /// Its node.
    pub node_id: String,
    /// Its slot.
    pub slot: u64,
    /// What it does.
    pub state: String,
    /// What it should do.
    pub desired_state: String,
    /// What is wrong.
    pub error: String,
    /// Since when, by the manager's clock.
    pub state_at: Timestamp,
}
