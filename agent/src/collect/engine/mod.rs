//! The container engine: whether it answers, what it tells of by itself, and who may ask it.
//!
//! One task, the [`Hub`], holds the connection. The collectors of containers, volumes and the Swarm follow it through
//! a [`Link`]: a session while the engine answers, and the events. `GET /containers/ID/stats` and `GET /system/df` are
//! never asked: the one waits for a second each, the other locks the engine for minutes.

mod client;
mod events;
mod hub;
mod info;
mod standing;
mod transport;

use std::sync::Arc;

use bollard::models::ContainerSummary;
use mainstay_common::{Timestamp, state::EngineState};
use tokio::sync::{Notify, broadcast, watch};

pub use client::{Client, Failure};
pub use events::{Happened, News};
pub use hub::Hub;
pub use info::{Info, Membership};

use super::container::Uses;
use crate::board::{Board, Snapshot};

/// The time in which the engine answers, from one connection to its end.
#[derive(Clone, Debug)]
pub struct Session {
    /// Counts sessions: what was learned in another one may be out of date.
    pub number: u64,
    /// Who to ask.
    pub client: Client,
    /// What the engine says of itself.
    pub info: Arc<Info>,
    /// When it said so.
    pub informed_at: Timestamp,
}

/// All containers that there are, as the engine lists them.
#[derive(Debug)]
pub struct Listing {
    /// The session in which it was asked for.
    pub session: Session,
    /// The last event before it was asked for: those with a higher number may be newer than the list.
    pub after: u64,
    /// The containers.
    pub containers: Vec<ContainerSummary>,
}

/// An event and its number, which grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub number: u64,
    /// What happened.
    pub news: News,
}

/// What collectors hold of the engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Link {
    session: watch::Receiver<Option<Session>>,
    events: broadcast::Sender<Event>,
    again: Arc<Again>,
    uses: watch::Sender<Option<Arc<Uses>>>,
}

/// What collectors wish for, soon.
#[derive(Debug, Default)]
struct Again {
    info: Notify,
    list: Notify,
}

impl Link {
    /// The session; `None` while the engine does not answer.
    #[must_use]
    pub fn session(&self) -> watch::Receiver<Option<Session>> {
        self.session.clone()
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Asks for a fresh `/info`, soon.
    pub fn look_again(&self) {
        self.again.info.notify_one();
    }

    /// Which volumes containers use; `None` before the first list.
    #[must_use]
    pub fn uses(&self) -> watch::Receiver<Option<Arc<Uses>>> {
        self.uses.subscribe()
    }

    /// Tells it.
    pub(super) fn tell_uses(&self, uses: Uses) {
        self.uses.send_if_modified(|told| {
            let changed = told.as_deref() != Some(&uses);
            if changed {
                *told = Some(Arc::new(uses));
            }
            changed
        });
    }

    /// Asks for a fresh list of containers.
    pub fn list_again(&self) {
        self.again.list.notify_one();
    }
}

/// Changes what came from the engine, unless it stopped answering since: that made everything unknown, and what comes
/// late must not undo it.
pub(super) fn put_known(board: &Board, urgent: bool, change: impl FnOnce(&mut Snapshot)) {
    let answers =
        |snapshot: &Snapshot| snapshot.engine.as_ref().is_some_and(|engine| engine.state == EngineState::Ok.number());
    if !answers(&board.watch().borrow()) {
        return;
    }
    let change = |snapshot: &mut Snapshot| {
        if answers(snapshot) {
            change(snapshot);
        }
    };
    if urgent {
        board.put_urgent(change);
    } else {
        board.put(change);
    }
}

/// A moment as the engine writes it; "never" is the year 1.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let at = text.parse::<jiff::Timestamp>().ok()?.as_millisecond();
    (at > 0).then_some(Timestamp(at))
}

#[cfg(test)]
mod tests {
    use mainstay_proto::v1 as pb;

    use super::*;

    #[test]
    fn what_comes_after_the_engine_went_does_not_count() {
        let board = Board::default();
        let engine = |state: EngineState| pb::Engine { state: state.number(), ..pb::Engine::default() };
        let known = |board: &Board| board.read().containers.is_some();
        put_known(&board, true, |snapshot| snapshot.containers = Some(Arc::default()));
        assert!(!known(&board));
        board.put(|snapshot| snapshot.engine = Some(engine(EngineState::Ok).into()));
        put_known(&board, true, |snapshot| snapshot.containers = Some(Arc::default()));
        assert!(known(&board));
        assert_eq!(board.read().urgent, 1);
    }

    #[test]
    fn the_year_1_is_never() {
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
        assert_eq!(moment("2023-11-14T22:13:20.123456789Z"), Some(Timestamp(1_700_000_000_123)));
        assert_eq!(moment("2023-11-14T23:13:20.123+01:00"), Some(Timestamp(1_700_000_000_123)));
        assert_eq!(moment("soon"), None);
    }
}
