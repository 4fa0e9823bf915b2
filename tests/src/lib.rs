//! What stories about the whole are told with: real programs, real engines, real mounts, and patience with a deadline.

pub mod caretaker;
pub mod cluster;
pub mod daemon;
pub mod docker_lab;
pub mod machine;
pub mod outcome;
pub mod program;
pub mod shell;
pub mod wait;

pub use cluster::Cluster;
pub use daemon::Daemon;
pub use docker_lab::DockerLab;
pub use outcome::Outcome;
pub use program::Program;
pub use wait::eventually;
