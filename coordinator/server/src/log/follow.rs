//! The audit trail follows the log.

use std::ops::RangeInclusive;

use mainstay_core::{Consequence, Entry, Rejected, State, audit::Record};

use crate::{
    audit::{Line, Scribe},
    raft::{Keep, Observer, Position},
};

/// A record as the trail keeps it.
pub(crate) fn line(term: u64, record: Record) -> Line {
    let Record { index, at, actor, from, request, kind, target, details, refused, through } = record;
    Line {
        index,
        term,
        at_ms: at.0,
        actor: actor.to_string(),
        from: from.to_string(),
        action: kind,
        object: target,
        outcome: refused.unwrap_or_else(|| "done".into()),
        detail: request.map_or_else(|| details.clone(), |request| format!("{details} (request {request})")),
        through: through.map(|replica| replica.to_string()).unwrap_or_default(),
        chain: String::new(),
    }
}

impl Observer<State> for Scribe {
    fn wanted(&self) -> u64 {
        self.last() + 1
    }

    fn applied(&mut self, at: Position, entry: &Entry, outcome: &Result<Consequence, Rejected>) {
        self.add(line(at.term, Record::of(at.index, entry, outcome)));
    }

    fn missed(&mut self, indexes: RangeInclusive<u64>) {
        let (first, last) = indexes.into_inner();
        tracing::warn!(first, last, "the audit trail lacks entries that the log forgot already");
    }

    fn keep(&mut self) -> Keep {
        Keep::by(Self::keep(self))
    }
}
