//! Why a decision did not come about, or nobody knows whether it did.

use mainstay_core::{Rejected, State, ca, cluster, declare, node, notify, request, token, user};
use tonic::{Code, Status};

use super::{declaration, declarations_changed, node_unknown, receiver_unknown, status};
use crate::{log::ProposeError, raft};

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
const AGAIN: &str = "mainstay-again";

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
