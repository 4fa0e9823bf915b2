//! How the engine stands: its state, since when, and whether what it said last still counts. Pure.

use std::time::Duration;

use mainstay_common::{Timestamp, state::EngineState};
use mainstay_proto::v1 as pb;
use tokio::time::Instant;

use super::{client::Failure, info::Info};

/// After the last answer, containers and volumes of an engine that answers too late count for so long.
const AGING: Duration = Duration::from_secs(30);

/// What is known of the engine.
#[derive(Debug, Default)]
pub(super) struct Standing {
    now: Option<Now>,
    /// When it last answered, while what it said still counts.
    answered: Option<Instant>,
    version: String,
    root: String,
}

#[derive(Debug)]
struct Now {
    state: EngineState,
    since: Timestamp,
    read_at: Timestamp,
    reason: String,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// It came into another state.
    pub(super) state: bool,
    /// Nothing that it said counts any longer.
    pub(super) forget: bool,
}

impl Standing {
    /// It answered.
    pub(super) fn answered(&mut self, clock: Instant, now: Timestamp) -> Change {
        self.answered = Some(clock);
        Change { state: self.enter(EngineState::Ok, String::new(), now), forget: false }
    }

    /// It told about itself.
    pub(super) fn informed(&mut self, info: &Info) {
        self.version.clone_from(&info.version);
        self.root.clone_from(&info.root);
    }

    /// It did not answer. Only where it is merely late, what it said goes on counting for a while.
    pub(super) fn failed(&mut self, failure: &Failure, clock: Instant, now: Timestamp) -> Change {
        let forget = failure.state != EngineState::Timeout || self.unknown_at().is_none_or(|at| at <= clock);
        if forget {
            self.answered = None;
        }
        Change { state: self.enter(failure.state, failure.reason.clone(), now), forget }
    }

    /// When what it said stops counting, if it does not answer before.
    pub(super) fn unknown_at(&self) -> Option<Instant> {
        self.answered.map(|at| at + AGING)
    }

    /// That moment came.
    pub(super) fn aged(&mut self) {
        self.answered = None;
    }

    fn enter(&mut self, state: EngineState, reason: String, now: Timestamp) -> bool {
        let since = self.now.as_ref().filter(|before| before.state == state).map(|before| before.since);
        self.now = Some(Now { state, since: since.unwrap_or(now), read_at: now, reason });
        since.is_none()
    }

    /// As it travels; `None` before the first answer or failure.
    pub(super) fn row(&self) -> Option<pb::Engine> {
        let now = self.now.as_ref()?;
        Some(pb::Engine {
            read_at_ms: now.read_at.0,
            state: now.state.number(),
            state_since_ms: now.since.0,
            version: self.version.clone(),
            root: self.root.clone(),
            reason: now.reason.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn only_what_is_late_ages() {
        let (start, mut standing) = (Instant::now(), Standing::default());
        standing.answered(start, NOON);
        let soon = start + Duration::from_secs(14);
        let late = standing.failed(&failure(EngineState::Timeout), soon, NOON);
        assert_eq!(late, Change { state: true, forget: false });
        assert_eq!(standing.unknown_at(), Some(start + AGING));
        let later = start + AGING;
        assert!(standing.failed(&failure(EngineState::Timeout), later, NOON).forget);

        standing.answered(later, NOON);
        for state in [EngineState::Missing, EngineState::Refused, EngineState::Denied, EngineState::Error] {
            assert!(standing.failed(&failure(state), later, NOON).forget, "{state}");
        }
    }

    #[test]
    fn since_is_kept_while_the_state_holds() {
        let (clock, mut standing) = (Instant::now(), Standing::default());
        assert_eq!(standing.row(), None);
        let later = NOON.plus(Duration::from_secs(60));
        assert!(standing.failed(&failure(EngineState::Missing), clock, NOON).state);
        assert!(!standing.failed(&failure(EngineState::Missing), clock, later).state);
        let row = standing.row().unwrap();
        assert_eq!((row.state_since_ms, row.read_at_ms, row.reason.as_str()), (NOON.0, later.0, "missing"));
        assert!(standing.answered(clock, later).state);
        assert_eq!(standing.row().unwrap().reason, "");
    }

    fn failure(state: EngineState) -> Failure {
        Failure { state, status: None, reason: state.to_string() }
    }
}
