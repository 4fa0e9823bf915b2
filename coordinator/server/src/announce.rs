//! A replica's own entry in the list: its addresses, its key and which version of entries it knows, brought up to date.

use std::{sync::Arc, time::Duration};

use mainstay_common::process::shutdown::CancellationToken;
use mainstay_core::{Actor, Command, KeyFingerprint, State, cluster};
use tokio::time::sleep;

use crate::{config::next_port, log::Log, peers::Network, versions};

/// How long it waits where the log did not take it.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it looks whether there is anything to say.
const SWEEP: Duration = Duration::from_secs(10);

/// What this replica wants to be known by.
pub(crate) struct Announcement {
    pub(crate) log: Log,
    pub(crate) network: Arc<Network>,
    /// What agents and operators dial from now on, where that changed.
    pub(crate) address: Option<String>,
    /// What other replicas dial from now on, where that changed.
    pub(crate) peer_address: Option<String>,
    pub(crate) key: Option<KeyFingerprint>,
}

impl Announcement {
    /// Says it whenever the list does not have it: to the log where this replica leads, else to whoever does.
    pub(crate) async fn make(self, stop: CancellationToken) {
        let (mut leader, mut versions) = (self.log.raft().leader(), self.log.versions().watch());
        loop {
            let mut again = SWEEP;
            if let Some(news) = self.due(&self.log.read()) {
                let leads = leader.borrow_and_update().is_some();
                let said = if leads { self.propose(news).await } else { self.network.announce(&news.0, &news.1).await };
                if let Err(why) = said {
                    tracing::debug!(why, "this replica's addresses are not announced yet");
                }
                again = AGAIN;
            }
            tokio::select! {
                changed = leader.changed() => if changed.is_err() { return },
                // What they know decides what may be told.
                Ok(()) = versions.changed() => {}
                () = sleep(again) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn propose(&self, (address, peers): (String, String)) -> Result<(), String> {
        let version = self.log.may_tell_versions().then(versions::known);
        let command = cluster::Command::Advertise(self.log.replica().clone(), address, Some(peers), self.key, version);
        let by = self.log.own(Actor::Replica(self.log.replica().clone()));
        self.log.propose(by, Command::Cluster(command)).await.map(drop).map_err(|error| error.to_string())
    }

    /// What is not in the list yet. A list of a version without peers' addresses and keys gets them.
    fn due(&self, state: &State) -> Option<(String, String)> {
        let id = self.log.replica();
        let listed = state.cluster.replica(id)?;
        let address = self.address.clone().unwrap_or_else(|| listed.address.clone());
        let peers = self.peer_address.clone().or_else(|| listed.peer_address.clone());
        let peers = peers.unwrap_or_else(|| next_port(&address));
        let news = listed.address != address
            || listed.peer_address.as_ref() != Some(&peers)
            || (self.key.is_some() && listed.key != self.key)
            || (listed.version != Some(versions::known()) && self.log.may_tell_versions());
        news.then_some((address, peers))
    }
}
