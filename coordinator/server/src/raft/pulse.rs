//! What the log's threads count while they work, for metrics. Everything begins at nothing with the process.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::ProposeError;

/// The slowest write is that of this span, or of up to twice as much.
const WINDOW: Duration = Duration::from_secs(60);

/// Counters and sizes.
#[derive(Debug, Default)]
pub struct Pulse {
    committed: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    pub(super) leader_changes: AtomicU64,
    writes: AtomicU64,
    write_micros: AtomicU64,
    slowest: Mutex<Slowest>,
    pub(super) log_bytes: AtomicU64,
    checkpoint_bytes: AtomicU64,
    checkpoint_made_at_ms: AtomicI64,
}

/// The slowest write of this window and of the one before.
#[derive(Debug, Default)]
struct Slowest {
    begun: Option<Instant>,
    now: Duration,
    before: Duration,
}

impl Slowest {
    fn turn(&mut self, now: Instant) {
        let windows = self.begun.map_or(0, |begun| now.saturating_duration_since(begun).as_secs() / WINDOW.as_secs());
        if windows > 0 || self.begun.is_none() {
            self.before = if windows == 1 { self.now } else { Duration::ZERO };
            (self.begun, self.now) = (Some(now), Duration::ZERO);
        }
    }
}

/// What became of proposals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proposals {
    /// Committed and applied, whatever that said.
    pub committed: u64,
    /// Not taken: nothing changed.
    pub refused: u64,
    /// Nobody knows.
    pub unknown: u64,
}

/// What writes to the disk took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// How many there were.
    pub count: u64,
    /// All of them together, each with its fdatasync.
    pub total: Duration,
    /// The slowest of the last minute or two.
    pub slowest: Duration,
}

impl Pulse {
    /// What became of proposals.
    pub fn proposals(&self) -> Proposals {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Proposals { committed: read(&self.committed), refused: read(&self.refused), unknown: read(&self.unknown) }
    }

    /// How often another leader than before was heard of.
    pub fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Relaxed)
    }

    /// What writes to the disk took.
    pub fn writes(&self) -> Writes {
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        slowest.turn(Instant::now());
        let total = Duration::from_micros(self.write_micros.load(Relaxed));
        Writes { count: self.writes.load(Relaxed), total, slowest: slowest.now.max(slowest.before) }
    }

    /// Bytes of the segments in use.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Relaxed)
    }

    /// Bytes of the state in the newest checkpoint.
    pub fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes.load(Relaxed)
    }

    /// When the newest checkpoint was made, in milliseconds of Unix time; `None` where that was in an earlier life.
    pub fn checkpoint_made_at_ms(&self) -> Option<i64> {
        Some(self.checkpoint_made_at_ms.load(Relaxed)).filter(|at| *at != 0)
    }

    pub(super) fn answered<T>(&self, outcome: &Result<T, ProposeError>) {
        let counter = match outcome {
            Ok(_) => &self.committed,
            Err(ProposeError::Unknown | ProposeError::Broken(_)) => &self.unknown,
            Err(
                ProposeError::TooLarge { .. }
                | ProposeError::NoRoom
                | ProposeError::NotLeader(_)
                | ProposeError::Ending,
            ) => &self.refused,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn wrote(&self, took: Duration) {
        self.writes.fetch_add(1, Relaxed);
        self.write_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        slowest.turn(Instant::now());
        slowest.now = slowest.now.max(took);
    }

    pub(super) fn checkpoint(&self, bytes: u64, made_at_ms: Option<i64>) {
        self.checkpoint_bytes.store(bytes, Relaxed);
        self.checkpoint_made_at_ms.store(made_at_ms.unwrap_or(0), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_write_is_forgotten_after_a_while() {
        let (begun, mut slowest) = (Instant::now(), Slowest::default());
        slowest.turn(begun);
        slowest.now = Duration::from_secs(3);
        slowest.turn(begun + WINDOW / 2);
        assert_eq!(slowest.now.max(slowest.before), Duration::from_secs(3));
        slowest.turn(begun + WINDOW);
        assert_eq!((slowest.now, slowest.before), (Duration::ZERO, Duration::from_secs(3)));
        slowest.turn(begun + WINDOW * 3);
        assert_eq!(slowest.now.max(slowest.before), Duration::ZERO);
    }

    #[test]
    fn every_answer_is_counted_as_what_it_means() {
        let pulse = Pulse::default();
        for outcome in
            [Ok(()), Err(ProposeError::Unknown), Err(ProposeError::NoRoom), Err(ProposeError::NotLeader(None))]
        {
            pulse.answered(&outcome);
        }
        assert_eq!(pulse.proposals(), Proposals { committed: 1, refused: 2, unknown: 1 });
    }
}
