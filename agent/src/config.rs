//! What the agent is told: flags, or keys of the same names in a TOML file; a flag wins.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

/// A mount whose rclone has a remote control that discovery cannot find or may not use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RcloneConfig {
    /// The mountpoint.
    pub mount: PathBuf,
    /// `host:port` or the path of a unix socket.
    pub rc: String,
    /// User of the remote control.
    pub user: Option<String>,
    /// File that holds its password.
    pub password_file: Option<PathBuf>,
}

/// How the eyes work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EyesConfig {
    /// Time between samples.
    pub interval: Duration,
    /// The container engine's socket.
    pub docker_socket: PathBuf,
    /// Where host files are read: `/proc` and `/sys`, elsewhere only in tests.
    pub proc_root: PathBuf,
    /// See `proc_root`.
    pub sys_root: PathBuf,
    /// Directory for what should outlive a restart (measured volumes); `None` in `check`.
    pub cache_dir: Option<PathBuf>,
    /// Probe what autofs mounted.
    pub probe_automounts: bool,
    /// Mounts that must be there: `gone` when they are not.
    pub expect_mounts: Vec<PathBuf>,
    /// rclone remote controls.
    pub rclone: Vec<RcloneConfig>,
    /// Container labels to send besides the Swarm's and Compose's: exact names or globs.
    pub container_labels: Vec<String>,
    /// Time between two measurements of a volume.
    pub volume_every: Duration,
}

impl Default for EyesConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            docker_socket: "/var/run/docker.sock".into(),
            proc_root: "/proc".into(),
            sys_root: "/sys".into(),
            cache_dir: None,
            probe_automounts: false,
            expect_mounts: Vec::new(),
            rclone: Vec::new(),
            container_labels: Vec::new(),
            volume_every: Duration::from_secs(6 * 3_600),
        }
    }
}

/// Where the agent's own `/metrics` is served, if anywhere.
pub type MetricsAddress = Option<SocketAddr>;
