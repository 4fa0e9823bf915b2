use std::time::Duration;

use mainstay_common::{NodeId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{KeyFingerprint, node::Nodes};

const NOON: Timestamp = Timestamp(43_200_000);

#[test]
fn a_rotation_waits_for_every_node_and_leaves_one_root() {
    let mut lab = Lab::new();
    assert_eq!(lab.begin(2), Ok(Phase::Spreading));
    assert_eq!(lab.trusted(), [1, 2]);
    let missing = Err(Rejected::Missing(vec![node("n1"), node("n2")]));
    assert_eq!(lab.step(Command::Issue, false), missing);
    lab.acknowledge("n1").unwrap();
    assert_eq!(lab.step(Command::Issue, false), Err(Rejected::Missing(vec![node("n2")])));
    lab.acknowledge("n2").unwrap();
    assert_eq!(lab.ca.issuing().unwrap().0, 1);
    assert_eq!(lab.step(Command::Issue, false), Ok(Phase::Replacing));
    assert_eq!(lab.ca.issuing().unwrap().0, 2);
    assert_eq!(lab.step(Command::Finish, false), missing, "a new version is acknowledged anew");
    lab.acknowledge("n1").unwrap();
    lab.acknowledge("n2").unwrap();
    assert_eq!(lab.step(Command::Finish, false), Ok(Phase::Settled));
    assert_eq!(lab.trusted(), [2]);
    let (_, old) = lab.ca.roots().next().unwrap();
    assert_eq!((old.standing, &old.sealed), (Standing::Retired(NOON), &None), "a retired key is gone");
    assert!(lab.ca.missing(&lab.nodes).is_empty());
}

#[test]
fn force_goes_on_without_those_that_are_missing() {
    let mut lab = Lab::new();
    lab.begin(2).unwrap();
    assert_eq!(lab.step(Command::Issue, true), Ok(Phase::Replacing));
    assert_eq!(lab.step(Command::Finish, true), Ok(Phase::Settled));
}

#[test]
fn it_goes_back_the_same_way() {
    let mut lab = Lab::new();
    lab.begin(2).unwrap();
    assert_eq!(lab.step(Command::Back, false), Ok(Phase::Settled), "no certificate is by the second root yet");
    assert_eq!((lab.trusted(), lab.ca.roots().count()), (vec![1], 1));
    lab.begin(3).unwrap();
    lab.step(Command::Issue, true).unwrap();
    assert_eq!(lab.step(Command::Back, false), Ok(Phase::Spreading));
    assert_eq!(lab.ca.issuing().unwrap().0, 1);
    assert!(matches!(lab.step(Command::Back, false), Err(Rejected::Missing(_))), "certificates by 2 are about");
    lab.acknowledge("n1").unwrap();
    lab.acknowledge("n2").unwrap();
    assert_eq!(lab.step(Command::Back, false), Ok(Phase::Settled));
    assert_eq!((lab.trusted(), lab.ca.roots().count()), (vec![1], 2), "who held one can show who they were");
    assert_eq!(lab.step(Command::Back, false), Err(Rejected::Phase(Phase::Settled)));
}

#[test]
fn a_step_that_was_taken_already_is_not_taken_twice() {
    let mut lab = Lab::new();
    let version = lab.ca.version();
    lab.begin(2).unwrap();
    assert_ne!(lab.ca.version(), version);
    let again = Command::Begin(version, root(3));
    assert_eq!(lab.apply(&again), Err(Rejected::Version));
    let stale = Command::Issue(Step { version, force: true });
    assert_eq!(lab.apply(&stale), Err(Rejected::Version));
    let late = Command::Acknowledge(vec![Holder::Node(node("n1"))], version);
    assert_eq!(lab.apply(&late), Err(Rejected::Version));
    let twice = Command::Begin(lab.ca.version(), root(3));
    assert_eq!(lab.apply(&twice), Err(Rejected::Phase(Phase::Spreading)));
}

#[test]
fn a_root_is_adopted_once_and_no_key_comes_back() {
    let mut lab = Lab::new();
    assert_eq!(lab.apply(&Command::Adopt(root(1))), Ok(Consequence::Phase(Phase::Settled)));
    assert_eq!(lab.apply(&Command::Adopt(root(2))), Err(Rejected::Root("the cluster has one")));
    assert_eq!(lab.begin(1), Err(Rejected::Root("its key was used before")));
    assert_eq!(lab.ca.roots().count(), 1);
}

#[test]
fn a_retired_root_is_forgotten_after_its_time() {
    let mut lab = Lab::new();
    for key in [2, 3] {
        lab.begin(key).unwrap();
        lab.step(Command::Issue, true).unwrap();
        lab.step(Command::Finish, true).unwrap();
    }
    assert_eq!(lab.ca.roots().count(), 3);
    lab.now = NOON.plus(REMEMBERED + Duration::from_secs(1));
    lab.begin(4).unwrap();
    assert_eq!(lab.ca.roots().map(|(number, _)| number).collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn a_removed_node_holds_nothing_up() {
    let mut lab = Lab::new();
    lab.begin(2).unwrap();
    lab.acknowledge("n1").unwrap();
    lab.nodes.apply(&crate::node::Command::Remove(node("n2"))).unwrap();
    assert_eq!(lab.step(Command::Issue, false), Ok(Phase::Replacing));
}

#[test]
fn a_long_list_of_names_is_cut() {
    let names = (0..30).map(|n| node(&format!("n{n}"))).collect();
    let words = Rejected::Missing(names).to_string();
    assert!(words.starts_with("30 nodes have not acknowledged yet: n0, ") && words.ends_with("n19, …"), "{words}");
}

/// A settled cluster of two nodes.
struct Lab {
    ca: Ca,
    nodes: Nodes,
    now: Timestamp,
    index: u64,
}

impl Lab {
    fn new() -> Self {
        let mut nodes = Nodes::default();
        nodes.admit(NOON, &node("n1"), KeyFingerprint([101; 32]));
        nodes.admit(NOON, &node("n2"), KeyFingerprint([102; 32]));
        let mut lab = Self { ca: Ca::default(), nodes, now: NOON, index: 0 };
        lab.apply(&Command::Adopt(root(1))).unwrap();
        lab
    }

    fn apply(&mut self, command: &Command) -> Result<Consequence, Rejected> {
        self.index += 1;
        let before = self.ca.clone();
        let outcome = self.ca.apply(self.index, self.now, command, &self.nodes);
        assert!(outcome.is_ok() || self.ca == before, "a refused command changes nothing");
        outcome
    }

    fn begin(&mut self, key: u8) -> Result<Phase, Rejected> {
        self.apply(&Command::Begin(self.ca.version(), root(key))).map(phase)
    }

    fn step(&mut self, step: impl Fn(Step) -> Command, force: bool) -> Result<Phase, Rejected> {
        self.apply(&step(Step { version: self.ca.version(), force })).map(phase)
    }

    fn acknowledge(&mut self, name: &str) -> Result<Consequence, Rejected> {
        self.apply(&Command::Acknowledge(vec![Holder::Node(node(name))], self.ca.version()))
    }

    fn trusted(&self) -> Vec<u32> {
        self.ca.trusted().map(|(number, _)| number).collect()
    }
}

fn phase(consequence: Consequence) -> Phase {
    match consequence {
        Consequence::Phase(phase) => phase,
        Consequence::Acknowledged => panic!("no step"),
    }
}

fn root(key: u8) -> NewRoot {
    let sealed = Sealed { nonce: [key; 12], ciphertext: vec![key], opener: KeyFingerprint([9; 32]) };
    NewRoot { certificate: format!("root {key}"), key: KeyFingerprint([key; 32]), sealed, cross: None }
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

#[test]
fn ninety_days_after_its_end_a_certificate_shows_nobody() {
    let day = |days: u64| NOON.plus(Duration::from_secs(days * 86_400));
    assert!(may_come_back(NOON, day(89)) && may_come_back(day(1), NOON));
    assert!(!may_come_back(NOON, day(90)));
}

/// One thing that may be asked of the roots, at the version in force or at one of before.
#[derive(Clone, Debug)]
enum Asked {
    Begin(u8),
    Step(u8, bool, u64),
    Acknowledge(usize, u64),
    Remove(usize),
}

fn asked() -> impl Strategy<Value = Asked> {
    let late = prop_oneof![8 => Just(0u64), 1 => 1..3u64];
    prop_oneof![
        2 => (0..6u8).prop_map(Asked::Begin),
        4 => (0..3u8, any::<bool>(), late.clone()).prop_map(|(step, force, late)| Asked::Step(step, force, late)),
        4 => (0..2usize, late).prop_map(|(node, late)| Asked::Acknowledge(node, late)),
        1 => (0..2usize).prop_map(Asked::Remove),
    ]
}

proptest! {
    /// Whatever is asked in whatever order: one root issues, at most two count, only keys that may sign are kept, and
    /// nobody is shut out without `force`.
    #[test]
    fn roots_stay_in_order(all in proptest::collection::vec(asked(), 1..60)) {
        let mut lab = Lab::new();
        for asked in all {
            let (before, names) = (lab.ca.clone(), ["n1", "n2"]);
            let mut forced = false;
            let outcome = match asked {
                Asked::Begin(key) => lab.begin(key).map(drop),
                Asked::Step(step, force, late) => {
                    forced = force;
                    let step_of = [Command::Issue, Command::Finish, Command::Back][usize::from(step)];
                    let version = lab.ca.version().saturating_sub(late);
                    lab.apply(&step_of(Step { version, force })).map(drop)
                }
                Asked::Acknowledge(name, late) => {
                    let holders = vec![Holder::Node(node(names[name]))];
                    lab.apply(&Command::Acknowledge(holders, lab.ca.version().saturating_sub(late))).map(drop)
                }
                Asked::Remove(name) => {
                    lab.nodes.apply(&crate::node::Command::Remove(node(names[name]))).ok();
                    Ok(())
                }
            };
            let standing = |root: &Root| root.standing;
            let issuing = lab.ca.roots().filter(|(_, root)| standing(root) == Standing::Issuing).count();
            prop_assert_eq!(issuing, 1);
            prop_assert!((1..=2).contains(&lab.ca.trusted().count()));
            for (_, root) in lab.ca.roots() {
                prop_assert_eq!(root.sealed.is_none(), matches!(root.standing, Standing::Retired(_)));
            }
            let gone = before.trusted().any(|(number, root)| root.issued && !lab.ca.trusted().any(|(n, _)| n == number));
            prop_assert!(!gone || forced || before.missing(&lab.nodes).is_empty());
            prop_assert!(outcome.is_err() || lab.ca.version() >= before.version());
        }
    }
}
