//! The door: who is on the other end of a connection, and which services they may call.

mod authorise;
mod listener;
mod peer;
mod refusals;

pub(crate) use authorise::AuthoriseLayer;
pub(crate) use listener::{connections, server_config};
pub(crate) use peer::{Caller, Peer};
pub(crate) use refusals::{Refusal, Refusals};
