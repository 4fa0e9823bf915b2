//! The cluster itself: its names, its generation, its replicas.

use std::fmt;

use mainstay_common::{ClusterId, ReplicaId};
use minicbor::{Decode, Encode};

use crate::Table;

/// Bytes of the longest address.
const MAX_ADDRESS: usize = 261;

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
}

/// A member of the Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replica {
    /// What agents and operators dial, host:port.
    #[n(0)]
    pub address: String,
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
    /// A replica is dialled there from now on.
    #[n(0)]
    Advertise(#[n(0)] ReplicaId, #[n(1)] String),
}

/// What a command brought about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// The replica's address is kept.
    #[n(0)]
    Advertised,
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
        let about = About { id, name, generation: 1, next_replica: 2 };
        Self { about, replicas: [(replica, Replica { address })].into_iter().collect() }
    }

    /// Applies one committed command.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Advertise(id, address) => self.advertise(id, address),
        }
    }

    /// What is said once of the whole cluster.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Every replica, by id.
    pub fn replicas(&self) -> impl Iterator<Item = (&ReplicaId, &Replica)> {
        self.replicas.iter()
    }

    fn advertise(&mut self, id: &ReplicaId, address: &str) -> Result<Consequence, Rejected> {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if address.len() > MAX_ADDRESS || !matches!(port, Some(Ok(1..))) {
            return Err(Rejected::Address(address.into()));
        }
        let replica = self.replicas.get_mut(id).ok_or_else(|| Rejected::Unknown(id.clone()))?;
        address.clone_into(&mut replica.address);
        Ok(Consequence::Advertised)
    }
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
        cluster.apply(&Command::Advertise(r1.clone(), "[::1]:7443".into())).unwrap();
        assert_eq!(cluster.replicas().next().unwrap().1.address, "[::1]:7443");
        for bad in ["", "host", ":7443", "host:0", "host:70000", "host:"] {
            let refused = cluster.apply(&Command::Advertise(r1.clone(), bad.into()));
            assert_eq!(refused, Err(Rejected::Address(bad.into())));
        }
        assert_eq!(cluster.apply(&Command::Advertise(r2.clone(), "h:1".into())), Err(Rejected::Unknown(r2)));
    }

    #[test]
    fn a_restored_cluster_outranks_every_term_of_before() {
        assert!(Fence { generation: 2, term: 1 } > Fence { generation: 1, term: 99 });
    }
}
