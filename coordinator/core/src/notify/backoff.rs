//! How long to wait after a failure: twice as long each time, and not all at the same moment.

use std::time::Duration;

use crate::codec::fnv1a;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// At most.
const LONGEST: Duration = Duration::from_secs(300);

/// The wait after so many failures in a row: half of it for sure, the other half by chance, which is derived from the
/// name of what waits, so that every replica says the same.
pub(super) fn wait(name: &str, failures: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    let half = u64::try_from(whole.as_millis() / 2).unwrap_or(u64::MAX);
    Duration::from_millis(half + fnv1a(format!("{name}#{failures}").as_bytes()) % (half + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        for (failures, whole) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (u32::MAX, 300)] {
            let (wait, whole) = (wait("ops", failures), Duration::from_secs(whole));
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
        }
    }

    #[test]
    fn chance_is_the_same_everywhere_and_not_for_all() {
        assert_ne!(wait("a", 9), wait("b", 9));
        assert_eq!(wait("a", 9), wait("a", 9));
    }
}
