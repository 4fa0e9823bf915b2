//! How deliveries change: owed, claimed, delivered or given up.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mainstay_common::{ReceiverName, Timestamp};
use minicbor::{Decode, Encode};

use super::{
    backoff,
    model::{Delivery, DeliveryId, Failing, Finished, Matcher, Outcome, Progress, Receiver, Standing, Subject},
};
use crate::{
    Table,
    alert::{AlertId, Event, Told},
    cluster::Fence,
};

/// Deliveries that may be owed at once; beyond that the least important one is given up.
pub const MAX_OPEN: usize = 10_000;
/// Deliveries that are over and still remembered.
pub const MAX_FINISHED: usize = 1_000;
/// How long a message is tried.
pub const TRIED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// When a claim of the same leader without an outcome may be claimed again: by then no attempt can be under way.
pub const CLAIM_LASTS: Duration = Duration::from_secs(60);
/// The longest that a receiver may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Bytes of a reason.
const MAX_REASON: usize = 500;

/// How deliveries may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The leader is about to send it.
    #[n(0)]
    Claim(#[n(0)] Claim),
    /// The receiver has it.
    #[n(1)]
    Delivered(#[n(0)] Claim),
    /// The receiver did not take it, and may take it later.
    #[n(2)]
    Again(#[n(0)] Claim, #[n(1)] Again),
    /// Somebody must change something first.
    #[n(3)]
    GiveUp(#[n(0)] Claim, #[n(1)] String),
    /// A person wants to see a message arrive.
    #[n(4)]
    Test(#[n(0)] ReceiverName),
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// Which delivery.
    #[n(0)]
    pub id: DeliveryId,
    /// Which leader.
    #[n(1)]
    pub fence: Fence,
    /// Counts attempts, from 1.
    #[n(2)]
    pub attempt: u32,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Again {
    /// In words.
    #[n(0)]
    pub reason: String,
    /// How long the receiver asked us to wait.
    #[n(1)]
    #[cbor(with = "crate::codec::maybe_span", has_nil)]
    pub retry_after: Option<Duration>,
}

/// What a command brought about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// It is owed: a test, under this name.
    #[n(0)]
    Owed(#[n(0)] DeliveryId),
    /// It may be sent now.
    #[n(1)]
    Claimed,
    /// It will be tried again then.
    #[n(2)]
    Waits(#[n(0)] Timestamp),
    /// It is over.
    #[n(3)]
    Finished(#[n(0)] Outcome),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is over, or never was.
    #[error("delivery {0} is not owed")]
    NotOwed(String),
    /// Another attempt is under way or was made.
    #[error("delivery {0} is another attempt's")]
    Claimed(String),
    /// No such receiver.
    #[error("receiver {0} is unknown")]
    Unknown(ReceiverName),
}

/// Receivers, routes, and what is owed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    pub(crate) receivers: Table<ReceiverName, Receiver>,
    pub(crate) routes: Table<Matcher, BTreeSet<ReceiverName>>,
    pub(crate) standing: Table<ReceiverName, Standing>,
    /// Who is told of an episode that is not over, and whether they heard anything yet.
    pub(crate) told: Table<(AlertId, Timestamp), BTreeMap<ReceiverName, bool>>,
    pub(crate) open: Table<DeliveryId, Delivery>,
    /// By a number that only grows.
    pub(crate) finished: Table<u64, Finished>,
}

impl Notifications {
    /// Applies one committed command; `at` is the moment at which it was proposed.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Claim(claim) => self.claim(at, claim),
            Command::Delivered(claim) => self.delivered(at, claim),
            Command::Again(claim, again) => self.again(at, claim, again),
            Command::GiveUp(claim, reason) => self.give_up(at, claim, reason),
            Command::Test(receiver) => self.test(at, receiver),
        }
    }

    /// What must be told is owed from now on, to whom the routes say; the end of an episode to all who heard of it, or
    /// still will.
    pub fn owe(&mut self, at: Timestamp, told: &Told) {
        let episode = (told.alert.clone(), told.since);
        let mut audience = self.told.get(&episode).cloned().unwrap_or_default();
        if told.event == Event::Resolved {
            self.told.remove(&episode);
            let open = |receiver: &ReceiverName| self.first_of(receiver, told).is_some();
            audience.retain(|receiver, heard| *heard || open(receiver));
        } else {
            for receiver in self.routed(told) {
                audience.entry(receiver).or_insert(false);
            }
            if !audience.is_empty() {
                self.told.insert(episode, audience.clone());
            }
        }
        for (receiver, heard) in audience {
            let (subject, since, event) = (Subject::Alert(told.alert.clone()), told.since, told.event);
            let id = DeliveryId { receiver, subject, since, event };
            let told = Some(told.clone());
            let progress = Progress::Owed(at);
            self.insert(at, id, Delivery { told, owed_at: at, attempts: 0, progress, heard, reason: None });
        }
    }

    /// Every receiver by name, and how it fares.
    pub fn receivers(&self) -> impl Iterator<Item = (&ReceiverName, &Receiver, Option<&Standing>)> {
        self.receivers.iter().map(|(name, receiver)| (name, receiver, self.standing.get(name)))
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = (&Matcher, &BTreeSet<ReceiverName>)> {
        self.routes.iter()
    }

    /// Everything that is owed, by receiver.
    pub fn open(&self) -> impl Iterator<Item = (&DeliveryId, &Delivery)> {
        self.open.iter()
    }

    /// What ended lately, oldest first.
    pub fn finished(&self) -> impl Iterator<Item = &Finished> {
        self.finished.iter().map(|(_, finished)| finished)
    }

    /// Sets or takes away a receiver. What is owed to one that goes is given up; one that changed is tried at once.
    pub(crate) fn set_receiver(&mut self, at: Timestamp, name: &ReceiverName, receiver: Option<&Receiver>) {
        if receiver == self.receivers.get(name) {
            return;
        }
        self.standing.remove(name);
        let owed: Vec<DeliveryId> = self.of_receiver(name).map(|(id, _)| id.clone()).collect();
        match receiver {
            Some(receiver) => {
                self.receivers.insert(name.clone(), receiver.clone());
                for id in owed {
                    if let Some(delivery) = self.open.get_mut(&id)
                        && let Progress::Owed(_) = delivery.progress
                    {
                        delivery.progress = Progress::Owed(at);
                    }
                }
            }
            None => {
                self.receivers.remove(name);
                for id in owed {
                    self.end(at, &id, Outcome::GivenUp("the receiver was taken away".into()));
                }
                let told: Vec<_> =
                    self.told.iter().filter(|(_, who)| who.contains_key(name)).map(|(key, _)| key.clone()).collect();
                for episode in told {
                    if let Some(who) = self.told.get_mut(&episode) {
                        who.remove(name);
                    }
                }
            }
        }
    }

    /// Everything that is owed to one receiver.
    pub(super) fn of_receiver<'a>(
        &'a self,
        name: &'a ReceiverName,
    ) -> impl Iterator<Item = (&'a DeliveryId, &'a Delivery)> {
        let first = DeliveryId {
            receiver: name.clone(),
            subject: Subject::Test,
            since: Timestamp(i64::MIN),
            event: Event::Fired,
        };
        self.open.from(&first).take_while(move |(id, _)| id.receiver == *name)
    }

    fn routed(&self, told: &Told) -> BTreeSet<ReceiverName> {
        if self.routes.is_empty() {
            return self.receivers.iter().map(|(name, _)| name.clone()).collect();
        }
        let meant = self.routes.iter().filter(|(matcher, _)| matcher.matches(told));
        meant.flat_map(|(_, receivers)| receivers).filter(|name| self.receivers.get(*name).is_some()).cloned().collect()
    }

    /// The first delivery that is owed to a receiver of an episode.
    fn first_of(&self, receiver: &ReceiverName, told: &Told) -> Option<&DeliveryId> {
        let subject = Subject::Alert(told.alert.clone());
        let first = DeliveryId { receiver: receiver.clone(), subject, since: told.since, event: Event::Fired };
        let (id, _) = self.open.from(&first).next()?;
        (same_episode(id, &first)).then_some(id)
    }

    fn claim(&mut self, at: Timestamp, claim: &Claim) -> Result<Consequence, Rejected> {
        let delivery = self.open.get(&claim.id).ok_or_else(|| Rejected::NotOwed(claim.id.to_string()))?;
        let free = match delivery.progress {
            Progress::Owed(_) => true,
            Progress::Claimed(fence, since) => {
                claim.fence > fence || (claim.fence == fence && at >= since.plus(CLAIM_LASTS))
            }
        };
        if !free || delivery.attempts.checked_add(1) != Some(claim.attempt) {
            return Err(Rejected::Claimed(claim.id.to_string()));
        }
        if let Some(delivery) = self.open.get_mut(&claim.id) {
            delivery.attempts = claim.attempt;
            delivery.progress = Progress::Claimed(claim.fence, at);
        }
        Ok(Consequence::Claimed)
    }

    /// What arrived has arrived, also where another attempt was begun meanwhile.
    fn delivered(&mut self, at: Timestamp, claim: &Claim) -> Result<Consequence, Rejected> {
        let delivery = self.open.get(&claim.id).ok_or_else(|| Rejected::NotOwed(claim.id.to_string()))?;
        if claim.attempt == 0 || claim.attempt > delivery.attempts {
            return Err(Rejected::Claimed(claim.id.to_string()));
        }
        let standing = self.standing.entry(claim.id.receiver.clone(), Standing::default);
        standing.delivered_at = Some(at);
        standing.failing = None;
        self.end(at, &claim.id, Outcome::Delivered);
        Ok(Consequence::Finished(Outcome::Delivered))
    }

    fn again(&mut self, at: Timestamp, claim: &Claim, again: &Again) -> Result<Consequence, Rejected> {
        let owed_at = self.claimed(claim)?.owed_at;
        let reason = shortened(&again.reason);
        let asked = again.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        self.failed(at, &claim.id.receiver, &reason, Some(asked));
        // Who tests wants to know now.
        if claim.id.subject == Subject::Test || at >= owed_at.plus(TRIED_FOR) {
            let outcome = Outcome::GivenUp(reason);
            self.end(at, &claim.id, outcome.clone());
            return Ok(Consequence::Finished(outcome));
        }
        let not_before = at.plus(backoff::wait(&claim.id.to_string(), claim.attempt).max(asked));
        if let Some(delivery) = self.open.get_mut(&claim.id) {
            delivery.progress = Progress::Owed(not_before);
            delivery.reason = Some(reason);
        }
        Ok(Consequence::Waits(not_before))
    }

    fn give_up(&mut self, at: Timestamp, claim: &Claim, reason: &str) -> Result<Consequence, Rejected> {
        self.claimed(claim)?;
        let reason = shortened(reason);
        self.failed(at, &claim.id.receiver, &reason, None);
        let outcome = Outcome::GivenUp(reason);
        self.end(at, &claim.id, outcome.clone());
        Ok(Consequence::Finished(outcome))
    }

    fn test(&mut self, at: Timestamp, receiver: &ReceiverName) -> Result<Consequence, Rejected> {
        if self.receivers.get(receiver).is_none() {
            return Err(Rejected::Unknown(receiver.clone()));
        }
        let mut id = DeliveryId { receiver: receiver.clone(), subject: Subject::Test, since: at, event: Event::Fired };
        // Two tests of one moment are two messages.
        while self.open.get(&id).is_some() || self.finished().any(|finished| finished.id == id) {
            id.since = Timestamp(id.since.0.saturating_add(1));
        }
        let progress = Progress::Owed(at);
        let delivery = Delivery { told: None, owed_at: at, attempts: 0, progress, heard: true, reason: None };
        self.insert(at, id.clone(), delivery);
        Ok(Consequence::Owed(id))
    }

    /// The delivery whose running attempt this is.
    fn claimed(&self, claim: &Claim) -> Result<&Delivery, Rejected> {
        let delivery = self.open.get(&claim.id).ok_or_else(|| Rejected::NotOwed(claim.id.to_string()))?;
        match delivery.progress {
            Progress::Claimed(fence, _) if fence == claim.fence && delivery.attempts == claim.attempt => Ok(delivery),
            Progress::Claimed(..) | Progress::Owed(_) => Err(Rejected::Claimed(claim.id.to_string())),
        }
    }

    /// Keeps that an attempt failed. With a wait everything for that receiver waits, except for one message at a time.
    fn failed(&mut self, at: Timestamp, receiver: &ReceiverName, reason: &str, asked: Option<Duration>) {
        let standing = self.standing.entry(receiver.clone(), Standing::default);
        let before = standing.failing.take();
        let failures = before.as_ref().map_or(0, |failing| failing.failures).saturating_add(1);
        let wait = asked.map_or(Duration::ZERO, |asked| backoff::wait(receiver.as_str(), failures).max(asked));
        let since = before.map_or(at, |failing| failing.since);
        standing.failing = Some(Failing { since, failures, not_before: at.plus(wait), reason: reason.to_owned() });
    }

    fn insert(&mut self, at: Timestamp, id: DeliveryId, delivery: Delivery) {
        self.open.insert(id, delivery);
        if self.open.len() > MAX_OPEN {
            // Ends and tests first, then the oldest; what is under way is left alone.
            let waiting = self.open.iter().filter(|(_, delivery)| matches!(delivery.progress, Progress::Owed(_)));
            let weight = |id: &DeliveryId| id.event != Event::Resolved && id.subject != Subject::Test;
            let least = waiting.min_by_key(|(id, delivery)| (weight(id), delivery.owed_at, *id));
            if let Some(least) = least.map(|(id, _)| id.clone()) {
                self.end(at, &least, Outcome::GivenUp(format!("more than {MAX_OPEN} messages are owed")));
            }
        }
    }

    /// Moves a delivery to what is over, from which the oldest falls, and tells those behind it how it went.
    fn end(&mut self, at: Timestamp, id: &DeliveryId, outcome: Outcome) {
        let Some(delivery) = self.open.remove(id) else { return };
        let heard = delivery.heard || outcome == Outcome::Delivered;
        if let Subject::Alert(alert) = &id.subject
            && outcome == Outcome::Delivered
            && let Some(who) = self.told.get_mut(&(alert.clone(), id.since))
            && let Some(heard) = who.get_mut(&id.receiver)
        {
            *heard = true;
        }
        let number = self.finished.last().map_or(0, |(last, _)| last.saturating_add(1));
        let finished = Finished { id: id.clone(), at, outcome, attempts: delivery.attempts };
        self.finished.insert(number, finished);
        let oldest = self.finished.first().map(|(number, _)| *number);
        if let Some(oldest) = oldest.filter(|_| self.finished.len() > MAX_FINISHED) {
            self.finished.remove(&oldest);
        }
        let behind: Vec<DeliveryId> =
            self.open.from(id).map(|(next, _)| next).take_while(|next| same_episode(next, id)).cloned().collect();
        let first = DeliveryId { event: Event::Fired, ..id.clone() };
        let before = self.open.from(&first).next().is_some_and(|(next, _)| same_episode(next, id) && next < id);
        for next in behind {
            if !heard && !before && next.event == Event::Resolved {
                self.end(at, &next, Outcome::GivenUp("its beginning was never delivered".into()));
            } else if let Some(next) = self.open.get_mut(&next) {
                next.heard |= heard;
            }
            if !heard {
                break;
            }
        }
    }
}

fn same_episode(a: &DeliveryId, b: &DeliveryId) -> bool {
    (&a.receiver, &a.subject, a.since) == (&b.receiver, &b.subject, b.since)
}

fn shortened(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_REASON)].to_owned()
}

#[cfg(test)]
mod tests;
