use super::*;
use crate::{
    alert::{RuleId, Space},
    notify::{Address, Webhook},
};

const NOON: Timestamp = Timestamp(43_200_000);

#[test]
fn a_leader_of_the_past_claims_nothing() {
    let mut there = one_owed(Event::Fired);
    apply(&mut there, NOON, &Command::Claim(claim(2, 1))).unwrap();
    let before = there.clone();
    for late in [claim(1, 2), claim(2, 2), claim(2, 1), claim(3, 1)] {
        assert!(matches!(apply(&mut there, NOON, &Command::Claim(late)), Err(Rejected::Claimed(_))));
    }
    let late = Command::Again(claim(1, 1), Again { reason: "503".into(), retry_after: None });
    assert!(matches!(apply(&mut there, NOON, &late), Err(Rejected::Claimed(_))));
    assert_eq!(there, before);
    apply(&mut there, NOON, &Command::Claim(claim(3, 2))).unwrap();
}

#[test]
fn what_arrived_has_arrived_whoever_claimed_it_since() {
    let mut there = one_owed(Event::Fired);
    apply(&mut there, NOON, &Command::Claim(claim(1, 1))).unwrap();
    apply(&mut there, NOON, &Command::Claim(claim(2, 2))).unwrap();
    let finished = apply(&mut there, NOON, &Command::Delivered(claim(1, 1)));
    assert_eq!(finished, Ok(Consequence::Finished(Outcome::Delivered)));
    assert!(matches!(apply(&mut there, NOON, &Command::Delivered(claim(2, 2))), Err(Rejected::NotOwed(_))));
}

#[test]
fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
    let mut there = one_owed(Event::Fired);
    apply(&mut there, NOON, &Command::Claim(claim(1, 1))).unwrap();
    let hours = Again { reason: "429".into(), retry_after: Some(Duration::from_secs(36_000)) };
    let waits = apply(&mut there, NOON, &Command::Again(claim(1, 1), hours));
    assert_eq!(waits, Ok(Consequence::Waits(NOON.plus(RETRY_AFTER_MAX))));
    let failing = there.receivers().next().unwrap().2.unwrap().failing.clone().unwrap();
    assert_eq!((failing.failures, failing.reason.as_str()), (1, "429"));
}

#[test]
fn who_heard_nothing_is_not_told_that_it_is_over() {
    let mut there = one_owed(Event::Fired);
    there.owe(NOON, &told("/data", Event::Resolved));
    assert_eq!(there.open.len(), 2);
    apply(&mut there, NOON, &Command::Claim(claim(1, 1))).unwrap();
    apply(&mut there, NOON, &Command::GiveUp(claim(1, 1), "404".into())).unwrap();
    assert!(there.open.is_empty());
    let last = there.finished().last().unwrap();
    assert_eq!(last.outcome, Outcome::GivenUp("its beginning was never delivered".into()));
    there.owe(NOON, &told("/other", Event::Resolved));
    assert!(there.open.is_empty(), "nobody was told that it began");
}

#[test]
fn too_much_is_given_up_visibly_and_ends_go_first() {
    let mut there = one_owed(Event::Fired);
    there.owe(NOON, &told("/data", Event::Resolved));
    for number in 0..MAX_OPEN - 1 {
        there.owe(NOON, &told(&format!("/{number}"), Event::Fired));
    }
    assert_eq!(there.open.len(), MAX_OPEN);
    assert_eq!(there.finished().map(|finished| finished.id.event).collect::<Vec<_>>(), [Event::Resolved]);
    there.owe(NOON, &told("/last", Event::Fired));
    assert_eq!((there.open.len(), there.finished().count()), (MAX_OPEN, 2));
}

#[test]
fn what_is_over_is_remembered_for_a_while_only() {
    let mut there = one_owed(Event::Fired);
    let name: ReceiverName = "ops".parse().unwrap();
    for minute in 0..=MAX_FINISHED as u64 {
        let at = NOON.plus(Duration::from_secs(minute * 60));
        let Ok(Consequence::Owed(id)) = apply(&mut there, at, &Command::Test(name.clone())) else { panic!() };
        let claim = Claim { id, fence: Fence { generation: 1, term: 1 }, attempt: 1 };
        apply(&mut there, at, &Command::Claim(claim.clone())).unwrap();
        apply(&mut there, at, &Command::Delivered(claim)).unwrap();
    }
    assert_eq!(there.finished().count(), MAX_FINISHED);
    assert_eq!(there.finished().next().unwrap().at, NOON.plus(Duration::from_secs(60)));
}

fn one_owed(event: Event) -> Notifications {
    let mut there = Notifications::default();
    let address = Address::Url("https://chat.example/".into());
    let receiver = Receiver::Webhook(Webhook { address, allow_private_address: false });
    there.set_receiver(NOON, &"ops".parse().unwrap(), Some(&receiver));
    there.owe(NOON, &told("/data", event));
    there
}

fn told(mount: &str, event: Event) -> Told {
    let alert = AlertId { node: "n1".parse().unwrap(), rule: RuleId::FsSpace, target: mount.into() };
    let severity = mainstay_common::state::Severity::Warning;
    Told { alert, since: NOON, event, at: NOON, severity, space: Space { used: 9, available: 1 }, end: None }
}

fn claim(term: u64, attempt: u32) -> Claim {
    let subject = Subject::Alert(told("/data", Event::Fired).alert);
    let id = DeliveryId { receiver: "ops".parse().unwrap(), subject, since: NOON, event: Event::Fired };
    Claim { id, fence: Fence { generation: 1, term }, attempt }
}

fn apply(there: &mut Notifications, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
    there.apply(at, command)
}
