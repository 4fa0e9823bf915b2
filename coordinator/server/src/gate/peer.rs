//! The other end.

use std::{fmt, net::SocketAddr};

use mainstay_common::{
    NodeId, ReplicaId, UserName,
    identity::{HumanRole, Subject},
};
use mainstay_core::KeyFingerprint;

/// The other end of a connection, as TLS proved it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where it comes from.
    pub(crate) address: SocketAddr,
    /// Who it is and with which key; `None` without a certificate.
    pub(crate) who: Option<(Subject, KeyFingerprint)>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Some((subject, _)) => subject.fmt(f),
            None => f.write_str("nobody"),
        }
    }
}

/// Who calls, after the state agreed: put into every request that passes the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// No certificate.
    Anonymous,
    /// An agent, with the key it speaks with.
    Agent(NodeId, KeyFingerprint),
    /// A person, with the key they speak with.
    User(HumanRole, UserName, KeyFingerprint),
    /// A replica, with the key it speaks with.
    Replica(ReplicaId, KeyFingerprint),
}
