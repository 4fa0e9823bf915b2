//! The cluster itself: its names, its generation, its replicas.

use std::fmt;

use mainstay_common::{ClusterId, ReplicaId, Timestamp};
use minicbor::{Decode, Encode};

use crate::{KeyFingerprint, Table};

/// Bytes of the longest address.
const MAX_ADDRESS: usize = 261;
/// Numbers that a disaster restore leaves out: what it restores may not know of all that were given.
const NUMBERS_LEFT_OUT: u64 = 100;

/// What a cluster is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// Its name for ever.
    pub id: ClusterId,
    /// Its name for people.
    pub name: String,
    /// Its first replica.
    pub replica: ReplicaId,
    /// What agents and operators dial there, host:port.
    pub address: String,
}

/// What is said once of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct About {
    /// Its name for ever: the trust domain of its certificates.
    #[n(0)]
    pub id: ClusterId,
    /// Its name for people.
    #[n(1)]
    pub name: String,
    /// Counts disaster restores, after which terms start again.
    #[n(2)]
    pub generation: u64,
    /// The number of the next replica: numbers are never used twice.
    #[n(3)]
    pub next_replica: u64,
    /// When somebody took a backup last.
    #[n(4)]
    pub backed_up_at: Option<Timestamp>,
}

/// A member of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replica {
    /// What agents and operators dial, host:port.
    #[n(0)]
    pub address: String,
    /// What other replicas dial, host:port; `None` where an earlier version founded the cluster, and nobody else joined.
    #[n(1)]
    pub peer_address: Option<String>,
    /// The one key that may speak for it; `None` as for the address.
    #[n(2)]
    pub key: Option<KeyFingerprint>,
    /// When it was removed: its id is never used again.
    #[n(3)]
    pub removed_at: Option<Timestamp>,
    /// The version of entries that it says it knows; `None` for one that says nothing of it, which knows version 1.
    #[n(4)]
    pub version: Option<u32>,
    /// Nobody removed it: the disaster restore that began this generation went on without it.
    #[n(5)]
    pub left_out_of: Option<u64>,
}

/// What becomes of somebody who speaks for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A replica of this cluster.
    Member,
    /// It was removed, or a disaster restore went on without it.
    Removed,
    /// The name is another key's.
    OtherKey,
    /// It joined later than what is known here.
    Later,
    /// Nothing is known of it here.
    Unknown,
}

/// What work carries, so that a leader of the past is refused: first the generation counts, then the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Fence {
    /// Of the cluster.
    #[n(0)]
    pub generation: u64,
    /// Of the leader.
    #[n(1)]
    pub term: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.term)
    }
}

/// How the cluster may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// A replica is dialled there from now on: by agents and operators, by other replicas; which key is its own, and
    /// which version of entries it knows. What is `None` stays as it is.
    #[n(0)]
    Advertise(
        #[n(0)] ReplicaId,
        #[n(1)] String,
        #[n(2)] Option<String>,
        #[n(3)] Option<KeyFingerprint>,
        #[n(4)] Option<u32>,
    ),
    /// A replica goes for good.
    #[n(1)]
    Remove(#[n(0)] ReplicaId),
    /// Somebody takes a backup: whoever holds it holds the cluster, so it is a decision like others.
    #[n(2)]
    Backup,
    /// The majority is lost for good: one replica goes on without the others. Never proposed; the founding checkpoint of
    /// a new generation is made by it.
    #[n(3)]
    Restore(#[n(0)] Restore),
}

/// What a new generation begins with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Restore {
    /// Higher than any before.
    #[n(0)]
    pub generation: u64,
    /// What agents and operators dial at its only replica, host:port.
    #[n(1)]
    pub address: String,
    /// What other replicas will dial there, host:port.
    #[n(2)]
    pub peer_address: String,
    /// The key of that replica.
    #[n(3)]
    pub key: KeyFingerprint,
}

/// What a command brought about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// The replica's address is kept.
    #[n(0)]
    Advertised,
    /// The replica's id is never used again.
    #[n(1)]
    Removed(#[n(0)] ReplicaId),
    /// The state may leave the cluster as a backup.
    #[n(2)]
    BackedUp,
    /// This replica alone is the cluster now.
    #[n(3)]
    Restored(#[n(0)] ReplicaId),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such replica.
    #[error("replica {0} is unknown")]
    Unknown(ReplicaId),
    /// Nobody could dial it.
    #[error("{0:?} is no address: write host:port")]
    Address(String),
    /// It went for good.
    #[error("replica {0} was removed")]
    Removed(ReplicaId),
    /// Nobody would be left.
    #[error("replica {0} is the last one")]
    Last(ReplicaId),
    /// Another replica is dialled there.
    #[error("replica {0} is dialled at {1} already")]
    Taken(ReplicaId, String),
    /// Somebody may have seen that one already.
    #[error("generation {0} does not come after generation {1}")]
    Generation(u64, u64),
    /// There is nothing to restore.
    #[error("the state is empty: that replica joined, and was told nothing yet")]
    Blank,
}

/// The cluster and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub(crate) about: About,
    pub(crate) replicas: Table<ReplicaId, Replica>,
}

impl Cluster {
    /// A cluster of one replica.
    #[must_use]
    pub fn founded(founding: Founding) -> Self {
        let Founding { id, name, replica, address } = founding;
        let about = About { id, name, generation: 1, next_replica: 2, backed_up_at: None };
        let first =
            Replica { address, peer_address: None, key: None, removed_at: None, version: None, left_out_of: None };
        Self { about, replicas: [(replica, first)].into_iter().collect() }
    }

    /// Applies one committed command; `at` is the moment at which it was proposed.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Advertise(id, address, peers, key, version) => {
                self.advertise(id, address, peers.as_deref(), *key, *version)
            }
            Command::Remove(id) => self.remove(at, id),
            Command::Backup => {
                self.about.backed_up_at = Some(at);
                Ok(Consequence::BackedUp)
            }
            Command::Restore(restore) => self.restore(at, restore),
        }
    }

    /// What is said once of the whole cluster.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Every replica that was not removed, by id.
    pub fn replicas(&self) -> impl Iterator<Item = (&ReplicaId, &Replica)> {
        self.replicas.iter().filter(|(_, replica)| replica.removed_at.is_none())
    }

    /// A replica, also one that was removed.
    #[must_use]
    pub fn replica(&self, id: &ReplicaId) -> Option<&Replica> {
        self.replicas.get(id)
    }

    /// What becomes of somebody who speaks for that replica with that key.
    #[must_use]
    pub fn standing(&self, id: &ReplicaId, key: KeyFingerprint) -> Standing {
        match self.replicas.get(id) {
            None if number(id).is_some_and(|number| self.is_blank() || number >= self.about.next_replica) => {
                Standing::Later
            }
            // Its number was given, but not in what was restored: it is of the time that was lost.
            None if number(id).is_some() => Standing::Removed,
            None => Standing::Unknown,
            Some(replica) if replica.removed_at.is_some() => Standing::Removed,
            Some(replica) => match replica.key {
                None => Standing::Unknown,
                Some(own) if own == key => Standing::Member,
                Some(_) => Standing::OtherKey,
            },
        }
    }

    /// A member that does not know entries of that version, as far as is known, and which it knows. `said` is what
    /// members said of themselves when they were met last.
    #[must_use]
    pub fn behind(&self, version: u32, said: impl Fn(&ReplicaId) -> Option<u32>) -> Option<(&ReplicaId, u32)> {
        let knows = |(id, replica): (_, &Replica)| (id, said(id).or(replica.version).unwrap_or(1));
        self.replicas().map(knows).find(|(_, knows)| *knows < version)
    }

    /// Nothing is known here: the state of a replica that joined and was told nothing yet.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.replicas.iter().next().is_none()
    }

    /// The replica with that key, whatever became of it.
    #[must_use]
    pub fn by_key(&self, key: KeyFingerprint) -> Option<(&ReplicaId, &Replica)> {
        self.replicas.iter().find(|(_, replica)| replica.key == Some(key))
    }

    /// Whether a replica with that key and these addresses may come in; the id of one that is in already.
    ///
    /// # Errors
    /// [`Rejected`] says why not.
    pub(crate) fn may_join(
        &self,
        key: KeyFingerprint,
        address: &str,
        peers: &str,
    ) -> Result<Option<ReplicaId>, Rejected> {
        check_address(address)?;
        check_address(peers)?;
        match self.by_key(key) {
            Some((id, replica)) if replica.removed_at.is_some() => return Err(Rejected::Removed(id.clone())),
            Some((id, _)) => return Ok(Some(id.clone())),
            None => {}
        }
        let taken = |replica: &Replica| {
            let theirs = [Some(&replica.address), replica.peer_address.as_ref()];
            [address, peers].into_iter().find(|ours| theirs.into_iter().flatten().any(|there| there == ours))
        };
        match self.replicas().find_map(|(id, replica)| Some((id, taken(replica)?))) {
            Some((id, address)) => Err(Rejected::Taken(id.clone(), address.into())),
            None => Ok(None),
        }
    }

    /// Takes in a replica that may join; the id that it has from now on.
    pub fn join(&mut self, key: KeyFingerprint, address: &str, peers: &str, version: Option<u32>) -> ReplicaId {
        if let Some((id, _)) = self.by_key(key) {
            return id.clone();
        }
        let id = numbered(self.about.next_replica);
        self.about.next_replica += 1;
        let (address, peer_address, key) = (address.to_owned(), Some(peers.to_owned()), Some(key));
        let replica = Replica { address, peer_address, key, removed_at: None, version, left_out_of: None };
        self.replicas.insert(id.clone(), replica);
        id
    }

    fn advertise(
        &mut self,
        id: &ReplicaId,
        address: &str,
        peers: Option<&str>,
        key: Option<KeyFingerprint>,
        version: Option<u32>,
    ) -> Result<Consequence, Rejected> {
        check_address(address)?;
        peers.map_or(Ok(()), check_address)?;
        let replica = self.replicas.get_mut(id).ok_or_else(|| Rejected::Unknown(id.clone()))?;
        if replica.removed_at.is_some() {
            return Err(Rejected::Removed(id.clone()));
        }
        address.clone_into(&mut replica.address);
        if let Some(peers) = peers {
            replica.peer_address = Some(peers.to_owned());
        }
        replica.key = key.or(replica.key);
        replica.version = version.or(replica.version);
        Ok(Consequence::Advertised)
    }

    /// Named by its id, so that removing it twice is removing it once.
    fn remove(&mut self, at: Timestamp, id: &ReplicaId) -> Result<Consequence, Rejected> {
        let others = self.replicas().any(|(other, _)| other != id);
        let replica = self.replicas.get_mut(id).ok_or_else(|| Rejected::Unknown(id.clone()))?;
        if replica.removed_at.is_none() && !others {
            return Err(Rejected::Last(id.clone()));
        }
        replica.removed_at.get_or_insert(at);
        Ok(Consequence::Removed(id.clone()))
    }

    fn restore(&mut self, at: Timestamp, restore: &Restore) -> Result<Consequence, Rejected> {
        let Restore { generation, address, peer_address, key } = restore;
        check_address(address)?;
        check_address(peer_address)?;
        if self.is_blank() {
            return Err(Rejected::Blank);
        }
        if *generation <= self.about.generation {
            return Err(Rejected::Generation(*generation, self.about.generation));
        }
        let others: Vec<ReplicaId> = self.replicas().map(|(id, _)| id.clone()).collect();
        for other in others {
            if let Some(replica) = self.replicas.get_mut(&other) {
                (replica.removed_at, replica.left_out_of) = (Some(at), Some(*generation));
            }
        }
        self.about.generation = *generation;
        self.about.next_replica += NUMBERS_LEFT_OUT;
        Ok(Consequence::Restored(self.join(*key, address, peer_address, None)))
    }
}

/// Raft's number of a replica: `r7` is 7.
#[must_use]
pub fn number(id: &ReplicaId) -> Option<u64> {
    id.as_str().strip_prefix('r').and_then(|digits| digits.parse().ok())
}

/// The replica of Raft's number.
///
/// # Panics
/// Never: `r` and a number is a name.
#[must_use]
pub fn numbered(number: u64) -> ReplicaId {
    format!("r{number}").parse().expect("r and a number is a name")
}

fn check_address(address: &str) -> Result<(), Rejected> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if address.len() > MAX_ADDRESS || !matches!(port, Some(Ok(1..))) {
        return Err(Rejected::Address(address.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_moves_only_to_where_it_can_be_dialled() {
        let (r1, r2): (ReplicaId, ReplicaId) = ("r1".parse().unwrap(), "r2".parse().unwrap());
        let founding = Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: r1.clone(),
            address: "10.0.0.1:7443".into(),
        };
        let mut cluster = Cluster::founded(founding);
        let mut advertise = |id: &ReplicaId, address: &str| {
            cluster.apply(Timestamp(0), &Command::Advertise(id.clone(), address.into(), None, None, None))
        };
        advertise(&r1, "[::1]:7443").unwrap();
        for bad in ["", "host", ":7443", "host:0", "host:70000", "host:"] {
            assert_eq!(advertise(&r1, bad), Err(Rejected::Address(bad.into())));
        }
        assert_eq!(advertise(&r2, "h:1"), Err(Rejected::Unknown(r2)));
        assert_eq!(cluster.replicas().next().unwrap().1.address, "[::1]:7443");
    }

    #[test]
    fn a_removed_replica_keeps_its_id_for_ever() {
        let (r1, key): (ReplicaId, _) = ("r1".parse().unwrap(), |number| KeyFingerprint([number; 32]));
        let founding =
            Founding { id: "c1".parse().unwrap(), name: "prod".into(), replica: r1.clone(), address: "h:1".into() };
        let mut cluster = Cluster::founded(founding);
        assert_eq!(cluster.apply(Timestamp(5), &Command::Remove(r1.clone())), Err(Rejected::Last(r1.clone())));
        let r2 = cluster.join(key(2), "i:1", "i:2", None);
        assert_eq!(
            (r2.as_str(), cluster.join(key(2), "i:1", "i:2", None)),
            ("r2", r2.clone()),
            "asking again is no second join"
        );
        assert_eq!(cluster.may_join(key(3), "j:1", "i:2"), Err(Rejected::Taken(r2.clone(), "i:2".into())));
        cluster.apply(Timestamp(6), &Command::Remove(r2.clone())).unwrap();
        assert_eq!(cluster.standing(&r2, key(2)), Standing::Removed);
        assert_eq!(cluster.may_join(key(2), "i:1", "i:2"), Err(Rejected::Removed(r2.clone())));
        let advertise = Command::Advertise(r2.clone(), "k:1".into(), None, None, None);
        assert_eq!(cluster.apply(Timestamp(7), &advertise), Err(Rejected::Removed(r2)));
        assert_eq!(cluster.may_join(key(3), "i:1", "i:2"), Ok(None), "its addresses are free");
        assert_eq!(cluster.join(key(3), "i:1", "i:2", None).as_str(), "r3");
        assert_eq!(cluster.replicas().count(), 2);
    }

    #[test]
    fn whoever_does_not_know_a_version_is_named_as_it_says_itself() {
        let (r1, key): (ReplicaId, _) = ("r1".parse().unwrap(), |number| KeyFingerprint([number; 32]));
        let founding =
            Founding { id: "c1".parse().unwrap(), name: "prod".into(), replica: r1.clone(), address: "h:1".into() };
        let mut cluster = Cluster::founded(founding);
        let says = |id: &ReplicaId, version| Command::Advertise(id.clone(), "h:1".into(), None, None, Some(version));
        assert_eq!(cluster.behind(1, |_| None), None);
        assert_eq!(cluster.behind(2, |_| None), Some((&r1, 1)), "of a version that says nothing");
        cluster.apply(Timestamp(0), &says(&r1, 2)).unwrap();
        assert_eq!(cluster.behind(2, |_| None), None);
        let r2 = cluster.join(key(2), "i:1", "i:2", None);
        assert_eq!(cluster.behind(2, |_| None), Some((&r2, 1)));
        assert_eq!(cluster.behind(2, |id| (*id == r2).then_some(2)), None, "it said so when it was met");
        assert_eq!(cluster.behind(3, |_| Some(3)), None);
        // It was put back: what it says now counts.
        assert_eq!(cluster.behind(2, |id| Some(if *id == r1 { 1 } else { 2 })), Some((&r1, 1)));
        cluster.apply(Timestamp(0), &Command::Remove(r2)).unwrap();
        assert_eq!(cluster.behind(2, |_| None), None, "who was removed hinders nobody");
        let r3 = cluster.join(key(3), "j:1", "j:2", Some(2));
        assert_eq!((cluster.replica(&r3).unwrap().version, cluster.behind(2, |_| None)), (Some(2), None));
    }

    #[test]
    fn only_its_own_key_speaks_for_a_replica() {
        let (r1, key): (ReplicaId, _) = ("r1".parse().unwrap(), |number| KeyFingerprint([number; 32]));
        let founding =
            Founding { id: "c1".parse().unwrap(), name: "prod".into(), replica: r1.clone(), address: "h:1".into() };
        let mut cluster = Cluster::founded(founding);
        assert_eq!(cluster.standing(&r1, key(1)), Standing::Unknown, "of a version that noted no keys");
        let advertise = Command::Advertise(r1.clone(), "h:1".into(), Some("h:2".into()), Some(key(1)), None);
        cluster.apply(Timestamp(0), &advertise).unwrap();
        assert_eq!(cluster.standing(&r1, key(1)), Standing::Member);
        assert_eq!(cluster.standing(&r1, key(2)), Standing::OtherKey);
        assert_eq!(cluster.standing(&numbered(2), key(2)), Standing::Later);
        assert_eq!(cluster.standing(&"x".parse().unwrap(), key(2)), Standing::Unknown);
        assert_eq!(cluster.standing(&numbered(0), key(2)), Standing::Removed, "no number is given again");
        let moved = Command::Advertise(r1.clone(), "i:1".into(), None, None, None);
        cluster.apply(Timestamp(0), &moved).unwrap();
        assert_eq!(cluster.replica(&r1).unwrap().peer_address.as_deref(), Some("h:2"));
        assert_eq!(cluster.standing(&r1, key(1)), Standing::Member);
    }

    #[test]
    fn a_restore_goes_on_without_all_others_under_a_number_that_nobody_had() {
        let (r1, key): (ReplicaId, _) = ("r1".parse().unwrap(), |number| KeyFingerprint([number; 32]));
        let founding =
            Founding { id: "c1".parse().unwrap(), name: "prod".into(), replica: r1.clone(), address: "h:1".into() };
        let mut cluster = Cluster::founded(founding);
        let r2 = cluster.join(key(2), "i:1", "i:2", None);
        cluster.apply(Timestamp(5), &Command::Remove(r2.clone())).unwrap();
        let restore = |generation, address: &str| {
            Command::Restore(Restore { generation, address: address.into(), peer_address: "h:2".into(), key: key(9) })
        };
        let before = cluster.clone();
        assert_eq!(cluster.apply(Timestamp(7), &restore(1, "h:1")), Err(Rejected::Generation(1, 1)));
        assert_eq!(cluster.apply(Timestamp(7), &restore(2, "h")), Err(Rejected::Address("h".into())));
        assert_eq!(cluster, before, "a refusal changes nothing");

        let restored = numbered(103);
        assert_eq!(cluster.apply(Timestamp(7), &restore(2, "h:1")), Ok(Consequence::Restored(restored.clone())));
        assert_eq!(cluster.replicas().map(|(id, _)| id).collect::<Vec<_>>(), [&restored]);
        assert_eq!(cluster.about().generation, 2);
        assert_eq!(cluster.standing(&restored, key(9)), Standing::Member);
        assert_eq!(cluster.replica(&r1).unwrap().left_out_of, Some(2));
        assert_eq!(
            (cluster.replica(&r2).unwrap().removed_at, cluster.replica(&r2).unwrap().left_out_of),
            (Some(Timestamp(5)), None)
        );
        for (gone, why) in [(r1, "left out"), (r2, "removed before"), (numbered(50), "of the time that was lost")] {
            assert_eq!(cluster.standing(&gone, key(2)), Standing::Removed, "{why}");
        }
        assert_eq!(cluster.join(key(3), "i:1", "i:2", None).as_str(), "r104");
    }

    #[test]
    fn a_restored_cluster_outranks_every_term_of_before() {
        assert!(Fence { generation: 2, term: 1 } > Fence { generation: 1, term: 99 });
    }
}
