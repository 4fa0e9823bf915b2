//! Of all managers of one Swarm, one reports what they all see.

use std::collections::BTreeMap;

use mainstay_common::{NodeId, Timestamp, state::NodeState};

use super::{LiveView, presence};

/// The chosen node of every Swarm: the first by name whose samples arrive. Stable as long as that one stays.
#[must_use]
pub fn swarm_reporters(live: &LiveView, now: Timestamp) -> Vec<NodeId> {
    let mut chosen: BTreeMap<&str, &NodeId> = BTreeMap::new();
    for (id, view) in live.nodes() {
        let Some(swarm) = view.swarm.as_ref().filter(|swarm| swarm.manager && !swarm.cluster_id.is_empty()) else {
            continue;
        };
        let ready = presence(Some(view), now, live.listening_since, now).state == NodeState::Ready;
        if ready && view.engine_answers() {
            chosen.entry(&swarm.cluster_id).or_insert(id);
        }
    }
    chosen.into_values().cloned().collect()
}
