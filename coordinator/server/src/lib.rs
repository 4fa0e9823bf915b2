//! The coordinator's server: takes samples in, answers questions, keeps decisions. It decides nothing itself: core does.

pub mod admin_socket;
mod api;
pub mod config;
mod gate;
mod http;
mod identity;
mod ingest;
pub mod init;
mod log;
pub mod raft;
pub mod receivers;
mod run;
mod store;

pub use config::ServeConfig;
pub use init::{InitConfig, init};
pub use run::{Started, run};
pub use store::holds_cluster;

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
