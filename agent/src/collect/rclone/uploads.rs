//! Uploads that fail, and a cache that is full: what rclone shows for a moment only is remembered. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// rclone clears its mark with every pass, whether it found room or not.
const FULL_FOR: Duration = Duration::from_secs(600);
/// Before 1.68 nothing tells how often an upload was tried: so long without one done, while errors grow, it fails.
const STUCK_AFTER: Duration = Duration::from_secs(1_800);

/// What is remembered of one mount's uploads.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    full_at: Option<Instant>,
    stuck: Option<Stuck>,
}

/// Files that wait, and none of them arrives.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    since: Instant,
    dirty: u64,
    errors: u64,
}

impl Uploads {
    /// Whether the cache ran out of space within the last ten minutes.
    pub(super) fn full(&mut self, now_full: bool, now: Instant) -> bool {
        if now_full {
            self.full_at = Some(now);
        }
        self.full_at.is_some_and(|at| now - at < FULL_FOR)
    }

    /// How many uploads fail where no queue tells: those that wait for half an hour while errors grow. `None`: nobody can
    /// say yet.
    pub(super) fn stuck(&mut self, dirty: Option<u64>, errors: Option<u64>, now: Instant) -> Option<u64> {
        let (dirty, errors) = (dirty?, errors?);
        let begun = Stuck { since: now, dirty, errors };
        // Fewer files wait than before, or rclone started anew: something arrived.
        let stuck =
            self.stuck.filter(|stuck| dirty > 0 && dirty >= stuck.dirty && errors >= stuck.errors).unwrap_or(begun);
        self.stuck = Some(stuck);
        (now - stuck.since >= STUCK_AFTER && errors > stuck.errors).then_some(dirty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cache_is_remembered_for_ten_minutes() {
        let (mut uploads, start) = (Uploads::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!uploads.full(false, at(0)));
        assert!(uploads.full(true, at(10)));
        assert!(uploads.full(false, at(600)));
        assert!(!uploads.full(false, at(610)));
    }

    #[test]
    fn without_a_queue_only_time_and_errors_tell() {
        let (mut uploads, start) = (Uploads::default(), Instant::now());
        let mut stuck = |minutes: u64, dirty, errors| {
            uploads.stuck(Some(dirty), Some(errors), start + Duration::from_secs(minutes * 60))
        };
        assert_eq!(stuck(0, 3, 10), None);
        assert_eq!(stuck(29, 3, 12), None, "not for long enough");
        assert_eq!(stuck(30, 3, 12), Some(3));
        assert_eq!(stuck(31, 2, 13), None, "one arrived");
        assert_eq!(stuck(90, 2, 13), None, "waiting without errors is a slow line");
        assert_eq!(stuck(91, 0, 14), None);
        assert_eq!(uploads.stuck(None, Some(1), start), None, "there is no cache");
    }
}
