//! Who may be in the house: decides, and does nothing. Time and the state's word come in as arguments.
//!
//! Before a peer shows who it is, there is only its address to go by. A connection passes three places: the **lobby**
//! while it has not said a whole ClientHello (it costs a descriptor; the oldest of the most crowded address goes when it
//! is full, so that silence keeps nobody out), the **turn** (its address pays for each handshake), and a **seat** for
//! the handshake, kept by whoever shows no certificate that counts. Agents and people leave the seats for budgets of
//! their own: a storm of the ones takes nothing from the others.

mod block;
mod crowd;
mod guest;
mod rooms;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mainstay_common::{Timestamp, identity::Subject};

pub(crate) use block::Block;
use guest::{Guest, Place};
pub(super) use guest::{Id, Shown};
pub(crate) use rooms::Census;
use rooms::Rooms;

use super::{
    Refusal,
    limits::{
        Budget, LAST_WORDS, PER_NODE, PER_PERSON, PER_REPLICA, SEAT_GRACE, STRANGERS_BURST, STRANGERS_EVERY, TURN_LIMIT,
    },
    pace::{Pace, Paid},
};

const STRANGERS: Pace = Pace::new(STRANGERS_EVERY, STRANGERS_BURST);
/// How often the house is looked over.
const ROUND: Duration = Duration::from_secs(1);
/// How often, while somebody waits for a seat.
const BUSY_ROUND: Duration = Duration::from_millis(20);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Begin this one's handshake.
    Seat(Id),
    /// End this one.
    Cut(Id, Refusal),
}

/// Everyone in the house.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    budget: Budget,
    next: u64,
    guests: BTreeMap<Id, Guest>,
    rooms: Rooms,
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
            rooms: Rooms::default(),
            doomed: BTreeMap::new(),
            paid: BTreeMap::new(),
            rounds: None,
        }
    }

    pub(super) fn census(&self) -> Census {
        self.rooms.census()
    }

    /// Somebody connected.
    pub(super) fn arrive(&mut self, address: SocketAddr) -> (Id, Vec<Order>) {
        let (id, block) = (Id(self.next), Block::of(address));
        self.next += 1;
        let mut orders = Vec::new();
        let rooms = &self.rooms;
        if rooms.lobby.len() >= self.budget.lobby {
            // Of the address with most: whoever is silent for longest, else whoever waits for longest.
            let crowded = rooms.lobby.most_crowded().map_or(block, |(crowded, _)| *crowded);
            let victim = rooms.silent.oldest(&crowded).or_else(|| rooms.lobby.oldest(&crowded));
            orders.extend(victim.map(|victim| self.cut(victim, Refusal::Crowded)));
        }
        self.guests.insert(id, Guest::new(block));
        self.rooms.enter(id, block, &Place::Silent);
        (id, orders)
    }

    /// Somebody said a whole ClientHello: from now on it costs work.
    pub(super) fn hello(&mut self, id: Id, now: Instant) -> Vec<Order> {
        let Some(guest) = self.guests.get(&id).filter(|guest| matches!(guest.place, Place::Silent)) else {
            return Vec::new();
        };
        let block = guest.block;
        let wait = STRANGERS.take(self.paid.entry(block).or_default(), 1, now);
        if wait > TURN_LIMIT {
            self.refund(block);
            return vec![self.cut(id, Refusal::Pace)];
        }
        self.put(id, Place::Waiting(now + wait));
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
        let Some(subject) = guest.shown.as_ref().filter(|_| counts).map(|shown| shown.subject.clone()) else {
            return Vec::new();
        };
        let (victim, place) = match subject {
            Subject::Agent(node) => {
                (self.rooms.agents.victim(&node, id, self.budget.agents, PER_NODE), Place::Agent(node))
            }
            Subject::User(_, name) => {
                (self.rooms.people.victim(&name, id, self.budget.people, PER_PERSON), Place::Person(name))
            }
            // On the port for all a replica has no budget, and stays a stranger.
            Subject::Replica(_) if self.budget.replicas == 0 => return Vec::new(),
            Subject::Replica(replica) => {
                let victim = self.rooms.replicas.victim(&replica, id, self.budget.replicas, PER_REPLICA);
                (victim, Place::Replica(replica))
            }
        };
        self.refund(block);
        if victim == Some(id) {
            return vec![self.cut(id, Refusal::Full)];
        }
        let mut orders: Vec<_> = victim.map(|victim| self.cut(victim, Refusal::Superseded)).into_iter().collect();
        self.put(id, place);
        orders.extend(self.seat(now, 1));
        orders
    }

    /// A connection ended.
    pub(super) fn left(&mut self, id: Id, now: Instant) -> Vec<Order> {
        self.put(id, Place::Gone);
        self.guests.remove(&id);
        self.seat(now, 1)
    }

    /// The state changed: whoever counts no longer has [`LAST_WORDS`] left.
    pub(super) fn recheck(&mut self, now: Instant, counts: impl Fn(&Shown) -> Result<(), Refusal>) {
        let end = now + LAST_WORDS;
        for (id, guest) in &mut self.guests {
            if guest.doomed.is_some() || !guest.is_member() {
                continue;
            }
            if let Some(Err(refusal)) = guest.shown.as_ref().map(&counts) {
                guest.doomed = Some(end);
                self.doomed.insert((end, *id), refusal);
            }
        }
    }

    /// A certificate was renewed for a name and key: its connections live for as long as that one counts.
    pub(super) fn renewed(&mut self, renewed: &Shown) {
        for shown in self.guests.values_mut().filter_map(|guest| guest.shown.as_mut()) {
            if shown.subject == renewed.subject && shown.key == renewed.key {
                shown.not_after = shown.not_after.max(renewed.not_after);
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
        let round = if self.rooms.waiting.is_empty() { whole + ROUND } else { last + BUSY_ROUND };
        self.doomed.first_key_value().map_or(round, |(&(end, _), _)| end.min(round))
    }

    /// Gives seats to those whose turn it is, in the order of their turns; those whose addresses take too much already
    /// stand aside for `patience` others.
    fn seat(&mut self, now: Instant, patience: usize) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut aside = BTreeSet::new();
        let due = self.rooms.waiting.iter().copied().take_while(|(turn, _)| *turn <= now);
        for (_, id) in due.take(patience).collect::<Vec<_>>() {
            let Some(block) = self.guests.get(&id).map(|guest| guest.block) else { continue };
            if self.rooms.seated.len() >= self.budget.seats {
                if aside.contains(&block) {
                    continue;
                }
                let Some(victim) = self.seat_to_give_away(block, now) else {
                    aside.insert(block);
                    continue;
                };
                orders.push(self.cut(victim, Refusal::Crowded));
            }
            self.put(id, Place::Seated(now));
            orders.push(Order::Seat(id));
        }
        orders
    }

    /// The seat that has been taken for longest by the address that takes most. It is left alone for a while where the
    /// newcomer's address has no fewer seats: real handshakes end by themselves.
    fn seat_to_give_away(&self, newcomer: Block, now: Instant) -> Option<Id> {
        let (crowded, count) = self.rooms.seated.most_crowded()?;
        let since = |id: &Id| match self.guests.get(id).map(|guest| &guest.place) {
            Some(Place::Seated(since)) => *since,
            _ => now,
        };
        let stalest = self.rooms.seated.ids(crowded).min_by_key(since)?;
        let unfair = count > self.rooms.seated.count(&newcomer) + 1;
        (unfair || now.saturating_duration_since(since(&stalest)) >= SEAT_GRACE).then_some(stalest)
    }

    fn refund(&mut self, block: Block) {
        if let Some(paid) = self.paid.get_mut(&block) {
            STRANGERS.refund(paid, 1);
        }
    }

    /// Its place is free at once; its end is told by [`Doorkeeper::left`].
    fn cut(&mut self, id: Id, refusal: Refusal) -> Order {
        self.put(id, Place::Gone);
        Order::Cut(id, refusal)
    }

    /// Moves a guest from its place to another.
    fn put(&mut self, id: Id, place: Place) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        if let Some(end) = guest.doomed.take() {
            self.doomed.remove(&(end, id));
        }
        self.rooms.leave(id, guest.block, &guest.place);
        self.rooms.enter(id, guest.block, &place);
        guest.place = place;
    }
}
