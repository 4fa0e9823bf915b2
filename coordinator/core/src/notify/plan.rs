//! What to do about deliveries: claim before sending, settle what a leader of before left open.

use std::{collections::BTreeMap, time::Duration};

use mainstay_common::{ReceiverName, Timestamp};

use super::{
    apply::{CLAIM_LASTS, Claim, Command, Notifications},
    message::Message,
    model::{Delivery, DeliveryId, Progress, Receiver, Standing, Subject},
};
use crate::{
    State, Table,
    effect::{Effect, Send},
    plan::Leading,
};

/// Messages under way to one receiver. Few, since those whose fate is unknown after a failover may arrive twice.
const IN_FLIGHT: usize = 4;
/// How long a leader waits before it takes over claims of the one before: an attempt ends within 10.5 s.
pub(crate) const SETTLES_AFTER: Duration = Duration::from_secs(12);

/// What a leader has handed out, and when something becomes due without anything new.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    /// Attempts that were handed out to be sent.
    sent: BTreeMap<DeliveryId, u32>,
    due: Option<Timestamp>,
    seen: Option<(Table<DeliveryId, Delivery>, Table<ReceiverName, Receiver>)>,
    /// Effects of the last turn: what came of them shows in the next.
    busy: bool,
}

impl Outbox {
    /// At most so many claims, and every message whose claim was applied.
    pub(crate) fn plan(&mut self, state: &State, leading: Leading, now: Timestamp, room: usize) -> Vec<Effect> {
        let there = &state.notifications;
        let same = self
            .seen
            .as_ref()
            .is_some_and(|(open, receivers)| open.is_same(&there.open) && receivers.is_same(&there.receivers));
        if same && !self.busy && self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.seen = Some((there.open.clone(), there.receivers.clone()));
        self.sent.retain(|id, attempt| there.open.get(id).is_some_and(|delivery| delivery.attempts == *attempt));
        self.due = None;
        let mut effects = Vec::new();
        for (name, receiver, standing) in there.receivers() {
            let turn = Turn { there, leading, now, name, receiver, standing, cluster: &state.cluster.about().name };
            self.of_receiver(&turn, room, &mut effects);
        }
        self.busy = !effects.is_empty();
        effects
    }

    /// Forgets what was seen, so that everything is looked at again.
    pub(crate) fn sweep(&mut self) {
        self.seen = None;
    }

    fn of_receiver(&mut self, turn: &Turn<'_>, room: usize, effects: &mut Vec<Effect>) {
        let Turn { leading, now, .. } = *turn;
        let not_before = turn.standing.and_then(|standing| standing.failing.as_ref()).map(|failing| failing.not_before);
        let (mut in_flight, mut ready, mut before) = (0, Vec::new(), None);
        for (id, delivery) in turn.there.of_receiver(turn.name) {
            // What one receiver is told of one alert arrives in order: the rest waits.
            if before.replace(&id.subject) == Some(&id.subject) && id.subject != Subject::Test {
                continue;
            }
            let from = match delivery.progress {
                // Who tests a receiver does not wait for its next turn.
                Progress::Owed(from) if id.subject == Subject::Test => from,
                Progress::Owed(from) => not_before.map_or(from, |wait| from.max(wait)),
                Progress::Claimed(fence, at) if fence == leading.fence => {
                    let handed_out = self.sent.get(id) == Some(&delivery.attempts);
                    if !handed_out && at.plus(CLAIM_LASTS) > now && effects.len() < room {
                        self.sent.insert(id.clone(), delivery.attempts);
                        effects.push(turn.send(id, delivery));
                    }
                    at.plus(CLAIM_LASTS)
                }
                Progress::Claimed(fence, _) if fence < leading.fence => leading.since.plus(SETTLES_AFTER),
                // Somebody leads since; this leader has nothing to do there.
                Progress::Claimed(..) => continue,
            };
            if now >= from {
                ready.push((from, id, delivery));
            } else {
                in_flight += usize::from(matches!(delivery.progress, Progress::Claimed(..)));
                self.due = Some(self.due.map_or(from, |due| due.min(from)));
            }
        }
        // A receiver that fails gets one message at a time, the longest waiting first: a poisoned one blocks nobody.
        let free = if not_before.is_some() { 1 } else { IN_FLIGHT };
        ready.sort_by_key(|(from, id, _)| (*from, *id));
        for (_, id, delivery) in ready.into_iter().take(free.saturating_sub(in_flight)) {
            if effects.len() < room {
                let (id, attempt) = (id.clone(), delivery.attempts.saturating_add(1));
                let claim = Claim { id, fence: leading.fence, attempt };
                effects.push(Effect::Propose(crate::Command::Notify(Command::Claim(claim))));
            }
        }
    }
}

/// One receiver in one turn.
struct Turn<'a> {
    there: &'a Notifications,
    leading: Leading,
    now: Timestamp,
    name: &'a ReceiverName,
    receiver: &'a Receiver,
    standing: Option<&'a Standing>,
    cluster: &'a str,
}

impl Turn<'_> {
    fn send(&self, id: &DeliveryId, delivery: &Delivery) -> Effect {
        let claim = Claim { id: id.clone(), fence: self.leading.fence, attempt: delivery.attempts };
        let message = Message::of(id, delivery, self.cluster);
        Effect::Send(Box::new(Send { claim, receiver: self.receiver.clone(), message }))
    }
}
