//! Containers: what they are and do, as the engine says, and what they use, as the kernel says.
//!
//! The list and the events say which there are, inspections say the rest, and each has its own deadline: a container
//! that starts on a volume that hangs keeps its own inspection waiting, and nothing else.

mod cgroup;
mod desk;
mod files;
mod fleet;
mod inspected;
mod kills;
mod labels;
mod listed;
mod meter;
mod uses;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mainstay_common::process::now;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

pub use uses::{Used, Uses};

use super::{
    Eyes, Late, Once,
    engine::{Event, Link, Listing, News, Session, put_known},
    within,
};
use crate::board::Collector;
use desk::{Answer, Desk};
use fleet::{Fleet, Reaction};
use listed::Listed;
use meter::{Meters, Round};

/// All groups of thousands of containers are read in less; later than this, something is very wrong.
const DEADLINE: Duration = Duration::from_secs(5);
/// The first table waits so long for inspections and readings.
const SETTLING: Duration = Duration::from_secs(2);
/// Tables are made anew no sooner than this, however much happens.
const PUBLISH_GAP: Duration = Duration::from_millis(200);

/// Watches containers until the eyes stop.
pub async fn run(eyes: Eyes, link: Link, mut lists: mpsc::UnboundedReceiver<Listing>) {
    let stop = eyes.stop.clone();
    let (mut sessions, mut events) = (link.session(), link.events());
    let mut ticks = interval(eyes.config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut containers = Containers::new(eyes, link);
    loop {
        containers.ask();
        let publish_at = containers.publish_at();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = sessions.changed() => match changed {
                Ok(()) => if sessions.borrow_and_update().is_none() {
                    containers.lost();
                },
                Err(_) => return,
            },
            listing = lists.recv() => match listing {
                Some(listing) => containers.listed(listing),
                None => return,
            },
            event = events.recv() => match event {
                Ok(event) => containers.happened(event),
                Err(RecvError::Lagged(_)) => containers.link.list_again(),
                Err(RecvError::Closed) => return,
            },
            answer = containers.desk.answered() => containers.answered(answer),
            _ = ticks.tick() => containers.start_round(),
            Some(ended) = containers.rounds.join_next() => if let Ok(ended) = ended {
                containers.measured(ended);
            },
            () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => containers.publish(),
        }
    }
}

/// The collector's own state.
struct Containers {
    eyes: Eyes,
    link: Link,
    session: Option<Session>,
    fleet: Fleet,
    desk: Desk,
    /// Inspections that did not come about, by container.
    late: BTreeMap<Arc<str>, String>,
    /// `None` while a round goes on.
    meters: Option<Meters>,
    once: Once,
    rounds: JoinSet<Ended>,
    due: Option<Due>,
    published: Option<Instant>,
    /// Until when a first table waits to be complete.
    settling: Option<Instant>,
    /// A round was made in this session.
    measured: bool,
}

/// A table should be made.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    urgent: bool,
}

/// How a round ended.
struct Ended {
    took: Duration,
    read: Result<(Meters, Round), Late>,
}

impl Containers {
    fn new(eyes: Eyes, link: Link) -> Self {
        Self {
            eyes,
            link,
            session: None,
            fleet: Fleet::default(),
            desk: Desk::default(),
            late: BTreeMap::new(),
            meters: None,
            once: Once::default(),
            rounds: JoinSet::new(),
            due: None,
            published: None,
            settling: None,
            measured: false,
        }
    }

    /// The engine does not answer any longer. What is known of the containers stays for when it does again; files are
    /// closed.
    fn lost(&mut self) {
        (self.session, self.due, self.settling, self.meters) = (None, None, None, None);
        self.desk.clear();
        self.late.clear();
        self.eyes.board.fared(Collector::Container, Duration::ZERO, None, now());
    }

    fn listed(&mut self, listing: Listing) {
        let anew = self.session.as_ref().is_none_or(|session| session.number != listing.session.number);
        let labels = &self.eyes.config.container_labels;
        let all = listing.containers.into_iter().filter_map(|one| Listed::of(one, labels)).collect();
        for id in self.fleet.listed(listing.after, all, anew) {
            self.desk.want(id, fleet::Ask::Detail);
        }
        if anew {
            (self.settling, self.measured) = (Some(Instant::now() + SETTLING), false);
        }
        self.session = Some(listing.session);
        self.late.clear();
        self.mark(false);
    }

    fn happened(&mut self, event: Event) {
        if let News::Container { id, happened } = event.news {
            let reaction = self.fleet.happened(event.number, &id, happened);
            self.react(&id.into(), reaction);
        }
    }

    fn answered(&mut self, answer: Answer) {
        let Answer { id, after, found } = answer;
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                self.late.insert(id, failure.reason);
                return;
            }
        };
        if found.gone {
            self.late.remove(&id);
            let reaction = self.fleet.joined(after, &id, None);
            return self.react(&id, reaction);
        }
        if let Some(row) = found.row {
            let reaction = self.fleet.joined(after, &id, Some(*row));
            self.react(&id, reaction);
        }
        match found.detail {
            Some(Ok(detail)) => {
                self.late.remove(&id);
                let reaction = self.fleet.inspected(after, &id, detail);
                self.react(&id, reaction);
            }
            // It is asked again with the next list.
            Some(Err(failure)) => {
                self.late.insert(id, failure.reason);
            }
            None => {}
        }
    }

    fn react(&mut self, id: &Arc<str>, reaction: Reaction) {
        if let Some(ask) = reaction.ask.filter(|_| self.session.is_some()) {
            self.desk.want(Arc::clone(id), ask);
        }
        if reaction.changed {
            self.mark(reaction.urgent);
        }
    }

    fn ask(&mut self) {
        if let Some(session) = &self.session {
            self.desk.hand_out(&session.client, self.fleet.heard(), &self.eyes.config);
        }
        if self.settling.is_some() && self.desk.is_idle() && self.rounds.is_empty() {
            if self.measured {
                self.settling = None;
            } else {
                self.start_round();
            }
        }
    }

    /// Reads what all containers use, on a blocking thread.
    fn start_round(&mut self) {
        if self.session.is_none() || !self.rounds.is_empty() {
            return;
        }
        let (config, once, targets) = (&self.eyes.config, self.once.clone(), self.fleet.targets());
        // Meters that are still at work come back with nobody; new ones take over.
        let mut meters = self.meters.take().unwrap_or_else(|| Meters::new(&config.proc_root, &config.sys_root));
        self.rounds.spawn(async move {
            let began = Instant::now();
            let read = within(&once, DEADLINE, move || {
                let round = meters.round(&targets, std::time::Instant::now());
                (meters, round)
            });
            Ended { read: read.await, took: began.elapsed() }
        });
    }

    fn measured(&mut self, ended: Ended) {
        if self.session.is_none() {
            return;
        }
        let late = match ended.read {
            Ok((meters, round)) => {
                self.meters = Some(meters);
                round.read.into_iter().for_each(|(id, usage)| self.fleet.measured(&id, usage));
                round.lost.iter().for_each(|id| self.fleet.unseen(id));
                None
            }
            Err(late) => Some(late.to_string()),
        };
        self.measured = true;
        let complaint = late.or_else(|| self.complaint());
        self.eyes.board.fared(Collector::Container, ended.took, complaint, now());
        self.mark(false);
    }

    /// What is wrong with single containers.
    fn complaint(&self) -> Option<String> {
        if let Some((id, reason)) = self.late.first_key_value() {
            let others = match self.late.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            return Some(format!("container {}: {reason}{others}", self.fleet.name(id)));
        }
        let (name, count) = self.fleet.unmeasured()?;
        Some(format!("the control groups of {count} running containers cannot be read, such as {name}"))
    }

    fn mark(&mut self, urgent: bool) {
        let at = self.published.map_or_else(Instant::now, |last| (last + PUBLISH_GAP).max(Instant::now()));
        let due = self.due.get_or_insert(Due { at, urgent });
        due.urgent |= urgent;
    }

    fn publish_at(&self) -> Option<Instant> {
        let due = self.due.filter(|_| self.session.is_some())?;
        Some(self.settling.unwrap_or(due.at).max(due.at))
    }

    fn publish(&mut self) {
        let urgent = self.due.take().is_some_and(|due| due.urgent);
        (self.published, self.settling) = (Some(Instant::now()), None);
        let table = Arc::new(self.fleet.table(now()));
        put_known(&self.eyes.board, urgent, |snapshot| snapshot.containers = Some(table));
        self.link.tell_uses(self.fleet.uses());
    }
}
