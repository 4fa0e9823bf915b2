//! The door: who is on the other end of a connection, how many may be in, and which services they may call.

mod authorise;
mod connection;
mod doorkeeper;
mod handshake;
mod limits;
mod listener;
mod pace;
mod peer;
mod refusals;

pub(crate) use authorise::{AuthoriseLayer, decides};
pub(crate) use doorkeeper::{Block, Census};
pub(crate) use handshake::server_config;
pub(crate) use limits::{Budget, DECLARATION_BYTES, peer_server, server};
pub(crate) use listener::{Gate, Renewals};
pub(crate) use pace::{Pace, Paid};
pub(crate) use peer::{Caller, Peer};
pub(crate) use refusals::{Refusal, Refusals};
