//! Reads that wait: for the leader to say what is committed, then for it to be applied here.

use std::collections::BTreeMap;

use super::{Ticket, mistake::Mistake};

/// A new context is asked after so many ticks without an answer: a new leader drops reads silently until it commits.
const RETRY_TICKS: u64 = 2;
/// Nobody waits longer than so many ticks: 2 s.
const DEADLINE_TICKS: u64 = 40;

/// All reads of a turn share a context, which never repeats: the crate keys reads by it, and a late answer to an older
/// one would be stale.
#[derive(Debug)]
pub(super) struct Reads {
    id: u64,
    boot: u64,
    asked: u64,
    mistake: Option<Mistake>,
    /// Not asked for yet.
    fresh: Vec<Waiting>,
    /// By context.
    under_way: BTreeMap<Vec<u8>, UnderWay>,
    /// Known to be readable once so much is applied.
    parked: Vec<(u64, Waiting)>,
}

#[derive(Debug)]
struct UnderWay {
    since: u64,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    /// The tick after which it is given up.
    until: u64,
}

impl Reads {
    /// `boot` differs at every start of a replica.
    pub(super) fn new(id: u64, boot: u64, mistake: Option<Mistake>) -> Self {
        Self { id, boot, asked: 0, mistake, fresh: vec![], under_way: BTreeMap::new(), parked: vec![] }
    }

    pub(super) fn add(&mut self, ticket: Ticket, now: u64) {
        self.fresh.push(Waiting { ticket, until: now + DEADLINE_TICKS });
    }

    /// The context to ask with, where somebody waits.
    pub(super) fn ask(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.fresh.is_empty() {
            return None;
        }
        if self.mistake != Some(Mistake::RepeatReadContext) || self.asked == 0 {
            self.asked += 1;
        }
        let context: Vec<u8> = [self.id, self.boot, self.asked].into_iter().flat_map(u64::to_le_bytes).collect();
        let under_way =
            self.under_way.entry(context.clone()).or_insert_with(|| UnderWay { since: now, waiting: vec![] });
        under_way.since = now;
        under_way.waiting.append(&mut self.fresh);
        Some(context)
    }

    /// The leader answered: what is committed up to `index` answers them.
    pub(super) fn answered(&mut self, context: &[u8], index: u64) {
        let waiting = self.under_way.remove(context).map(|under_way| under_way.waiting).unwrap_or_default();
        self.parked.extend(waiting.into_iter().map(|waiting| (index, waiting)));
    }

    /// Another term or leader: whatever was asked is lost.
    pub(super) fn ask_again(&mut self) {
        for under_way in std::mem::take(&mut self.under_way).into_values() {
            self.fresh.extend(under_way.waiting);
        }
    }

    /// Another tick: old questions are asked again, and those that are too old are given up.
    pub(super) fn tick(&mut self, now: u64) -> Vec<Ticket> {
        let old: Vec<_> = self.under_way.iter().filter(|(_, asked)| now >= asked.since + RETRY_TICKS).collect();
        let old: Vec<_> = old.into_iter().map(|(context, _)| context.clone()).collect();
        for context in old {
            self.fresh.extend(self.under_way.remove(&context).map(|asked| asked.waiting).unwrap_or_default());
        }
        let late = |waiting: &Waiting| now > waiting.until;
        let mut given_up: Vec<_> = self.fresh.extract_if(.., |waiting| late(waiting)).collect();
        given_up.extend(self.parked.extract_if(.., |(_, waiting)| late(waiting)).map(|(_, waiting)| waiting));
        given_up.into_iter().map(|waiting| waiting.ticket).collect()
    }

    /// Those that what is applied answers.
    pub(super) fn readable(&mut self, applied: u64) -> Vec<Ticket> {
        let any = self.mistake == Some(Mistake::ReadBeforeApplied);
        self.parked.extract_if(.., |(index, _)| any || *index <= applied).map(|(_, waiting)| waiting.ticket).collect()
    }

    pub(super) fn give_up_all(&mut self) -> Vec<Ticket> {
        self.ask_again();
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        let parked = std::mem::take(&mut self.parked).into_iter().map(|(_, waiting)| waiting);
        fresh.chain(parked).map(|waiting| waiting.ticket).collect()
    }
}
