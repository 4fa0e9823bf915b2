//! The coordinator's core: it decides and does nothing else. No IO, no clock, no dice; `Cargo.toml` shows it.
//!
//! [`state`] is what may never be lost: it changes by [`entry`] only. [`live`] is what the agents saw last: every
//! replica has its own, and it may be lost. [`plan()`] says what the leader should do next.

pub mod alert;
pub mod audit;
pub mod backup;
pub mod ca;
pub mod checkpoint;
pub mod cluster;
pub mod codec;
pub mod declare;
pub mod effect;
pub mod entry;
pub mod key;
pub mod live;
pub mod node;
pub mod notify;
pub mod pattern;
pub mod plan;
pub mod request;
pub mod state;
pub mod table;
pub mod token;
pub mod user;

pub use checkpoint::{Restoring, Section, Unreadable};
pub use cluster::{Fence, Founding};
pub use codec::Undecodable;
pub use effect::Effect;
pub use entry::{Actor, Command, Entry, Origin};
pub use key::KeyFingerprint;
pub use pattern::Pattern;
pub use plan::{Leading, Planner, plan};
pub use state::{Consequence, Rejected, State};
pub use table::Table;
