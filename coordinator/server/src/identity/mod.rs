//! The cluster's own CA: its key lies sealed in the state, and it signs what the state allows.

mod authority;
mod ca;
mod holders;
mod own_files;
mod seal;

pub(crate) use authority::{Authority, new_root};
pub(crate) use ca::{Ca, Request, Unsigned, fingerprint};
pub(crate) use holders::Holders;
pub(crate) use own_files::{
    CA_FILE, CERTIFICATE_FILE, KEY_FILE, OwnFiles, client_of_files, issue_replica, key_of_files, refuse_lost_key,
    server_of_files, write,
};
pub(crate) use seal::{OPENER_FILE, Opener};
