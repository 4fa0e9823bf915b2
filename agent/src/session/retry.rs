//! When to dial again: full jitter, so that a thousand agents do not come back at once.

use std::time::Duration;

use mainstay_common::process::random;

/// The first wait's upper bound.
const BASE: Duration = Duration::from_secs(1);
/// No wait is longer.
const CAP: Duration = Duration::from_secs(60);

/// The waits between attempts to reach one replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    spread: Option<Duration>,
}

impl Retry {
    /// A session stood: the next wait is a random part of what the replica asked for.
    pub(super) fn stood(&mut self, spread: Duration) {
        self.failures = 0;
        // 0 is no wish; beyond 5 minutes nobody would understand the silence.
        self.spread = (!spread.is_zero()).then_some(spread.min(Duration::from_secs(300)));
    }

    /// The next wait; `dice` is between 0 and 1.
    pub(super) fn next(&mut self, dice: f64) -> Duration {
        let bound = self.spread.take().unwrap_or_else(|| BASE.saturating_mul(1 << self.failures.min(10)).min(CAP));
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(dice.clamp(0.0, 1.0))
    }
}

/// A random number between 0 and 1.
pub(super) fn dice() -> f64 {
    f64::from(u32::from_ne_bytes(random())) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute() {
        let mut retry = Retry::default();
        let waits: Vec<_> = (0..8).map(|_| retry.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry.next(0.5), Duration::from_secs(30));
    }

    #[test]
    fn the_first_wait_after_a_session_is_the_replicas_wish() {
        let mut retry = Retry::default();
        retry.next(1.0);
        retry.stood(Duration::from_secs(20));
        assert_eq!(retry.next(0.5), Duration::from_secs(10));
        assert_eq!(retry.next(1.0), Duration::from_secs(2));
    }
}
