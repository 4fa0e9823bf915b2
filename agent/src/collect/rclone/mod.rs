//! rclone behind a mount: what its remote control tells of uploads, cache and remote.
//!
//! The remote control answers while the remote hangs, and hangs while the mount is well: it is asked apart from the
//! mount, by a task of its own for each, and nothing waits for it.

mod access;
mod answers;
mod client;
mod control;
mod follower;
mod known;
mod remote;
mod uploads;

pub use self::answers::understand;
pub(super) use self::{
    access::is_open as rc_is_open,
    follower::{Follower, Shared, Surroundings},
    known::Known,
};
