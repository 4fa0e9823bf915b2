//! What callers are told: gRPC codes are chosen here and nowhere else. A message is three lines: what, why, what to try.

use std::{net::SocketAddr, time::Duration};

use mainstay_common::{InvalidName, NodeId, ReplicaId, Timestamp, UserName, process::config::nearest};
use mainstay_core::{Rejected, State, ca, cluster, declare, node, notify, request, token, user};
use tonic::{Code, Status};

use crate::{identity::Unsigned, log::ProposeError, raft};

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

/// A person whose certificate counts no more.
pub(crate) fn user_revoked(name: &UserName) -> Status {
    status(
        Code::Unauthenticated,
        format!("{name} may not come in"),
        "that certificate was revoked or replaced",
        "ask an administrator for a new context: mainstay user add",
    )
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

/// A proposal that did not come about.
pub(crate) fn proposal(error: &ProposeError, state: &State) -> Status {
    match error {
        ProposeError::Rejected(rejected) => refused(rejected, state),
        ProposeError::Log(raft::ProposeError::NotLeader(leader)) => not_leader(*leader, state),
        ProposeError::Log(error) => not_taken(error),
        ProposeError::Behind { member, knows, kind, needs } => status(
            Code::FailedPrecondition,
            format!("{member} is too old for that"),
            format!("it knows entries of version {knows}, and {kind} is of version {needs}: it would end at it"),
            format!("mainstay-coordinator of a later version there; or: mainstay cluster remove {member}"),
        ),
    }
}

/// Where the caller finds the leader's address, host:port.
pub(crate) const LEADER: &str = "mainstay-leader";
/// Set where nothing changed, and the same in a moment may succeed, here or elsewhere.
pub(crate) const AGAIN: &str = "mainstay-again";

/// Set where no more names are taken: without one nothing hinders it.
const UNNAMED: &str = "mainstay-unnamed";

/// Somebody else leads, or nobody does yet.
pub(crate) fn not_leader(leader: Option<u64>, state: &State) -> Status {
    let known = leader.map(cluster::numbered).and_then(|id| Some((state.cluster.replica(&id)?.address.clone(), id)));
    let Some((address, id)) = known else {
        let why = "the replicas are choosing a leader, or too few of them are there to have one";
        return again(status(
            Code::Unavailable,
            "no replica leads now",
            why,
            "try again; mainstay cluster status --stale",
        ));
    };
    let try_next = format!("--coordinator {address}, or leave --coordinator out");
    let mut status =
        status(Code::FailedPrecondition, "this replica does not lead", format!("{id} does, at {address}"), try_next);
    if let Ok(address) = address.parse() {
        status.metadata_mut().insert(LEADER, address);
    }
    status
}

/// Nobody can say what is true now.
pub(crate) fn not_readable(error: raft::ReadError) -> Status {
    let why = "this replica cannot ask a leader what is committed";
    again(status(Code::Unavailable, error.to_string(), why, "try again; or take this replica's own view: --stale"))
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

fn again(mut status: Status) -> Status {
    status.metadata_mut().insert(AGAIN, tonic::metadata::MetadataValue::from_static("1"));
    status
}

/// What the log says of a proposal that it did not take, or whose fate is not known.
fn not_taken(error: &raft::ProposeError) -> Status {
    use raft::ProposeError as E;
    let why = error.to_string();
    match error {
        E::NoRoom => {
            let try_next = "make room on the coordinator's disk; nothing is lost, and it works again by itself";
            status(Code::ResourceExhausted, "the coordinator's disk is full", why, try_next)
        }
        E::TooLarge { .. } => status(Code::InvalidArgument, "that is too much for one decision", why, "ask for less"),
        E::Broken(_) | E::Unknown => status(Code::Unknown, "the outcome is unknown", why, "ask again by name"),
        E::NotLeader(_) => again(status(Code::Unavailable, "this replica does not lead", why, "ask the leader")),
        E::Ending => again(status(Code::Unavailable, "the replica is ending", why, "try again")),
    }
}

/// A declaration that makes no sense; `place` is its file and line, where that is known.
pub(crate) fn declaration(place: &str, what: &str, why: &str) -> Status {
    let (what, try_next) = match place.rsplit_once(':') {
        Some((file, _)) => {
            (format!("{place}: {what}"), format!("correct {file}; mainstay apply --dry-run changes nothing"))
        }
        None => (what.to_owned(), "mainstay apply --dry-run changes nothing".to_owned()),
    };
    status(Code::InvalidArgument, what, why, try_next)
}

/// Declarations that somebody else changed since they were compared.
pub(crate) fn declarations_changed(why: &str) -> Status {
    status(Code::Aborted, "the declarations changed meanwhile", why, "mainstay apply again, and look at the difference")
}

/// A receiver that nobody declared, with the nearest names.
pub(crate) fn receiver_unknown(name: &str, state: &State) -> Status {
    let near = nearest(name, state.notifications.receivers().map(|(name, ..)| name.as_str()));
    let why = near.map_or_else(|| "no receiver has that name".into(), |near| format!("nearest: {near}"));
    status(Code::NotFound, format!("receiver {name:?} is unknown"), why, "mainstay receiver ls")
}

/// A delivery that is neither owed nor remembered.
pub(crate) fn delivery_unknown(id: &str) -> Status {
    let why = "it never was, or ended long ago: the last 1000 are remembered";
    status(Code::NotFound, format!("delivery {id:?} is unknown"), why, "mainstay audit")
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

/// What the state's rules refuse.
pub(crate) fn refused(rejected: &Rejected, state: &State) -> Status {
    let what = rejected.to_string();
    let refuse = |code, why: &str, try_next: &str| status(code, &what, why, try_next);
    match rejected {
        Rejected::Node(node::Rejected::Unknown(name)) => node_unknown(name, state),
        Rejected::Node(node::Rejected::Taken(id)) => refuse(
            Code::AlreadyExists,
            "a name belongs to one key until the node is removed",
            &format!("mainstay-agent enroll --name OTHER, or first: mainstay node rm {id}"),
        ),
        Rejected::Node(node::Rejected::Removed) => refuse(
            Code::PermissionDenied,
            "a removed node's key never comes back",
            "mainstay-agent enroll with a new data directory",
        ),
        Rejected::Node(node::Rejected::Label(_) | node::Rejected::Labels) => {
            refuse(Code::InvalidArgument, "labels are short", "mainstay node label NAME zone=a rack-")
        }
        Rejected::Token(token::Rejected::Unknown) => {
            refuse(Code::PermissionDenied, "never made here, or its secret is wrong", "mainstay token create")
        }
        Rejected::Token(token::Rejected::Expired(_)) => {
            refuse(Code::PermissionDenied, "join tokens live for a while only", "mainstay token create")
        }
        Rejected::Token(token::Rejected::Used(_)) => refuse(
            Code::PermissionDenied,
            "a token admits as many machines as it was made for",
            "mainstay token create",
        ),
        Rejected::Token(token::Rejected::Revoked(_)) => refuse(
            Code::PermissionDenied,
            "an administrator took it back, or the cluster was restored",
            "mainstay token create",
        ),
        Rejected::Token(token::Rejected::Role(_)) => refuse(
            Code::PermissionDenied,
            "a token makes of its holder what it was made for",
            "mainstay token create for a node; mainstay cluster add for a replica",
        ),
        Rejected::User(user::Rejected::Taken(name)) => refuse(
            Code::AlreadyExists,
            "each person has a name of their own",
            &format!("another name, or first: mainstay user revoke {name}"),
        ),
        Rejected::User(user::Rejected::Unknown(_)) => {
            refuse(Code::NotFound, "nobody has that name", "mainstay user ls")
        }
        Rejected::Cluster(cluster::Rejected::Unknown(_)) => {
            refuse(Code::NotFound, "no replica has that id", "mainstay cluster status")
        }
        Rejected::Cluster(cluster::Rejected::Address(_)) => {
            refuse(Code::InvalidArgument, "others must be able to dial it", "--advertise 10.0.0.11:7443")
        }
        Rejected::Cluster(cluster::Rejected::Generation(..) | cluster::Rejected::Blank) => {
            refuse(Code::FailedPrecondition, "a restore begins a new generation", "mainstay-coordinator restore")
        }
        Rejected::Cluster(cluster::Rejected::Taken(id, _)) => refuse(
            Code::AlreadyExists,
            "each replica has addresses of its own",
            &format!("another --advertise, or first: mainstay cluster remove {id}"),
        ),
        Rejected::Cluster(cluster::Rejected::Removed(_)) => refuse(
            Code::PermissionDenied,
            "a removed replica's id and key never come back",
            "mainstay cluster add, and join anew in an empty data directory",
        ),
        Rejected::Cluster(cluster::Rejected::Last(_)) => {
            refuse(Code::FailedPrecondition, "nobody would decide any more", "mainstay cluster add another one first")
        }
        Rejected::Alert(_) => refuse(Code::FailedPrecondition, "it changed meanwhile, or is over", "mainstay alert ls"),
        Rejected::Notify(notify::Rejected::Unknown(name)) => receiver_unknown(name.as_str(), state),
        Rejected::Notify(notify::Rejected::NotOwed(_) | notify::Rejected::Claimed(_)) => {
            refuse(Code::FailedPrecondition, "it went on meanwhile, or is over", "mainstay receiver ls")
        }
        Rejected::Declare(declare::Rejected::Revision { .. }) => declarations_changed(&what),
        Rejected::Declare(declare::Rejected::Contradiction(_)) => {
            declaration("", "declarations contradict each other", &what)
        }
        Rejected::Request(request::Rejected::Reused(_)) => refuse(
            Code::AlreadyExists,
            "a name is for one request, word for word; secrets are part of it, and are made anew by every command",
            "mainstay audit tells what came of it; for something else: another --request",
        ),
        Rejected::Request(request::Rejected::Name) => {
            refuse(Code::InvalidArgument, "it is kept with its answer", "--request deploy-17")
        }
        Rejected::Request(request::Rejected::TooMany(_)) => {
            let why = "their answers are remembered for a day";
            let mut status = refuse(Code::ResourceExhausted, why, "wait, or ask without --request");
            status.metadata_mut().insert(UNNAMED, tonic::metadata::MetadataValue::from_static("1"));
            status
        }
        Rejected::Ca(ca::Rejected::Version) => refuse(
            Code::Aborted,
            "somebody else took a step, or this one was taken already",
            "mainstay cluster ca status",
        ),
        Rejected::Ca(ca::Rejected::Missing(_)) => refuse(
            Code::FailedPrecondition,
            "after this step they could not come in any more by themselves",
            "start their agents, or take them out: mainstay node rm; or give them up: mainstay cluster ca rotate --force",
        ),
        Rejected::Ca(ca::Rejected::Phase(_) | ca::Rejected::Root(_)) => {
            refuse(Code::FailedPrecondition, "a rotation goes on one phase at a time", "mainstay cluster ca status")
        }
        Rejected::User(user::Rejected::LastAdmin(_)) => refuse(
            Code::FailedPrecondition,
            "nobody could administer the cluster any more",
            "mainstay user add NAME --role admin --out FILE",
        ),
    }
}

/// A token that `revoke` does not find.
pub(crate) fn token_unknown(id: &str) -> Status {
    status(Code::NotFound, format!("token {id:?} is unknown"), "no token has that id", "mainstay token ls")
}

/// A token whose id another one has: the ids are 40 bits of a hash.
pub(crate) fn token_taken() -> Status {
    status(Code::Internal, "no token was made", "another token has its id, by chance", "mainstay token create again")
}

/// A certificate that was not signed.
pub(crate) fn unsigned(error: &Unsigned) -> Status {
    match error {
        Unsigned::Request(_) => status(Code::InvalidArgument, "no certificate was signed", error.to_string(), ""),
        Unsigned::Ca(_) => {
            status(Code::Internal, "no certificate was signed", error.to_string(), "look at the coordinator's log")
        }
        Unsigned::Closed(_) => status(
            Code::FailedPrecondition,
            "no certificate was signed",
            error.to_string(),
            "on the coordinator's machine: put that file back from a copy, and start the coordinator again",
        ),
    }
}

/// A backup without what opens the CA's key would restore nobody's way in.
pub(crate) fn no_backup(error: &Unsigned) -> Status {
    let try_next = "put that file back on this replica's machine; or take the backup when another replica leads: mainstay \
                    cluster transfer";
    status(Code::FailedPrecondition, "no backup was made", error.to_string(), try_next)
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

#[cfg(test)]
mod tests {
    use mainstay_core::Founding;

    use super::*;

    #[test]
    fn a_member_that_is_too_old_is_named_with_what_it_knows() {
        let (member, kind) = ("r2".parse().unwrap(), "cluster backup");
        let told = proposal(&ProposeError::Behind { member, knows: 1, kind, needs: 2 }, &state());
        assert_eq!(told.code(), Code::FailedPrecondition);
        let lines: Vec<&str> = told.message().lines().collect();
        let [what, why, try_next] = lines[..] else { panic!("{lines:?}") };
        assert_eq!(what, "r2 is too old for that");
        assert!(why.contains("version 1") && why.contains("cluster backup is of version 2"), "{why}");
        assert!(try_next.contains("mainstay cluster remove r2"), "{try_next}");
    }

    #[test]
    fn whoever_has_too_many_names_is_told_that_none_is_needed() {
        let told = |why: request::Rejected| refused(&why.into(), &state());
        assert!(told(request::Rejected::TooMany("admin/anna".into())).metadata().contains_key(UNNAMED));
        let reused = told(request::Rejected::Reused("q1".into()));
        assert_eq!((reused.code(), reused.metadata().contains_key(UNNAMED)), (Code::AlreadyExists, false));
    }

    fn state() -> State {
        State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        })
    }
}
