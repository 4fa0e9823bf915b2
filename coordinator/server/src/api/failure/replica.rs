//! What is said of replicas, and to them.

use mainstay_common::ReplicaId;
use mainstay_core::State;
use tonic::{Code, Status};

use super::status;
use crate::raft;

/// The first line of the refusal that ends a replica: gRPC code `PermissionDenied` and this message.
pub(crate) const REPLICA_REMOVED: &str = "replica removed";

/// A replica that was removed, or that a disaster restore left out: it ends.
pub(crate) fn replica_removed(id: &ReplicaId, state: &State) -> Status {
    let replica = state.cluster.replica(id);
    if replica.is_none_or(|replica| replica.left_out_of.is_some()) {
        let about = state.cluster.about();
        return status(
            Code::PermissionDenied,
            REPLICA_REMOVED,
            format!("cluster {} was restored as generation {}, without {id}", about.name, about.generation),
            "empty its data directory; then mainstay cluster add, and mainstay-coordinator join",
        );
    }
    status(
        Code::PermissionDenied,
        REPLICA_REMOVED,
        format!("an administrator removed {id}"),
        "mainstay cluster add, and mainstay-coordinator join with a new data directory",
    )
}

/// The first line of the other refusal that ends a replica.
pub(crate) const REPLICA_BARRED: &str = "replica may not take part any more";

/// A replica that is not what others know of it, or is connected still.
pub(crate) fn unadmitted(id: &ReplicaId, why: &raft::Unadmitted) -> Status {
    let rejoin = "mainstay cluster add, and mainstay-coordinator join with an empty --data-dir";
    match why {
        raft::Unadmitted::WentBack(_) => {
            let try_next = format!("mainstay cluster remove {id}; to bring the machine back: {rejoin}");
            status(Code::PermissionDenied, REPLICA_BARRED, why.to_string(), try_next)
        }
        raft::Unadmitted::Copied(_) => {
            let try_next = format!("let only one of them run as {id}; to make this machine another replica: {rejoin}");
            status(Code::PermissionDenied, REPLICA_BARRED, why.to_string(), try_next)
        }
        raft::Unadmitted::Earlier(_) | raft::Unadmitted::Ending => {
            status(Code::Unavailable, format!("{id} is not let in yet"), why.to_string(), "wait")
        }
    }
}

/// A replica that moved and does not talk to this one yet.
pub(crate) fn replica_not_connected(id: &ReplicaId) -> Status {
    let why = "this start of it has no connection here yet";
    status(Code::Unavailable, format!("{id} is not moved yet"), why, "wait")
}

/// A replica that speaks with a key which is not the one it joined with.
pub(crate) fn other_replica_key(id: &ReplicaId) -> Status {
    status(
        Code::PermissionDenied,
        format!("{id} joined with another key"),
        "another machine has that id, or its replica.key was lost",
        "mainstay cluster remove it, and join anew with a new data directory",
    )
}

/// A replica that this one does not know (yet): it tries again, for ever.
pub(crate) fn replica_unknown_here(id: &ReplicaId) -> Status {
    status(Code::Unavailable, format!("replica {id} is not known here yet"), "this replica has no record of it", "wait")
}

/// A replica whose greeting does not fit.
pub(crate) fn unwelcome(id: &ReplicaId, why: &dyn std::fmt::Display) -> Status {
    status(Code::FailedPrecondition, format!("{id} is not listened to"), why.to_string(), "mainstay cluster status")
}

/// A checkpoint that is not there any more.
pub(crate) fn checkpoint_gone(index: u64, error: &std::io::Error) -> Status {
    status(Code::NotFound, format!("the checkpoint at {index} is gone"), error.to_string(), "the leader offers another")
}

/// A change of members that did not come about; `id` is whose.
pub(crate) fn change(error: &raft::ChangeError, id: &ReplicaId) -> Status {
    match error {
        raft::ChangeError::Refused(why) => {
            status(Code::FailedPrecondition, format!("{id} stays as it is"), why.to_string(), "mainstay cluster status")
        }
        raft::ChangeError::Unknown => {
            status(Code::Unknown, "the outcome is unknown", error.to_string(), "mainstay cluster status tells")
        }
    }
}

/// A replica that would end where it meets what the cluster decided already.
pub(crate) fn joins_too_old(knows: u32) -> Status {
    status(
        Code::FailedPrecondition,
        "this mainstay-coordinator is older than the cluster",
        format!("it knows entries of version {knows}, and the log has later ones"),
        "join with the version that the other replicas run",
    )
}

/// A replica that nobody knows.
pub(crate) fn replica_unknown(name: &str, state: &State) -> Status {
    let known = state.cluster.replicas().map(|(id, replica)| format!("{id} at {}", replica.address));
    let why = format!("there are {}", known.collect::<Vec<_>>().join(", "));
    status(Code::NotFound, format!("replica {name:?} is unknown"), why, "mainstay cluster status")
}

/// Leadership did not go over in time.
pub(crate) fn not_transferred() -> Status {
    let why = "no replica that could lead took over within 2s";
    status(Code::FailedPrecondition, "leadership stays where it is", why, "mainstay cluster status")
}
