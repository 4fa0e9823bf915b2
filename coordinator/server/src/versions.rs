//! Which version of the log's entries this replica knows, and what others say of themselves: nothing is proposed that
//! some member does not know.

use std::{collections::BTreeMap, sync::Arc};

use mainstay_common::ReplicaId;
use mainstay_core::{State, cluster, entry};
use tokio::sync::watch;

/// What this replica knows. A test lowers it with `MAINSTAY_ENTRY_VERSION`, in builds with debug assertions only.
#[cfg(debug_assertions)]
pub(crate) fn known() -> u32 {
    use std::sync::OnceLock;

    static LOWERED: OnceLock<Option<u32>> = OnceLock::new();
    let lowered = LOWERED.get_or_init(|| std::env::var("MAINSTAY_ENTRY_VERSION").ok()?.parse().ok());
    lowered.map_or(entry::VERSION, |lowered| lowered.min(entry::VERSION))
}

/// What this replica knows.
#[cfg(not(debug_assertions))]
pub(crate) fn known() -> u32 {
    entry::VERSION
}

/// What other replicas said when they were met last, by Raft's number. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Arc<watch::Sender<BTreeMap<u64, u32>>>);

impl Versions {
    /// Another replica was met. One of a version before says nothing.
    pub(crate) fn note(&self, peer: u64, said: u32) {
        self.0.send_if_modified(|versions| versions.insert(peer, said.max(1)) != Some(said.max(1)));
    }

    /// Tells when somebody said something new.
    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<u64, u32>> {
        self.0.subscribe()
    }

    /// A member that does not know entries of that version, and which it knows.
    pub(crate) fn behind(&self, version: u32, own: u64, state: &State) -> Option<(ReplicaId, u32)> {
        let said = self.0.borrow();
        let said = |id: &ReplicaId| {
            let number = cluster::number(id)?;
            if number == own { Some(known()) } else { said.get(&number).copied() }
        };
        state.cluster.behind(version, said).map(|(id, knows)| (id.clone(), knows))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::Founding;

    use super::*;

    #[test]
    fn a_member_that_does_not_know_it_is_named() {
        let founding = |replica: &str| Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: replica.parse().unwrap(),
            address: "h:1".into(),
        };
        let (state, versions) = (State::founded(founding("r2")), Versions::default());
        let behind = |version| versions.behind(version, 1, &state).map(|(id, knows)| (id.to_string(), knows));
        assert_eq!(behind(1), None);
        assert_eq!(behind(2), Some(("r2".into(), 1)), "nobody knows more of it");
        versions.note(2, 2);
        assert_eq!((behind(2), behind(3)), (None, Some(("r2".into(), 2))));
        versions.note(2, 0);
        assert_eq!(behind(2), Some(("r2".into(), 1)), "it was put back");
        assert_eq!(versions.behind(entry::VERSION, 2, &state), None, "itself it knows best");
    }
}
