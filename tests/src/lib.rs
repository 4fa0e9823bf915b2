//! What stories about the whole are told with: real programs, real engines, real mounts, and patience with a deadline.

pub mod caller;
pub mod caretaker;
pub mod cgroup;
pub mod cluster;
pub mod daemon;
pub mod disk_lab;
pub mod docker_lab;
pub mod fake_engine;
pub mod fake_nodes;
pub mod forger;
pub mod held;
pub mod machine;
pub mod metrics;
pub mod mount_space;
pub mod outcome;
pub mod program;
pub mod rclone_lab;
pub mod shell;
pub mod swarm_lab;
pub mod unix_http;
pub mod wait;
pub mod webhook;

pub use cluster::Cluster;
pub use daemon::Daemon;
pub use disk_lab::DiskLab;
pub use docker_lab::DockerLab;
pub use held::Held;
pub use mount_space::MountSpace;
pub use outcome::Outcome;
pub use program::Program;
pub use rclone_lab::RcloneLab;
pub use swarm_lab::SwarmLab;
pub use wait::eventually;
pub use webhook::WebhookReceiver;
