//! Who may be in the house: decides, and does nothing. Time and the state's word come in as arguments.
//!
//! Before a peer shows who it is, there is only its address to go by. A connection passes three places: the **lobby**
//! while it has not said a whole ClientHello (it costs a descriptor; the oldest of the most crowded address goes when it
//! is full, so that silence keeps nobody out), the **turn** (its address pays for each handshake), and a **seat** for
//! the handshake, kept by whoever shows no certificate that counts. Agents and people leave the seats for budgets of
//! their own: a storm of the ones takes nothing from the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use mainstay_common::{NodeId, Timestamp, UserName, identity::Subject};
use mainstay_core::KeyFingerprint;

use super::{
    Refusal,
    crowd::Crowd,
    limits::{
        Budget, LAST_WORDS, PER_NODE, PER_PERSON, SEAT_GRACE, STRANGER_LIFE, STRANGERS_BURST, STRANGERS_EVERY,
        TURN_LIMIT,
    },
    pace::{Pace, Paid},
};

const STRANGERS: Pace = Pace::new(STRANGERS_EVERY, STRANGERS_BURST);
/// How often the house is looked over.
const ROUND: Duration = Duration::from_secs(1);
/// How often, while somebody waits for a seat.
const BUSY_ROUND: Duration = Duration::from_millis(20);

/// A connection. Later ones have greater ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id(pub(super) u64);

/// Addresses that count as one: an IPv4 address, or the /64 that one customer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block(u64);

impl Block {
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            // 2^32 and above as IPv6 prefixes are in no use: ::/32 is reserved.
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// What a certificate said.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) subject: Subject,
    pub(super) key: KeyFingerprint,
    pub(super) not_after: Timestamp,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Begin this one's handshake.
    Seat(Id),
    /// End this one.
    Cut(Id, Refusal),
}

/// Where a connection stands.
#[derive(Debug)]
enum Place {
    Silent,
    Waiting(Instant),
    Seated(Instant),
    Agent(NodeId),
    Person(UserName),
    /// Cut; its end is on the way.
    Gone,
}

#[derive(Debug)]
struct Guest {
    block: Block,
    place: Place,
    shown: Option<Shown>,
    /// When its last words end.
    doomed: Option<Instant>,
}

impl Guest {
    /// Why its time is over.
    fn over(&self, now: Instant, clock: Timestamp) -> Option<Refusal> {
        match &self.place {
            Place::Seated(since) if now.saturating_duration_since(*since) > STRANGER_LIFE => Some(Refusal::Idle),
            Place::Agent(_) | Place::Person(_) if self.shown.as_ref().is_some_and(|shown| shown.not_after < clock) => {
                Some(Refusal::Expired)
            }
            Place::Silent | Place::Waiting(_) | Place::Seated(_) | Place::Agent(_) | Place::Person(_) | Place::Gone => {
                None
            }
        }
    }
}

/// How many are in each place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) strangers: usize,
    pub(crate) agents: usize,
    pub(crate) people: usize,
}

/// Everyone in the house.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    budget: Budget,
    next: u64,
    guests: BTreeMap<Id, Guest>,
    /// Everyone in the lobby, those who wait for their turn too.
    lobby: Crowd<Block>,
    silent: Crowd<Block>,
    waiting: BTreeSet<(Instant, Id)>,
    seated: Crowd<Block>,
    agents: Crowd<NodeId>,
    people: Crowd<UserName>,
    /// Whose last words end when, and why.
    doomed: BTreeMap<(Instant, Id), Refusal>,
    paid: BTreeMap<Block, Paid>,
    /// The last round, and the last one in which everybody was looked at.
    rounds: Option<(Instant, Instant)>,
}

impl Doorkeeper {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            next: 0,
            guests: BTreeMap::new(),
            lobby: Crowd::default(),
            silent: Crowd::default(),
            waiting: BTreeSet::new(),
            seated: Crowd::default(),
            agents: Crowd::default(),
            people: Crowd::default(),
            doomed: BTreeMap::new(),
            paid: BTreeMap::new(),
            rounds: None,
        }
    }

    pub(super) fn census(&self) -> Census {
        let strangers = self.lobby.len() + self.seated.len();
        Census { strangers, agents: self.agents.len(), people: self.people.len() }
    }

    /// Somebody connected.
    pub(super) fn arrive(&mut self, address: SocketAddr) -> (Id, Vec<Order>) {
        let (id, block) = (Id(self.next), Block::of(address));
        self.next += 1;
        let mut orders = Vec::new();
        if self.lobby.len() >= self.budget.lobby {
            // Of the address with most: whoever is silent for longest, else whoever waits for longest.
            let crowded = self.lobby.most_crowded().map_or(block, |(crowded, _)| *crowded);
            let victim = self.silent.oldest(&crowded).or_else(|| self.lobby.oldest(&crowded));
            orders.extend(victim.map(|victim| self.cut(victim, Refusal::Crowded)));
        }
        self.lobby.join(block, id);
        self.silent.join(block, id);
        self.guests.insert(id, Guest { block, place: Place::Silent, shown: None, doomed: None });
        (id, orders)
    }

    /// Somebody said a whole ClientHello: from now on it costs work.
    pub(super) fn hello(&mut self, id: Id, now: Instant) -> Vec<Order> {
        let Some(guest) = self.guests.get_mut(&id).filter(|guest| matches!(guest.place, Place::Silent)) else {
            return Vec::new();
        };
        let block = guest.block;
        let wait = STRANGERS.take(self.paid.entry(block).or_default(), 1, now);
        if wait > TURN_LIMIT {
            self.refund(block);
            return vec![self.cut(id, Refusal::Pace)];
        }
        guest.place = Place::Waiting(now + wait);
        self.silent.leave(block, id);
        self.waiting.insert((now + wait, id));
        self.seat(now, 1)
    }

    /// A handshake came to its end. `counts`: the state knows that name with that key.
    pub(super) fn identified(&mut self, id: Id, shown: Option<Shown>, counts: bool, now: Instant) -> Vec<Order> {
        let Some(guest) = self.guests.get_mut(&id).filter(|guest| matches!(guest.place, Place::Seated(_))) else {
            return Vec::new();
        };
        let block = guest.block;
        guest.place = Place::Seated(now);
        guest.shown = shown;
        let Some(shown) = guest.shown.as_ref().filter(|_| counts) else { return Vec::new() };
        let subject = shown.subject.clone();
        let victim = match &subject {
            Subject::Agent(node) => self.agents.victim(node, id, self.budget.agents, PER_NODE),
            Subject::User(_, name) => self.people.victim(name, id, self.budget.people, PER_PERSON),
            Subject::Replica(_) => return Vec::new(),
        };
        self.refund(block);
        let mut orders = Vec::new();
        if let Some(victim) = victim {
            let refusal = if victim == id { Refusal::Full } else { Refusal::Superseded };
            orders.push(self.cut(victim, refusal));
            if victim == id {
                return orders;
            }
        }
        self.seated.leave(block, id);
        let place = match subject {
            Subject::Agent(node) => {
                self.agents.join(node.clone(), id);
                Place::Agent(node)
            }
            Subject::User(_, name) => {
                self.people.join(name.clone(), id);
                Place::Person(name)
            }
            Subject::Replica(_) => return orders,
        };
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.place = place;
        }
        orders.extend(self.seat(now, 1));
        orders
    }

    /// A connection ended.
    pub(super) fn left(&mut self, id: Id, now: Instant) -> Vec<Order> {
        self.vacate(id);
        self.guests.remove(&id);
        self.seat(now, 1)
    }

    /// The state changed: whoever counts no longer has [`LAST_WORDS`] left.
    pub(super) fn recheck(&mut self, now: Instant, counts: impl Fn(&Shown) -> Result<(), Refusal>) {
        let end = now + LAST_WORDS;
        for (id, guest) in &mut self.guests {
            if guest.doomed.is_some() || !matches!(guest.place, Place::Agent(_) | Place::Person(_)) {
                continue;
            }
            if let Some(Err(refusal)) = guest.shown.as_ref().map(&counts) {
                guest.doomed = Some(end);
                self.doomed.insert((end, *id), refusal);
            }
        }
    }

    /// A round through the house.
    pub(super) fn round(&mut self, now: Instant, clock: Timestamp) -> Vec<Order> {
        let mut orders = Vec::new();
        while let Some((&(end, id), &refusal)) = self.doomed.first_key_value()
            && end <= now
        {
            self.doomed.remove(&(end, id));
            orders.push(self.cut(id, refusal));
        }
        let whole = self.rounds.map(|(_, whole)| whole).filter(|at| now.saturating_duration_since(*at) < ROUND);
        self.rounds = Some((now, whole.unwrap_or(now)));
        if whole.is_none() {
            self.paid.retain(|_, paid| !paid.is_full(now));
            let over = self.guests.iter().filter_map(|(id, guest)| guest.over(now, clock).map(|why| (*id, why)));
            for (id, refusal) in over.collect::<Vec<_>>() {
                orders.push(self.cut(id, refusal));
            }
        }
        orders.extend(self.seat(now, usize::MAX));
        orders
    }

    /// When the next round is due.
    pub(super) fn next_round(&self, now: Instant) -> Instant {
        let Some((last, whole)) = self.rounds else { return now };
        let round = if self.waiting.is_empty() { whole + ROUND } else { last + BUSY_ROUND };
        self.doomed.first_key_value().map_or(round, |(&(end, _), _)| end.min(round))
    }

    /// Gives seats to those whose turn it is, in the order of their turns; those whose addresses take too much already
    /// stand aside for `patience` others.
    fn seat(&mut self, now: Instant, patience: usize) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut aside = BTreeSet::new();
        let turns: Vec<_> =
            self.waiting.iter().copied().take_while(|(turn, _)| *turn <= now).take(patience.max(1)).collect();
        for (turn, id) in turns {
            let Some(block) = self.guests.get(&id).map(|guest| guest.block) else { continue };
            if self.seated.len() >= self.budget.seats {
                if aside.contains(&block) {
                    continue;
                }
                let Some(victim) = self.seat_to_give_away(block, now) else {
                    aside.insert(block);
                    continue;
                };
                orders.push(self.cut(victim, Refusal::Crowded));
            }
            self.waiting.remove(&(turn, id));
            self.lobby.leave(block, id);
            self.seated.join(block, id);
            if let Some(guest) = self.guests.get_mut(&id) {
                guest.place = Place::Seated(now);
            }
            orders.push(Order::Seat(id));
        }
        orders
    }

    /// The seat that has been taken for longest by the address that takes most. It is left alone for a while where the
    /// newcomer's address has no fewer seats: real handshakes end by themselves.
    fn seat_to_give_away(&self, newcomer: Block, now: Instant) -> Option<Id> {
        let (crowded, count) = self.seated.most_crowded()?;
        let since = |id: &Id| match self.guests.get(id).map(|guest| &guest.place) {
            Some(Place::Seated(since)) => *since,
            _ => now,
        };
        let stalest = self.seated.ids(crowded).min_by_key(since)?;
        let unfair = count > self.seated.count(&newcomer) + 1;
        (unfair || now.saturating_duration_since(since(&stalest)) >= SEAT_GRACE).then_some(stalest)
    }

    fn refund(&mut self, block: Block) {
        if let Some(paid) = self.paid.get_mut(&block) {
            STRANGERS.refund(paid, 1);
        }
    }

    /// Its place is free at once; its end is told by [`Doorkeeper::left`].
    fn cut(&mut self, id: Id, refusal: Refusal) -> Order {
        self.vacate(id);
        Order::Cut(id, refusal)
    }

    fn vacate(&mut self, id: Id) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        if let Some(end) = guest.doomed.take() {
            self.doomed.remove(&(end, id));
        }
        let block = guest.block;
        match std::mem::replace(&mut guest.place, Place::Gone) {
            Place::Silent => {
                self.lobby.leave(block, id);
                self.silent.leave(block, id);
            }
            Place::Waiting(turn) => {
                self.lobby.leave(block, id);
                self.waiting.remove(&(turn, id));
            }
            Place::Seated(_) => self.seated.leave(block, id),
            Place::Agent(node) => self.agents.leave(node, id),
            Place::Person(name) => self.people.leave(name, id),
            Place::Gone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_common::identity::HumanRole;

    use super::*;

    const BUDGET: Budget = Budget { lobby: 8, seats: 4, agents: 4, people: 4 };
    const CLOCK: Timestamp = Timestamp(1_000);

    #[test]
    fn silence_keeps_nobody_out_not_even_a_neighbour() {
        let mut house = House::new();
        let silent: Vec<_> = (0..50).map(|_| house.arrive(1)).collect();
        assert_eq!(house.keeper.lobby.len(), BUDGET.lobby);
        let neighbour = house.arrive(1);
        assert_eq!(house.hello(neighbour), [Order::Seat(neighbour)]);
        let stranger = house.arrive(2);
        assert_eq!(house.keeper.lobby.count(&block(1)), BUDGET.lobby - 1, "the crowd made room");
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
            assert_eq!(keeper.silent.len(), at(|place| matches!(place, Place::Silent)));
            assert_eq!(keeper.waiting.len(), at(|place| matches!(place, Place::Waiting(_))));
            assert_eq!(keeper.seated.len(), at(|place| matches!(place, Place::Seated(_))));
            assert_eq!(keeper.agents.len(), at(|place| matches!(place, Place::Agent(_))));
            assert_eq!(keeper.lobby.len(), keeper.silent.len() + keeper.waiting.len());
            assert!(keeper.lobby.len() <= BUDGET.lobby && keeper.seated.len() <= BUDGET.seats);
            assert!(keeper.agents.len() <= BUDGET.agents);
        }
    }

    #[test]
    fn one_customer_of_ipv6_counts_as_one() {
        let of = |text: &str| Block::of(text.parse().unwrap());
        assert_eq!(of("[2001:db8:1:2::1]:1"), of("[2001:db8:1:2:ffff::9]:2"));
        assert_ne!(of("[2001:db8:1:2::1]:1"), of("[2001:db8:1:3::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:1"));
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
}
