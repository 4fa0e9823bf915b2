//! The handshake: both ends say who they are and whom they mean, before anything else.

use mainstay_common::ReplicaId;
use mainstay_core::cluster;
use mainstay_proto::v1 as pb;

use super::Own;
use crate::{
    raft::{Position, Shown},
    versions,
};

/// The versions of the protocol between replicas that this program speaks.
const OLDEST_PROTOCOL: u32 = 1;
/// See [`OLDEST_PROTOCOL`].
const NEWEST_PROTOCOL: u32 = 1;

/// Why two replicas do not speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unwelcome {
    /// No greeting came first.
    #[error("it did not begin with a greeting")]
    Silent,
    /// Somebody else's cluster.
    #[error("it is of cluster {theirs}, this one of {ours}")]
    Cluster { theirs: String, ours: String },
    /// One of them slept through a disaster restore.
    #[error(
        "it is of generation {theirs}, this one of {ours}: the cluster was restored in between. The older one has to join anew, with an empty data directory: mainstay cluster add"
    )]
    Generation { theirs: u64, ours: u64 },
    /// Its certificate says something else.
    #[error("it says that it is r{says}, and its certificate speaks for {shows}")]
    From { says: u64, shows: ReplicaId },
    /// It means another one: an address is wrong, or two replicas run on copies of one data directory.
    #[error("it means r{means}, and this is r{here}")]
    To { means: u64, here: u64 },
    /// No version in common.
    #[error("it speaks versions {oldest} to {newest} of the protocol, this one {OLDEST_PROTOCOL} to {NEWEST_PROTOCOL}")]
    Protocol { oldest: u32, newest: u32 },
}

/// What this replica says first.
pub(super) fn greeting(own: &Own, to: u64, shown: Shown) -> pb::Frames {
    let greeting = pb::Greeting {
        cluster: own.identity.cluster.to_string(),
        generation: own.identity.generation,
        from: own.identity.replica,
        to,
        oldest_protocol: OLDEST_PROTOCOL,
        newest_protocol: NEWEST_PROTOCOL,
        address: own.address.to_string(),
        entry_version: versions::known(),
        boot: shown.boot,
        term: shown.term,
        last_index: shown.last.index,
        last_term: shown.last.term,
    };
    pb::Frames { greeting: Some(greeting), frames: Vec::new(), state_hash: None }
}

/// How the other end says that it stands.
pub(super) fn shown(greeting: &pb::Greeting) -> Shown {
    let last = Position { index: greeting.last_index, term: greeting.last_term };
    Shown { boot: greeting.boot, term: greeting.term, last }
}

/// Whether the other end may be listened to; its number. `shows` is what its certificate speaks for.
pub(super) fn check(own: &Own, first: Option<pb::Frames>, shows: &ReplicaId) -> Result<pb::Greeting, Unwelcome> {
    let theirs = first.and_then(|first| first.greeting).ok_or(Unwelcome::Silent)?;
    let ours = &own.identity;
    if theirs.cluster != ours.cluster.as_str() {
        return Err(Unwelcome::Cluster { theirs: theirs.cluster, ours: ours.cluster.to_string() });
    }
    if theirs.generation != ours.generation {
        return Err(Unwelcome::Generation { theirs: theirs.generation, ours: ours.generation });
    }
    if cluster::number(shows) != Some(theirs.from) {
        return Err(Unwelcome::From { says: theirs.from, shows: shows.clone() });
    }
    if theirs.to != ours.replica {
        return Err(Unwelcome::To { means: theirs.to, here: ours.replica });
    }
    if theirs.oldest_protocol > NEWEST_PROTOCOL || theirs.newest_protocol < OLDEST_PROTOCOL {
        return Err(Unwelcome::Protocol { oldest: theirs.oldest_protocol, newest: theirs.newest_protocol });
    }
    Ok(theirs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use mainstay_common::process::tls::pinned_config;

    use super::*;
    use crate::raft::store::Identity;

    #[test]
    fn whoever_is_not_who_is_meant_is_told_why() {
        let (r1, r2) = (own(1), own(2));
        let stands = Shown { boot: 7, term: 3, last: Position { index: 9, term: 2 } };
        let said = |to| greeting(&r1, to, stands);
        let shows: ReplicaId = "r1".parse().unwrap();
        let welcome = check(&r2, Some(said(2)), &shows).unwrap();
        assert_eq!((welcome.from, shown(&welcome)), (1, stands));
        assert_eq!(check(&r2, Some(said(3)), &shows), Err(Unwelcome::To { means: 3, here: 2 }));
        let other = "r3".parse().unwrap();
        assert_eq!(check(&r2, Some(said(2)), &other), Err(Unwelcome::From { says: 1, shows: other.clone() }));
        assert_eq!(check(&r2, Some(pb::Frames::default()), &shows), Err(Unwelcome::Silent));
        let with = |change: fn(&mut pb::Greeting)| {
            let mut said = said(2);
            said.greeting.iter_mut().for_each(change);
            check(&r2, Some(said), &shows)
        };
        assert!(matches!(with(|said| said.generation = 2), Err(Unwelcome::Generation { theirs: 2, ours: 1 })));
        assert!(matches!(with(|said| said.cluster = "c2".into()), Err(Unwelcome::Cluster { .. })));
        assert!(matches!(with(|said| said.oldest_protocol = 9), Err(Unwelcome::Protocol { oldest: 9, .. })));
    }

    fn own(replica: u64) -> Own {
        let identity = Identity { cluster: "c1".parse().unwrap(), generation: 1, replica };
        Own { identity, address: "h:1".into(), tls: Arc::new(ArcSwap::new(pinned_config([0; 32]))) }
    }
}
