//! Stories at the door, in time that the test makes.

use mainstay_common::identity::HumanRole;
use mainstay_core::KeyFingerprint;

use super::{guest::Place, *};
use crate::gate::limits::STRANGER_LIFE;

const BUDGET: Budget = Budget { lobby: 8, seats: 4, agents: 4, people: 4, replicas: 4 };
const CLOCK: Timestamp = Timestamp(1_000);

#[test]
fn silence_keeps_nobody_out_not_even_a_neighbour() {
    let mut house = House::new();
    let silent: Vec<_> = (0..50).map(|_| house.arrive(1)).collect();
    assert_eq!(house.keeper.rooms.lobby.len(), BUDGET.lobby);
    let neighbour = house.arrive(1);
    assert_eq!(house.hello(neighbour), [Order::Seat(neighbour)]);
    let stranger = house.arrive(2);
    assert_eq!(house.keeper.rooms.lobby.count(&block(1)), BUDGET.lobby - 1, "the crowd made room");
    assert_eq!(house.hello(stranger), [Order::Seat(stranger)]);
    assert!(house.hello(silent[0]).is_empty(), "who was cut says nothing any more");
}

#[test]
fn seats_that_nobody_uses_are_given_away_by_age_and_by_crowd() {
    let mut house = House::new();
    let half: Vec<_> = (0..4).map(|_| house.seated(1)).collect();
    let neighbour = house.arrive(1);
    assert!(house.hello(neighbour).is_empty(), "all seats of this address are fresh");
    let stranger = house.arrive(2);
    assert!(house.hello(stranger).is_empty(), "it is not its turn yet");
    assert_eq!(house.round(), [Order::Cut(half[0], Refusal::Crowded), Order::Seat(stranger)]);
    house.now += SEAT_GRACE;
    assert_eq!(house.round(), [Order::Cut(half[1], Refusal::Crowded), Order::Seat(neighbour)]);
}

#[test]
fn handshakes_of_strangers_cost_and_those_of_members_do_not() {
    let mut house = House::new();
    for n in 0..STRANGERS_BURST * 2 {
        let id = house.seated(1);
        assert!(house.agent(id, &format!("n{}", n % 4), true).iter().all(|order| *order != Order::Seat(id)));
        house.left(id);
    }
    for _ in 0..STRANGERS_BURST {
        let id = house.seated(1);
        house.left(id);
    }
    let id = house.arrive(1);
    assert!(house.hello(id).is_empty(), "its address must wait");
    let elsewhere = house.seated(2);
    house.now += STRANGERS_EVERY;
    assert_eq!(house.round(), [Order::Seat(id)]);
    house.left(elsewhere);
    for _ in 0..10_000 {
        let id = house.arrive(1);
        let orders = house.hello(id);
        assert!(!orders.contains(&Order::Seat(id)));
    }
    assert!(house.cut.contains(&Refusal::Pace), "more than a wait's worth is refused");
    house.now += Duration::from_secs(60);
    house.round();
    assert!(house.keeper.paid.is_empty(), "what is paid off is forgotten");
}

#[test]
fn a_storm_of_agents_leaves_room_for_people() {
    let mut house = House::new();
    for n in 0..BUDGET.agents {
        let id = house.seated(1);
        assert!(house.agent(id, &format!("n{n}"), true).is_empty());
    }
    let late = house.seated(1);
    assert_eq!(house.agent(late, "late", true), [Order::Cut(late, Refusal::Full)]);
    let person = house.seated(1);
    assert!(house.person(person).is_empty());
    assert_eq!(house.keeper.census(), Census { strangers: 0, agents: BUDGET.agents, people: 1 });
}

#[test]
fn one_name_takes_no_more_than_its_share_and_its_newest_stay() {
    let mut house = House::new();
    let mut come = || {
        let id = house.seated(1);
        (id, house.person(id))
    };
    let (ids, orders): (Vec<_>, Vec<_>) = (0..BUDGET.people + 2).map(|_| come()).unzip();
    let cut = [Order::Cut(ids[0], Refusal::Superseded), Order::Cut(ids[1], Refusal::Superseded)];
    assert_eq!(orders.concat(), cut);
}

#[test]
fn a_certificate_that_counts_no_more_ends_its_connection_after_its_last_words() {
    let mut house = House::new();
    let (kept, removed) = (house.seated(1), house.seated(1));
    house.agent(kept, "kept", true);
    house.agent(removed, "removed", true);
    let gone = Subject::Agent("removed".parse().unwrap());
    house.keeper.recheck(house.now, |shown| if shown.subject == gone { Err(Refusal::Removed) } else { Ok(()) });
    assert!(house.round().is_empty());
    assert_eq!(house.keeper.next_round(house.now), house.now + LAST_WORDS);
    house.now += LAST_WORDS;
    assert_eq!(house.round(), [Order::Cut(removed, Refusal::Removed)]);
    house.now += ROUND;
    assert_eq!(house.keeper.round(house.now, Timestamp(i64::MAX)), [Order::Cut(kept, Refusal::Expired)]);
}

#[test]
fn strangers_stay_for_an_enrolment_only() {
    let mut house = House::new();
    let (nobody, removed) = (house.seated(1), house.seated(1));
    house.keeper.identified(nobody, None, false, house.now);
    house.agent(removed, "removed", false);
    house.now += STRANGER_LIFE;
    assert!(house.round().is_empty());
    house.now += ROUND;
    assert_eq!(house.round(), [Order::Cut(nobody, Refusal::Idle), Order::Cut(removed, Refusal::Idle)]);
}

#[test]
fn whatever_happens_the_counts_fit_the_guests() {
    let mut house = House::new();
    let mut dice = 1_u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    for _ in 0..20_000 {
        let id = Id(house.keeper.next.saturating_sub(roll(20)));
        match roll(6) {
            0 | 1 => drop(house.arrive(u8::try_from(roll(3)).unwrap())),
            2 => drop(house.hello(id)),
            3 => drop(house.agent(id, &format!("n{}", roll(3)), roll(2) == 0)),
            4 => drop(house.left(id)),
            _ => {
                house.now += Duration::from_millis(roll(200));
                house.round();
            }
        }
        let keeper = &house.keeper;
        let at = |place: fn(&Place) -> bool| keeper.guests.values().filter(|guest| place(&guest.place)).count();
        assert_eq!(keeper.rooms.silent.len(), at(|place| matches!(place, Place::Silent)));
        assert_eq!(keeper.rooms.waiting.len(), at(|place| matches!(place, Place::Waiting(_))));
        assert_eq!(keeper.rooms.seated.len(), at(|place| matches!(place, Place::Seated(_))));
        assert_eq!(keeper.rooms.agents.len(), at(|place| matches!(place, Place::Agent(_))));
        assert_eq!(keeper.rooms.lobby.len(), keeper.rooms.silent.len() + keeper.rooms.waiting.len());
        assert!(keeper.rooms.lobby.len() <= BUDGET.lobby && keeper.rooms.seated.len() <= BUDGET.seats);
        assert!(keeper.rooms.agents.len() <= BUDGET.agents);
    }
}

fn block(n: u8) -> Block {
    Block::of(([10, 0, 0, n], 1).into())
}

struct House {
    keeper: Doorkeeper,
    now: Instant,
    cut: Vec<Refusal>,
}

impl House {
    fn new() -> Self {
        let mut house = Self { keeper: Doorkeeper::new(BUDGET), now: Instant::now(), cut: Vec::new() };
        house.round();
        house
    }

    fn done(&mut self, orders: Vec<Order>) -> Vec<Order> {
        self.cut.extend(orders.iter().filter_map(|order| match order {
            Order::Cut(_, refusal) => Some(*refusal),
            Order::Seat(_) => None,
        }));
        orders
    }

    fn arrive(&mut self, from: u8) -> Id {
        let (id, orders) = self.keeper.arrive(([10, 0, 0, from], 1).into());
        self.done(orders);
        id
    }

    fn hello(&mut self, id: Id) -> Vec<Order> {
        let orders = self.keeper.hello(id, self.now);
        self.done(orders)
    }

    fn seated(&mut self, from: u8) -> Id {
        let id = self.arrive(from);
        assert!(self.hello(id).contains(&Order::Seat(id)));
        id
    }

    fn agent(&mut self, id: Id, name: &str, counts: bool) -> Vec<Order> {
        self.shown(id, Subject::Agent(name.parse().unwrap()), counts)
    }

    fn person(&mut self, id: Id) -> Vec<Order> {
        self.shown(id, Subject::User(HumanRole::Operator, "anna".parse().unwrap()), true)
    }

    fn shown(&mut self, id: Id, subject: Subject, counts: bool) -> Vec<Order> {
        let shown = Shown { subject, key: KeyFingerprint([1; 32]), not_after: Timestamp(CLOCK.0 + 1) };
        let orders = self.keeper.identified(id, Some(shown), counts, self.now);
        self.done(orders)
    }

    fn left(&mut self, id: Id) -> Vec<Order> {
        let orders = self.keeper.left(id, self.now);
        self.done(orders)
    }

    fn round(&mut self) -> Vec<Order> {
        let orders = self.keeper.round(self.now, CLOCK);
        self.done(orders)
    }
}
