//! Words all of Mainstay's programs share: names, units, states, the metric catalogue, texts.
//!
//! Everything outside [`process`] is pure: no clock, no disk, no network.

pub mod failure;
pub mod id;
pub mod identity;
pub mod metric;
#[cfg(feature = "process")]
pub mod process;
pub mod state;
pub mod text;
pub mod time;
pub mod token;
pub mod unit;

pub use failure::{ExitCode, Failure};
pub use id::{ClusterId, InvalidName, NodeId, ReceiverName, ReplicaId, TokenId, UserName};
pub use time::Timestamp;
