//! The cluster's own CA: its key lies sealed in the state, and it signs what the state allows.

mod adopt;
mod authority;
mod ca;
mod holders;
mod own_files;
mod seal;

pub(crate) use adopt::adopt_plain_key;
pub(crate) use authority::{Authority, new_root};
pub(crate) use ca::{Ca, Request, Unsigned};
pub(crate) use holders::Holders;
pub(crate) use own_files::{CA_FILE, OwnFiles, issue_replica, write};
pub(crate) use seal::{OPENER_FILE, Opener};
