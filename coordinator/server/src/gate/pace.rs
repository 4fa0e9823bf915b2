//! How often something may happen: a token bucket kept as one moment (GCRA).

use std::time::{Duration, Instant};

/// One thing every `every`, and `burst` of them at once after a rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    every: Duration,
    burst: u32,
}

/// How far one payer has got: the moment at which its bucket is full again. `None` while it is full.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paid(Option<Instant>);

impl Pace {
    pub(crate) const fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst }
    }

    /// Takes `count` tokens; gives how long to wait until they are really there. Zero within the burst.
    pub(crate) fn take(&self, paid: &mut Paid, count: u32, now: Instant) -> Duration {
        let full_at = paid.0.map_or(now, |at| at.max(now)) + self.every * count;
        paid.0 = Some(full_at);
        (full_at - now).saturating_sub(self.every * self.burst)
    }

    /// Gives `count` tokens back.
    pub(crate) fn refund(&self, paid: &mut Paid, count: u32) {
        paid.0 = paid.0.and_then(|at| at.checked_sub(self.every * count));
    }
}

impl Paid {
    /// True where nothing is owed: it may be forgotten.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.0.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace::new(Duration::from_millis(100), 3);

    #[test]
    fn a_burst_is_free_then_everyone_waits_a_turn() {
        let (mut paid, start) = (Paid::default(), Instant::now());
        let waits: Vec<_> = (0..5).map(|_| PACE.take(&mut paid, 1, start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        assert_eq!(PACE.take(&mut paid, 1, start + Duration::from_millis(550)).as_millis(), 0);
    }

    #[test]
    fn what_is_given_back_was_never_taken() {
        let (mut paid, start) = (Paid::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(PACE.take(&mut paid, 1, start), Duration::ZERO);
            PACE.refund(&mut paid, 1);
        }
        assert!(paid.is_full(start));
    }
}
