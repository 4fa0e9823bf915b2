//! The coordinator's core: it decides and does nothing else. No IO, no clock, no dice; `Cargo.toml` shows it.
//!
//! [`state`] is what may never be lost: it changes by commands only. [`live`] is what the agents saw last: every
//! replica has its own, and it may be lost.

pub mod key;
pub mod live;
pub mod node;
pub mod state;
pub mod table;
pub mod token;
pub mod user;

pub use key::KeyFingerprint;
pub use state::{Command, Consequence, Rejected, State};
pub use table::Table;
