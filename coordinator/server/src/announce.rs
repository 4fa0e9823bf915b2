//! A replica's own entry in the list: its addresses and its key, brought up to date when it leads.

use std::time::Duration;

use mainstay_common::process::shutdown::CancellationToken;
use mainstay_core::{Actor, Command, KeyFingerprint, State, cluster};
use tokio::time::sleep;

use crate::{config::next_port, log::Log};

/// How long it waits where the log did not take it.
const AGAIN: Duration = Duration::from_secs(1);

/// What this replica wants to be known by.
pub(crate) struct Announcement {
    pub(crate) log: Log,
    /// What agents and operators dial from now on, where that changed.
    pub(crate) address: Option<String>,
    /// What other replicas dial from now on, where that changed.
    pub(crate) peer_address: Option<String>,
    pub(crate) key: Option<KeyFingerprint>,
}

impl Announcement {
    /// Waits until this replica leads, and says it once.
    pub(crate) async fn make(self, stop: CancellationToken) {
        let mut leader = self.log.raft().leader();
        loop {
            tokio::select! {
                led = leader.wait_for(Option::is_some) => if led.is_err() { return },
                () = stop.cancelled() => return,
            }
            let Some(command) = self.due(&self.log.read()) else { return };
            let by = self.log.own(Actor::Replica(self.log.replica().clone()));
            match self.log.propose(by, Command::Cluster(command)).await {
                Ok(_) => return,
                Err(error) => tracing::info!(%error, "this replica's addresses are not announced yet"),
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// What is not in the list yet. A list of a version without peers' addresses and keys gets them.
    fn due(&self, state: &State) -> Option<cluster::Command> {
        let id = self.log.replica();
        let listed = state.cluster.replica(id)?;
        let address = self.address.clone().unwrap_or_else(|| listed.address.clone());
        let peers = self.peer_address.clone().or_else(|| listed.peer_address.clone());
        let peers = peers.unwrap_or_else(|| next_port(&address));
        let news = listed.address != address
            || listed.peer_address.as_ref() != Some(&peers)
            || (self.key.is_some() && listed.key != self.key);
        news.then(|| cluster::Command::Advertise(id.clone(), address, Some(peers), self.key))
    }
}
