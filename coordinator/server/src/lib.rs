//! The coordinator's server: takes samples in, answers questions, keeps decisions. It decides nothing itself: core does.

pub mod admin_socket;
mod announce;
mod api;
mod audit;
pub mod config;
mod failpoint;
mod gate;
mod http;
mod identity;
mod ingest;
pub mod init;
mod join;
mod joined;
mod leader;
mod log;
mod peers;
pub mod raft;
pub mod receivers;
mod restore;
mod run;
mod versions;

pub use config::{Lives, ServeConfig};
pub use ingest::sample_of;
pub use init::{InitConfig, init};
pub use join::{JoinConfig, join};
pub use log::holds_cluster;
pub use restore::{Remains, RestoreConfig, RestoreFrom, Restored, look, restore};
pub use run::{Started, run};

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
