//! Whatever happens: nothing panics, replicas end equal, checkpoints read back, plans settle, and nobody is told twice.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod world;

use std::{collections::BTreeMap, time::Duration};

use mainstay_common::{Timestamp, state::DiskState};
use mainstay_core::{
    Actor, Command, Entry, Fence, KeyFingerprint, Origin, State,
    alert::{self, AlertId, Change, End, Episode, Event, Known, Pend, RuleId, Space, Turn, Where, quantity::Percent},
    cluster, codec, declare, node, notify, token, user,
};
use proptest::{collection::vec, prelude::*};
use world::{MIDNIGHT, Manner, Seen, World, seen, webhook};

const NODES: [&str; 3] = ["n1", "n2", "db1"];
const RECEIVERS: [&str; 2] = ["dev", "ops"];

/// One thing that happens in a cluster.
#[derive(Clone, Debug)]
enum Happening {
    Sample(usize, Vec<Seen>),
    Session(usize),
    Passes(u64),
    Leader,
    Manner(usize, Manner),
    Late,
    Receiver(usize, bool),
    Route(Option<usize>, bool),
    Rule(usize, Option<u16>, u64),
    Remove(usize),
    Test(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let percent = prop_oneof![Just(3.0), Just(4.9), Just(8.0), Just(9.9), Just(12.0), Just(14.0), Just(60.0)];
    let how = prop_oneof![
        8 => Just((DiskState::Ok, true)), 1 => Just((DiskState::Readonly, true)), 1 => Just((DiskState::Unknown, false))
    ];
    let disk = (prop_oneof![Just("/data"), Just("/srv")], percent, how)
        .prop_map(|(mount, percent, (state, read))| Seen { state, read, ..seen(mount, percent) });
    let manner = prop_oneof![Just(Manner::Takes), Just(Manner::Hangs), Just(Manner::Fails), Just(Manner::Refuses)];
    prop_oneof![
        12 => (0..3usize, vec(disk, 0..3)).prop_map(|(node, disks)| Happening::Sample(node, disks)),
        1 => (0..3usize).prop_map(Happening::Session),
        6 => prop_oneof![Just(1u64), Just(13), Just(31), Just(61), Just(125), Just(610), Just(100_000)].prop_map(Happening::Passes),
        1 => Just(Happening::Leader),
        2 => (0..2usize, manner).prop_map(|(receiver, manner)| Happening::Manner(receiver, manner)),
        2 => Just(Happening::Late),
        2 => (0..2usize, any::<bool>()).prop_map(|(receiver, there)| Happening::Receiver(receiver, there)),
        1 => (proptest::option::of(0..2usize), any::<bool>()).prop_map(|(receiver, critical)| Happening::Route(receiver, critical)),
        1 => (0..3usize, proptest::option::of(500u16..5_000), 0..700u64).prop_map(|(node, level, hold)| Happening::Rule(node, level, hold)),
        1 => (0..3usize).prop_map(Happening::Remove),
        1 => (0..2usize).prop_map(Happening::Test),
    ]
}

fn happen(world: &mut World, happening: &Happening) {
    let name = |receiver: &usize| RECEIVERS[*receiver].parse().unwrap();
    match happening {
        Happening::Sample(node, disks) => world.sample(NODES[*node], disks),
        Happening::Session(node) => world.session(NODES[*node]),
        Happening::Passes(seconds) => world.now = world.now.plus(Duration::from_secs(*seconds)),
        Happening::Leader => world.lead(),
        Happening::Manner(receiver, manner) => drop(world.manners.insert(name(receiver), *manner)),
        Happening::Late => {
            if let Some(send) = world.hanging.pop() {
                world.take(send);
            }
        }
        Happening::Receiver(receiver, there) => drop(world.declare(|wished| {
            if *there {
                wished.receivers.insert(name(receiver), webhook());
            } else {
                wished.receivers.remove(&name(receiver));
            }
        })),
        Happening::Route(receiver, critical) => drop(world.declare(|wished| {
            let severity = critical.then_some(mainstay_common::state::Severity::Critical);
            let matcher = notify::Matcher { severity, ..notify::Matcher::default() };
            match receiver {
                Some(receiver) => drop(wished.routes.insert(matcher, [name(receiver)].into())),
                None => drop(wished.routes.remove(&matcher)),
            }
        })),
        Happening::Rule(node, level, hold) => drop(world.declare(|wished| {
            let place = Where { node: Some(NODES[*node].parse().unwrap()), mount: None };
            let percent = level.map(Percent);
            let warning =
                percent.map(|percent| alert::quantity::Level { percent: Some(percent), size: None, floor: None });
            let change = Change { warning, hold: Some(Duration::from_secs(*hold)), ..Change::default() };
            wished.rules.insert((RuleId::FsSpace, place), change);
        })),
        Happening::Remove(node) => world.remove(NODES[*node]),
        Happening::Test(receiver) => {
            drop(world.propose(Actor::Root, Command::Notify(notify::Command::Test(name(receiver)))));
        }
    }
}

fn at_once(wished: &mut declare::Declared) {
    let (hold, clear_hold) = (Some(Duration::ZERO), Some(Duration::ZERO));
    let change = Change { hold, critical_hold: hold, clear_hold, ..Change::default() };
    wished.rules.insert((RuleId::FsSpace, Where::default()), change);
}

/// Reads a state back from its sections, cut into pieces anew.
fn reloaded(state: &State, cut: usize) -> State {
    let sections: Vec<(String, Vec<Vec<u8>>)> = state
        .sections()
        .map(|section| {
            let whole: Vec<u8> = section.pieces.flatten().collect();
            (section.name.to_owned(), whole.chunks(cut).map(<[u8]>::to_vec).collect())
        })
        .collect();
    State::from_sections(sections).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// `settle` itself checks that a turn sees as much as a full sweep, and that turns end.
    #[test]
    fn a_cluster_stays_in_order(happenings in vec(happening(), 1..60), cut in 1usize..50, quick in any::<bool>()) {
        let mut world = World::new();
        if quick {
            // Short leases and no holds: more happens.
            world.interval = Duration::from_secs(10);
            world.declare(at_once).unwrap();
        }
        for receiver in RECEIVERS {
            world.declare(|wished| drop(wished.receivers.insert(receiver.parse().unwrap(), webhook()))).unwrap();
        }
        for node in NODES {
            world.node(node);
        }
        let (founded, mut leaders) = (world.state.clone(), 1);
        let mut replayed = founded;
        let mut from = world.entries.len();
        for happening in &happenings {
            leaders += usize::from(matches!(happening, Happening::Leader));
            // Nodes come back without an entry: tokens are not part of this world.
            happen(&mut world, happening);
            for (id, member) in world.state.nodes.members() {
                replayed.nodes.admit(member.enrolled_at, id, member.key.unwrap());
            }
            world.settle();
            for (number, entry) in world.entries[from..].iter().enumerate() {
                drop(replayed.apply(2 + (from + number) as u64, entry));
            }
            from = world.entries.len();
        }
        let same = |a: &State, b: &State| a.alerts == b.alerts && a.notifications == b.notifications && a.declared_at == b.declared_at;
        prop_assert!(same(&replayed, &world.state), "a replica that only saw the log ended otherwise");
        prop_assert_eq!(&reloaded(&world.state, cut), &world.state);
        in_order_and_once(&world, leaders)?;
    }

    #[test]
    fn any_commands_at_all_leave_replicas_equal(commands in vec((moment(), request(), command()), 0..80), cut in 1usize..50) {
        let (mut one, mut two) = (State::founded(world::founding()), State::founded(world::founding()));
        for (index, (at, request, command)) in commands.into_iter().enumerate() {
            let from = Origin::Peer("10.0.0.1:1".into());
            let entry = Entry { at: Timestamp(at), actor: Actor::Leader, from, request, command, asked: None, through: None };
            let read: Entry = codec::decode(&codec::encode(&entry)).unwrap();
            prop_assert_eq!(&read, &entry);
            let before = one.clone();
            let answer = one.apply(index as u64, &entry);
            prop_assert_eq!(&answer, &two.apply(index as u64, &read));
            if answer.is_err() {
                prop_assert_eq!(&one, &before, "a refused command changed something");
            }
            prop_assert!(one.notifications.open().count() <= notify::apply::MAX_OPEN);
        }
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(&reloaded(&one, cut), &one);
        for (id, node) in one.nodes.members() {
            let key = node.key.unwrap();
            prop_assert_eq!(one.nodes.standing(id, key), node::Standing::Member);
            prop_assert!(!node.former_keys.contains(&key), "a removed key came back");
        }
    }

    /// Whatever else was decided meanwhile, and whatever the server makes of the same wish the second time.
    #[test]
    fn who_asks_again_by_name_changes_nothing_and_gets_the_first_answer(commands in vec((command(), any::<u8>()), 1..60)) {
        let (mut state, mut answered) = (State::founded(world::founding()), Vec::new());
        for (index, (command, pick)) in (1i64..).zip(commands) {
            let (at, from) = (Timestamp(index * 1_000), Origin::Peer("10.0.0.1:1".into()));
            let (request, asked) = (Some(format!("q{index}")), Some(index.unsigned_abs()));
            let entry = Entry { at, actor: Actor::Leader, from, request, command, asked, through: None };
            let answer = state.apply(index.unsigned_abs(), &entry);
            answered.push((entry.clone(), answer));
            let (first, answer) = &answered[usize::from(pick) % answered.len()];
            if answer.is_ok() {
                let again = Entry { at: entry.at, command: entry.command, ..first.clone() };
                let before = state.clone();
                prop_assert_eq!(&state.apply(index.unsigned_abs(), &again), answer);
                prop_assert_eq!(&state, &before);
            }
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in vec(any::<u8>(), 0..200)) {
        drop(codec::decode::<Entry>(&bytes));
        drop(State::from_sections([("alerts", [&bytes])]));
    }
}

/// A message comes twice only after an attempt whose fate nobody knew, and says the same then; an episode's messages
/// come in order.
fn in_order_and_once(world: &World, leaders: usize) -> Result<(), TestCaseError> {
    let mut seen = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (receiver, message) in &world.taken {
        let key = (receiver.clone(), message.id.clone());
        let (times, first) = seen.entry(key).or_insert((0usize, message));
        *times += 1;
        prop_assert_eq!(*first, message);
        // Each leader settles a claim once, and a claim that hangs is taken over after a minute.
        let minutes = usize::try_from(world.now.since(MIDNIGHT).as_secs() / 60).unwrap_or(usize::MAX);
        prop_assert!(*times <= leaders + minutes, "{} came {times} times", message.id);
        let rank = ["fired", "escalated", "resolved"].iter().position(|event| *event == message.event);
        let before = last.insert((receiver, &message.alert, &message.since), rank);
        prop_assert!(before.flatten() <= rank, "{} came too late", message.id);
    }
    Ok(())
}

/// Few moments, so that what names one meets what happened then; and a day later.
fn moment() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0i64..30, 1 => Just(1_000), 1 => Just(100_000_000)]
}

fn request() -> impl Strategy<Value = Option<String>> {
    proptest::option::weighted(0.3, (0u8..9).prop_map(|name| format!("q{name}")))
}

/// Commands without any sense, over few names, so that they meet.
fn command() -> impl Strategy<Value = Command> {
    let node = || (0u8..3).prop_map(|n| format!("n{n}").parse().unwrap());
    let key = || (0u8..4).prop_map(|k| KeyFingerprint([k; 32]));
    let token = || (0u8..3).prop_map(|t| format!("t{t}").parse().unwrap());
    let receiver = || (0u8..2).prop_map(|r| RECEIVERS[usize::from(r)].parse().unwrap());
    let create = (token(), 0u32..3).prop_map(|(id, uses_left)| {
        let token = token::Token {
            secret_sha256: KeyFingerprint([7; 32]),
            created_at: Timestamp(0),
            created_by: "anna".parse().unwrap(),
            expires_at: Timestamp(500),
            uses_left,
            admitted: BTreeMap::new(),
            revoked_at: None,
            role: None,
        };
        Command::Token(token::Command::Create(id, token))
    });
    let redeem = (token(), key(), node()).prop_map(|(token, key, node)| {
        let secret_sha256 = KeyFingerprint([7; 32]);
        Command::Token(token::Command::Redeem(token::Redeem { token, secret_sha256, key, node }))
    });
    let user = (0u8..2, key()).prop_map(|(name, key)| {
        let role = mainstay_common::identity::HumanRole::Admin;
        let added_by = "anna".parse().unwrap();
        let user = user::User { role, key, added_at: Timestamp(1), added_by, revoked_at: None };
        Command::User(user::Command::Add(format!("u{name}").parse().unwrap(), user))
    });
    let alert = || {
        let target = prop_oneof![Just(b"/".to_vec()), Just(b"/a\xff".to_vec())];
        (node(), target).prop_map(|(node, target)| AlertId { node, rule: RuleId::FsSpace, target })
    };
    let space = || (0u64..100, 0u64..100).prop_map(|(used, available)| Space { used, available });
    let severity = || {
        use mainstay_common::state::Severity;
        prop_oneof![Just(Severity::Warning), Just(Severity::Critical)]
    };
    let episode =
        || (alert(), moment(), 0u32..4).prop_map(|(alert, at, step)| Episode { alert, since: Timestamp(at), step });
    let turn = || prop_oneof![Just(Turn::Critical), Just(Turn::Warning), Just(Turn::Clear), Just(Turn::Back)];
    let about_alerts = prop_oneof![
        6 => (alert(), severity(), space()).prop_map(|(alert, severity, space)| alert::Command::Pend(Pend { alert, severity, space })),
        2 => (episode(), severity(), space()).prop_map(|(e, severity, space)| alert::Command::Fire(e, severity, space)),
        1 => (episode(), space()).prop_map(|(e, space)| alert::Command::Escalate(e, space)),
        1 => (episode(), space()).prop_map(|(e, space)| alert::Command::Resolve(e, End::Cleared, Some(space))),
        1 => episode().prop_map(|e| alert::Command::Drop(e, End::Gone)),
        1 => (episode(), turn()).prop_map(|(e, turn)| alert::Command::Turn(e, turn, None)),
        1 => episode().prop_map(alert::Command::Unknown),
        1 => (episode(), any::<bool>()).prop_map(|(e, critical)| alert::Command::Known(e, Known { critical, space: None })),
    ];
    let claim = || {
        (receiver(), alert(), moment(), 0u64..3, 0u32..3).prop_map(|(receiver, alert, since, term, attempt)| {
            let (subject, since) = (notify::Subject::Alert(alert), Timestamp(since));
            let id = notify::DeliveryId { receiver, subject, since, event: Event::Fired };
            notify::Claim { id, fence: Fence { generation: 1, term }, attempt }
        })
    };
    let about_messages = prop_oneof![
        claim().prop_map(notify::Command::Claim),
        claim().prop_map(notify::Command::Delivered),
        claim().prop_map(|claim| notify::Command::GiveUp(claim, "404".into())),
        receiver().prop_map(notify::Command::Test),
    ];
    let declaring = (receiver(), any::<bool>(), 0u64..80).prop_map(|(name, there, expecting)| {
        let changes = vec![declare::Change::Receiver(name, there.then(webhook))];
        Command::Declare(declare::Declare { changes, expecting: if expecting > 20 { 0 } else { expecting } })
    });
    let address = prop_oneof![Just("h:1".to_owned()), Just("nowhere".to_owned())];
    let restore = |(generation, address): (u64, String)| {
        let (peer_address, key) = ("h:2".into(), KeyFingerprint([9; 32]));
        cluster::Command::Restore(cluster::Restore { generation, address, peer_address, key })
    };
    let about_restores = prop_oneof![Just(cluster::Command::Backup), (0u64..4, address.clone()).prop_map(restore)];
    prop_oneof![
        2 => create,
        4 => redeem,
        1 => token().prop_map(|id| Command::Token(token::Command::Revoke(id))),
        1 => node().prop_map(|id| Command::Node(node::Command::Remove(id))),
        2 => user,
        1 => (0u8..2).prop_map(|name| Command::User(user::Command::Revoke(format!("u{name}").parse().unwrap()))),
        8 => about_alerts.prop_map(Command::Alert),
        4 => about_messages.prop_map(Command::Notify),
        2 => declaring,
        1 => about_restores.prop_map(Command::Cluster),
        1 => address.prop_map(|address| Command::Cluster(cluster::Command::Advertise("r1".parse().unwrap(), address, None, None, None))),
    ]
}
