//! What callers are told: gRPC codes are chosen here and nowhere else. A message is three lines: what, why, what to try.

mod declared;
mod identity;
mod node;
mod proposal;
mod replica;

use mainstay_common::InvalidName;
use tonic::{Code, Status};

pub(crate) use self::{
    declared::{declaration, declarations_changed, delivery_unknown, receiver_unknown},
    identity::{no_backup, token_taken, token_unknown, unsigned, user_revoked},
    node::{
        contested, expired_long_ago, node_removed, node_unknown, node_unknown_here, not_ours, other_key, renewal_key,
        superseded, too_many_hellos,
    },
    proposal::{LEADER, not_leader, not_readable, proposal, refused},
    replica::{
        REPLICA_BARRED, REPLICA_REMOVED, change, checkpoint_gone, joins_too_old, not_transferred, other_replica_key,
        replica_not_connected, replica_removed, replica_unknown, replica_unknown_here, unadmitted, unwelcome,
    },
};

fn status(code: Code, what: impl AsRef<str>, why: impl AsRef<str>, try_next: impl AsRef<str>) -> Status {
    // A line of a message must stay one line.
    let line = |text: &str| text.replace('\n', " ");
    Status::new(code, format!("{}\n{}\n{}", line(what.as_ref()), line(why.as_ref()), line(try_next.as_ref())))
}

/// A name that is none.
pub(crate) fn invalid_name(error: &InvalidName) -> Status {
    status(Code::InvalidArgument, "not a name", error.to_string(), "correct the name")
}

/// An argument that cannot be.
pub(crate) fn invalid(what: &str, why: &str, try_next: &str) -> Status {
    status(Code::InvalidArgument, what, why, try_next)
}

/// A role that may not call this.
pub(crate) fn role(who: &str, needs: &str) -> Status {
    status(
        Code::PermissionDenied,
        format!("{who} may not do that"),
        format!("needs role {needs}"),
        "mainstay context ls shows your role",
    )
}

/// A call that needs a certificate.
pub(crate) fn no_certificate() -> Status {
    status(
        Code::Unauthenticated,
        "no certificate",
        "this call is for callers with a certificate of the cluster",
        "mainstay context ls",
    )
}

/// A path that no service serves.
pub(crate) fn no_such_service(path: &str) -> Status {
    status(Code::Unimplemented, format!("{path:?} is not served here"), "no such service in this version", "")
}

/// The audit trail cannot be read.
pub(crate) fn audit_unreadable(error: &std::io::Error) -> Status {
    status(
        Code::Internal,
        "the audit trail cannot be read",
        error.to_string(),
        "look at the coordinator's disk and log",
    )
}

/// A request's name that cannot be kept.
pub(crate) fn request_name() -> Status {
    status(
        Code::InvalidArgument,
        "not a request's name",
        "it has other bytes than visible ASCII",
        "--request deploy-17",
    )
}
