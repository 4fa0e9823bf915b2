//! How the cluster changes.

use mainstay_common::{ReplicaId, Timestamp};
use minicbor::{Decode, Encode};

use super::model::{About, Founding, Replica, Standing, number, numbered};
use crate::{KeyFingerprint, Table};

/// Bytes of the longest address.
const MAX_ADDRESS: usize = 261;
/// Numbers that a disaster restore leaves out: what it restores may not know of all that were given.
const NUMBERS_LEFT_OUT: u64 = 100;

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

fn check_address(address: &str) -> Result<(), Rejected> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if address.len() > MAX_ADDRESS || !matches!(port, Some(Ok(1..))) {
        return Err(Rejected::Address(address.into()));
    }
    Ok(())
}
