//! Who is where: from the state, and until there is one from the answer to the join.

use std::collections::BTreeMap;

use mainstay_core::{KeyFingerprint, State, cluster};

use crate::raft::ConfState;

/// Where a replica is, and what it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    /// Host:port.
    pub(crate) address: String,
    /// Its key, where that is known.
    pub(crate) key: Option<KeyFingerprint>,
}

/// Every replica that was not removed, or decides still, by Raft's number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contacts(pub(crate) BTreeMap<u64, Contact>);

impl Contacts {
    /// Takes over what the state says; true where that changes anything. What joined later than the state knows stays.
    pub(super) fn follow(&mut self, state: &State, members: &ConfState, own: u64) -> bool {
        if state.cluster.is_blank() {
            return false;
        }
        let listed = state.cluster.replicas().filter_map(|(id, _)| cluster::number(id));
        let known = listed.chain(members.all()).filter_map(|number| {
            let replica = state.cluster.replica(&cluster::numbered(number))?;
            Some((number, Contact { address: replica.peer_address.clone()?, key: replica.key }))
        });
        let mut fresh: BTreeMap<u64, Contact> = known.collect();
        let next = state.cluster.about().next_replica;
        fresh.extend(self.0.iter().filter(|(peer, _)| **peer >= next).map(|(peer, at)| (*peer, at.clone())));
        fresh.remove(&own);
        let changes = fresh != self.0;
        self.0 = fresh;
        changes
    }

    /// Somebody unknown says where it is; true where that is news.
    pub(super) fn meet(&mut self, peer: u64, address: &str) -> bool {
        let is_news = !self.0.contains_key(&peer);
        if is_news {
            self.0.insert(peer, Contact { address: address.to_owned(), key: None });
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::Founding;

    use super::*;

    #[test]
    fn the_state_decides_and_who_joined_later_is_kept() {
        let (mut contacts, nobody) = (Contacts::default(), ConfState::default());
        assert!(contacts.meet(1, "a:1") && !contacts.meet(1, "b:1"));
        assert!(contacts.meet(3, "c:1"));
        assert!(!contacts.follow(&State::blank(), &nobody, 2), "who knows nothing takes nothing away");

        let mut state = State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        });
        let key = KeyFingerprint([1; 32]);
        let advertise =
            cluster::Command::Advertise("r1".parse().unwrap(), "h:1".into(), Some("h:2".into()), Some(key), None);
        let at = mainstay_common::Timestamp(0);
        state.cluster.apply(at, &advertise).unwrap();
        assert!(contacts.follow(&state, &nobody, 2));
        assert_eq!(contacts.0[&1], Contact { address: "h:2".into(), key: Some(key) });
        assert_eq!(contacts.0[&3].address, "c:1");
        assert!(!contacts.follow(&state, &nobody, 2));

        state.cluster.join(KeyFingerprint([2; 32]), "i:1", "i:2", None);
        state.cluster.join(KeyFingerprint([3; 32]), "j:1", "j:2", None);
        let removed = cluster::Command::Remove("r1".parse().unwrap());
        state.cluster.apply(at, &removed).unwrap();
        let decides = ConfState { voters: vec![1, 2], ..ConfState::default() };
        assert!(contacts.follow(&state, &decides, 2) && contacts.0.contains_key(&1), "its say is needed yet");
        assert!(contacts.follow(&state, &nobody, 2) && !contacts.0.contains_key(&1));
    }
}
