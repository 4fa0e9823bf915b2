//! The Swarm: this node's place in it, and, on managers, its nodes, services and tasks.
//!
//! Tasks send no events, so managers ask every ten seconds. All of them do, and tell a digest of what they know; the
//! whole view is sent by the one that the coordinator chose.

mod view;

use std::{sync::Arc, time::Duration};

use mainstay_common::{Timestamp, process::now};
use mainstay_proto::v1 as pb;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Eyes,
    engine::{Client, Event, Failure, Link, News, Session, put_known},
};
use crate::board::Collector;

/// Time between two looks of a manager.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Events bring the next look forward, but not nearer than this to the last one.
const LOOK_GAP: Duration = Duration::from_secs(1);
/// What a manager knew counts for so long after it could last be asked.
const AGING: Duration = Duration::from_secs(30);
/// What did not change is told again after so long.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Watches the Swarm until the eyes stop. `reporter` says whether this manager sends the whole view.
pub async fn run(eyes: Eyes, link: Link, mut reporter: watch::Receiver<bool>) {
    let stop = eyes.stop.clone();
    let (mut sessions, mut events) = (link.session(), link.events());
    let mut swarm = Swarm::new(eyes, link);
    // Where there is no voice any longer, what it last wished stays.
    let mut wishes = true;
    loop {
        let look_at = swarm.look_at;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = sessions.changed() => match changed {
                Ok(()) => {
                    let session = sessions.borrow_and_update().clone();
                    swarm.follow(session);
                }
                Err(_) => return,
            },
            event = events.recv() => match event {
                Ok(Event { news: News::Swarm, .. }) | Err(RecvError::Lagged(_)) => swarm.hurry(),
                Ok(_) => continue,
                Err(RecvError::Closed) => return,
            },
            wish = reporter.changed(), if wishes => wishes = wish.is_ok(),
            Some(looked) = swarm.looks.join_next() => if let Ok(looked) = looked {
                swarm.looked(looked);
            },
            () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => swarm.look(),
        }
        let reports = *reporter.borrow_and_update();
        swarm.tell(reports);
    }
}

/// The collector's own state.
struct Swarm {
    eyes: Eyes,
    link: Link,
    session: Option<Session>,
    /// When a manager looks again; `None` while it looks, and where there is nothing to see.
    look_at: Option<Instant>,
    looks: JoinSet<Look>,
    last_look: Option<Instant>,
    seen: Option<Seen>,
    /// Why the last look failed.
    trouble: Option<String>,
    /// A manager looked, or need not.
    complete: bool,
    told: Option<Told>,
}

/// What a manager saw.
struct Seen {
    at: Instant,
    view: pb::SwarmView,
    digest: u64,
}

/// One look.
struct Look {
    took: Duration,
    seen: Result<pb::SwarmView, Failure>,
}

impl Swarm {
    fn new(eyes: Eyes, link: Link) -> Self {
        Self {
            eyes,
            link,
            session: None,
            look_at: None,
            looks: JoinSet::new(),
            last_look: None,
            seen: None,
            trouble: None,
            complete: false,
            told: None,
        }
    }

    fn follow(&mut self, session: Option<Session>) {
        let number = |session: &Option<Session>| session.as_ref().map(|session| session.number);
        let is_manager = session.as_ref().is_some_and(|session| session.info.swarm.manager);
        if number(&session) != number(&self.session) || !is_manager {
            // Whatever is under way was asked of an engine, or of a manager, that is not there any longer.
            self.looks = JoinSet::new();
            (self.seen, self.trouble, self.look_at, self.complete) = (None, None, None, !is_manager);
            self.eyes.board.fared(Collector::Swarm, Duration::ZERO, None, now());
        }
        self.session = session;
        if is_manager && self.look_at.is_none() && self.looks.is_empty() {
            self.look_at = Some(Instant::now());
        }
    }

    fn hurry(&mut self) {
        let soon = self.last_look.map_or_else(Instant::now, |last| last + LOOK_GAP);
        self.look_at = self.look_at.map(|at| at.min(soon));
    }

    fn look(&mut self) {
        self.look_at = None;
        if let Some(session) = &self.session {
            let client = session.client.clone();
            self.last_look = Some(Instant::now());
            self.looks.spawn(async move {
                let began = Instant::now();
                Look { seen: ask(&client).await, took: began.elapsed() }
            });
        }
    }

    fn looked(&mut self, look: Look) {
        self.look_at = Some(self.last_look.unwrap_or_else(Instant::now) + LOOK_EVERY);
        self.complete = true;
        match look.seen {
            Ok(view) => {
                self.trouble = None;
                self.seen = Some(Seen { at: Instant::now(), digest: view::digest(&view), view });
            }
            Err(failure) => {
                if failure.status.is_some() {
                    // Perhaps it is no manager any longer, or waits to be unlocked.
                    self.link.look_again();
                }
                self.trouble = Some(failure.reason);
                self.seen = self.seen.take().filter(|seen| seen.at.elapsed() < AGING);
            }
        }
        self.eyes.board.fared(Collector::Swarm, look.took, self.trouble.clone(), now());
    }

    /// Puts what is known onto the board, where that is news.
    fn tell(&mut self, reports: bool) {
        let Some(session) = self.session.as_ref().filter(|_| self.complete) else {
            self.told = None;
            return;
        };
        let view = self.seen.as_ref().filter(|_| reports).map(|seen| &seen.view);
        let now = Told { at: Instant::now(), row: self.row(session), with_view: view.is_some() };
        if self.told.as_ref().is_none_or(|before| now.is_news_after(before)) {
            let urgent = self.told.as_ref().is_some_and(|before| before.row.state != now.row.state);
            let row = Arc::new(pb::Swarm { view: view.cloned(), ..now.row.clone() });
            put_known(&self.eyes.board, urgent, |snapshot| snapshot.swarm = Some(row));
            self.told = Some(now);
        }
    }

    /// Everything but the view, for which the digest stands.
    fn row(&self, session: &Session) -> pb::Swarm {
        let place = &session.info.swarm;
        let own = self.seen.as_ref().and_then(|seen| seen.view.nodes.iter().find(|node| node.id == place.node_id));
        let read_at = self.seen.as_ref().map_or(session.informed_at, |seen| Timestamp(seen.view.read_at_ms));
        let trouble = self.trouble.clone().filter(|_| place.error.is_empty());
        pb::Swarm {
            read_at_ms: read_at.0,
            state: place.state.number(),
            node_id: place.node_id.clone(),
            cluster_id: place.cluster_id.clone(),
            manager: place.manager,
            error: trouble.unwrap_or_else(|| place.error.clone()),
            availability: own.map(|node| node.availability.clone()).unwrap_or_default(),
            reachability: own.map(|node| node.reachability.clone()).unwrap_or_default(),
            view: None,
            view_digest: self.seen.as_ref().map_or(0, |seen| seen.digest),
        }
    }
}

/// What was put onto the board.
struct Told {
    at: Instant,
    row: pb::Swarm,
    with_view: bool,
}

impl Told {
    /// Something else is known than before, or the same for a while.
    fn is_news_after(&self, before: &Self) -> bool {
        let timeless = |told: &Self| (pb::Swarm { read_at_ms: 0, ..told.row.clone() }, told.with_view);
        self.at.duration_since(before.at) >= TELL_EVERY || timeless(self) != timeless(before)
    }
}

async fn ask(client: &Client) -> Result<pb::SwarmView, Failure> {
    let read_at = now();
    let (nodes, services, tasks) = (client.nodes().await?, client.services().await?, client.tasks().await?);
    Ok(view::view(nodes, services, tasks, read_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_and_a_wish_for_the_view_at_once() {
        let start = Instant::now();
        let told = |seconds, digest, with_view| Told {
            at: start + Duration::from_secs(seconds),
            row: pb::Swarm { read_at_ms: i64::try_from(seconds).unwrap(), view_digest: digest, ..pb::Swarm::default() },
            with_view,
        };
        let first = told(0, 1, false);
        assert!(!told(10, 1, false).is_news_after(&first));
        assert!(told(60, 1, false).is_news_after(&first));
        assert!(told(10, 2, false).is_news_after(&first));
        assert!(told(10, 1, true).is_news_after(&first));
    }
}
