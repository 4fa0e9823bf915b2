//! How long a sample proves that its node is there.

use std::time::Duration;

use mainstay_common::{Timestamp, state::NodeState};

use super::NodeView;

/// Intervals without a sample after which a node is stale.
const STALE_AFTER_INTERVALS: u32 = 3;
/// Intervals without a sample after which a node is unreachable.
const UNREACHABLE_AFTER_INTERVALS: u32 = 9;
/// The agent's default interval, for nodes that did not tell theirs yet.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

fn interval(view: Option<&NodeView>) -> Duration {
    view.and_then(|view| view.hello.as_ref()).map_or(DEFAULT_INTERVAL, |hello| hello.interval)
}

/// How long a sample of this node proves that it is there.
#[must_use]
pub fn lease_of(view: Option<&NodeView>) -> Duration {
    interval(view) * UNREACHABLE_AFTER_INTERVALS
}

/// How old its readings may be to decide anything.
#[must_use]
pub fn stale_after_of(view: Option<&NodeView>) -> Duration {
    interval(view) * STALE_AFTER_INTERVALS
}

/// How a node looks from here, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// How.
    pub state: NodeState,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
}

/// Judges a node by what it sent last. `enrolled_at` and `listening_since` matter as long as it sent nothing: silence
/// proves nothing before one lease is over, and a node that never came in is pending, not lost.
#[must_use]
pub fn presence(
    view: Option<&NodeView>,
    enrolled_at: Timestamp,
    listening_since: Timestamp,
    now: Timestamp,
) -> Presence {
    let interval = interval(view);
    let Some(last_seen) = view.and_then(|view| view.last_seen) else {
        let lost = listening_since.plus(interval * UNREACHABLE_AFTER_INTERVALS);
        return if enrolled_at < listening_since && now >= lost {
            Presence { state: NodeState::Unreachable, since: Some(lost) }
        } else {
            Presence { state: NodeState::Pending, since: Some(enrolled_at) }
        };
    };
    let stale = last_seen.plus(interval * STALE_AFTER_INTERVALS);
    let lost = last_seen.plus(interval * UNREACHABLE_AFTER_INTERVALS);
    if now >= lost {
        Presence { state: NodeState::Unreachable, since: Some(lost) }
    } else if now >= stale {
        Presence { state: NodeState::Stale, since: Some(stale) }
    } else {
        Presence { state: NodeState::Ready, since: view.and_then(|view| view.ready_since) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Hello;

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn silence_makes_stale_then_unreachable() {
        let at = |seconds| presence(Some(&view()), NOON, NOON, later(seconds));
        assert_eq!(at(2), Presence { state: NodeState::Ready, since: Some(NOON) });
        assert_eq!(at(3), Presence { state: NodeState::Stale, since: Some(later(3)) });
        assert_eq!(at(8), Presence { state: NodeState::Stale, since: Some(later(3)) });
        assert_eq!(at(9), Presence { state: NodeState::Unreachable, since: Some(later(9)) });
    }

    #[test]
    fn a_node_that_never_came_is_pending() {
        assert_eq!(presence(None, NOON, NOON, later(10_000)).state, NodeState::Pending);
    }

    #[test]
    fn after_a_restart_silence_proves_nothing_before_a_lease_is_over() {
        let (enrolled, restarted) = (Timestamp(0), NOON);
        assert_eq!(presence(None, enrolled, restarted, later(89)).state, NodeState::Pending);
        assert_eq!(presence(None, enrolled, restarted, later(90)).state, NodeState::Unreachable);
    }

    #[test]
    fn a_clock_that_runs_back_makes_nobody_stale() {
        assert_eq!(presence(Some(&view()), NOON, NOON, Timestamp(0)).state, NodeState::Ready);
    }

    fn view() -> NodeView {
        let hello = Hello { version: "1".into(), boot_id: "b".into(), interval: Duration::from_secs(1) };
        NodeView { hello: Some(hello), last_seen: Some(NOON), ready_since: Some(NOON), ..NodeView::default() }
    }

    fn later(seconds: u64) -> Timestamp {
        NOON.plus(Duration::from_secs(seconds))
    }
}
