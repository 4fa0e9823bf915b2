//! What is said of nodes, and to agents.

use std::{net::SocketAddr, time::Duration};

use mainstay_common::{NodeId, Timestamp, process::config::nearest};
use mainstay_core::State;
use tonic::{Code, Status};

use super::status;

/// A node that nobody knows, with the nearest names.
pub(crate) fn node_unknown(name: &str, state: &State) -> Status {
    let near = nearest(name, state.nodes.members().map(|(id, _)| id.as_str()));
    let why = near.map_or_else(|| "no node has that name".into(), |near| format!("nearest: {near}"));
    status(Code::NotFound, format!("node {name:?} is unknown"), why, "mainstay node ls")
}

/// An agent whose node was removed: it ends.
pub(crate) fn node_removed(id: &NodeId) -> Status {
    status(
        Code::PermissionDenied,
        "node removed",
        format!("an administrator removed {id}"),
        "mainstay-agent enroll with a fresh token, in a new data directory",
    )
}

/// An agent that speaks with a key which is not its node's.
pub(crate) fn other_key(id: &NodeId) -> Status {
    status(
        Code::PermissionDenied,
        format!("the name {id} belongs to another key"),
        "another machine, or a later enrolment of this one, has that name",
        "mainstay node ls; enroll this machine under another --name",
    )
}

/// An agent that this replica does not know (yet): it tries again, for ever.
pub(crate) fn node_unknown_here(id: &NodeId) -> Status {
    status(
        Code::Unavailable,
        format!("node {id} is not known here yet"),
        "this replica has no record of it",
        "wait, or enroll again",
    )
}

/// A session that begins while others of the same node still do.
pub(crate) fn too_many_hellos(id: &NodeId) -> Status {
    status(
        Code::ResourceExhausted,
        "too many sessions begin at once",
        format!("other calls of node {id} have not said their Hello yet"),
        "wait a moment; where another machine has the same identity: mainstay node ls",
    )
}

/// A session whose place a newer one took.
pub(crate) fn superseded(id: &NodeId, by: SocketAddr) -> Status {
    status(
        Code::Aborted,
        "a newer session took this one's place",
        format!("identity used from 2 addresses: node {id} speaks from {by} now"),
        format!("where that is another machine: mainstay node rm {id}, and enroll each under a name of its own"),
    )
}

/// A session that would take another one's place once too often.
pub(crate) fn contested(id: &NodeId, by: SocketAddr, wait: Duration) -> Status {
    status(
        Code::Unavailable,
        "another session has this one's place",
        format!("identity used from 2 addresses: node {id} speaks from {by}, and places were taken too often"),
        format!("in {} again; where that is another machine: mainstay node rm {id}", mainstay_common::time::span(wait)),
    )
}

/// A certificate shown to come back with, which is none of this cluster's.
pub(crate) fn not_ours(why: &str) -> Status {
    status(
        Code::PermissionDenied,
        "that certificate brings nobody back",
        why,
        "mainstay-agent enroll with a new token: mainstay token create",
    )
}

/// A certificate that ran out too long ago.
pub(crate) fn expired_long_ago(id: &NodeId, not_after: Timestamp, now: Timestamp) -> Status {
    status(
        Code::FailedPrecondition,
        format!("{id} was away for too long"),
        format!("its certificate ran out at {not_after}, more than 90 days before {now} by the coordinator's clock"),
        "mainstay-agent enroll with a new token brings the same node back: mainstay token create",
    )
}

/// A renewal for a key other than the registered one.
pub(crate) fn renewal_key() -> Status {
    status(Code::PermissionDenied, "no certificate was signed", "a renewal keeps the key", "")
}
