use mainstay_common::{ReplicaId, Timestamp};

use super::*;
use crate::KeyFingerprint;

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
