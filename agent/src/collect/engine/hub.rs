//! The one task that holds the connection to the engine.

use std::{pin::pin, sync::Arc, time::Duration};

use bollard::{
    errors::Error,
    models::{ContainerSummary, EventMessage},
};
use futures_util::StreamExt as _;
use mainstay_common::{
    Timestamp,
    process::{now, random},
    state::EngineState,
    text::Shown,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until},
};

use super::{
    Again, Client, Event, Failure, Happened, Info, Link, Listing, Membership, News, Session, events,
    standing::{Change, Standing},
};
use crate::{board::Snapshot, collect::Eyes};

/// Events do not say that an engine froze: it is pinged. With the ping's own deadline, that is noticed within 15 s.
const PING_EVERY: Duration = Duration::from_secs(10);
/// `/info` costs the engine 6 ms.
const INFO_EVERY: Duration = Duration::from_secs(600);
/// In a Swarm: nothing tells a worker that it became a manager.
const INFO_MEMBER: Duration = Duration::from_secs(60);
/// While the Swarm is pending, locked or in error.
const INFO_UNSETTLED: Duration = Duration::from_secs(30);
/// Not more often, whatever the Swarm's nodes do.
const INFO_GAP: Duration = Duration::from_secs(5);
/// Not more often because of tasks that come and go.
const INFO_TASK_GAP: Duration = Duration::from_secs(60);
/// Time between two tries grows between these.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A session that lasted so long was a good one: the next try comes soon again.
const GOOD: Duration = Duration::from_secs(10);
/// Events that a slow collector may be behind; beyond this it asks for a new list.
const EVENTS_LIMIT: usize = 1_024;

/// The list of all containers, against lost events.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// Not more often, however many events are lost.
const LIST_GAP: Duration = Duration::from_secs(1);

/// Holds the connection.
#[derive(Debug)]
pub struct Hub {
    eyes: Eyes,
    standing: Standing,
    session: watch::Sender<Option<Session>>,
    events: broadcast::Sender<Event>,
    lists: mpsc::UnboundedSender<Listing>,
    again: Arc<Again>,
    /// Sessions until now.
    sessions: u64,
    /// Events until now.
    told: u64,
    /// When the last event happened, in seconds since 1970.
    last_event: Option<i64>,
}

/// How a session ended.
enum Ended {
    /// The agent stops.
    Stopped,
    /// The stream of events did: that alone says nothing of the engine.
    Stream,
    /// The engine did not answer.
    Failed(Failure),
}

/// An answer to one of the questions that run beside the events.
enum Answer {
    Ping(Result<(), Failure>),
    Info(Box<Result<Info, Failure>>),
    List(u64, Result<Vec<ContainerSummary>, Failure>),
}

impl Hub {
    /// The hub, the link through which collectors follow it, and the lists of containers.
    #[must_use]
    pub fn new(eyes: Eyes) -> (Self, Link, mpsc::UnboundedReceiver<Listing>) {
        let (session, follower) = watch::channel(None);
        let (events, _) = broadcast::channel(EVENTS_LIMIT);
        // One list in a minute: the collector takes each as it comes.
        let (lists, taker) = mpsc::unbounded_channel();
        let again = Arc::new(Again::default());
        let (uses, _) = watch::channel(None);
        let link = Link { session: follower, events: events.clone(), again: Arc::clone(&again), uses };
        let standing = Standing::default();
        (Self { eyes, standing, session, events, lists, again, sessions: 0, told: 0, last_event: None }, link, taker)
    }

    /// Keeps a session, until the eyes stop.
    pub async fn run(mut self) {
        let stop = self.eyes.stop.clone();
        let client = match Client::new(&self.eyes.config.docker_socket) {
            Ok(client) => client,
            Err(failure) => {
                self.failed(&failure);
                return stop.cancelled().await;
            }
        };
        let mut failures = 0;
        loop {
            let asked_at = now();
            let first = tokio::select! {
                () = stop.cancelled() => return,
                first = self.aging(first_answers(&client)) => first,
            };
            let began = Instant::now();
            let ended = match first {
                Ok((info, containers)) => {
                    self.sessions += 1;
                    self.informed(&client, info);
                    self.listed(self.told, containers);
                    self.serve(&client, asked_at).await
                }
                Err(failure) => Ended::Failed(failure),
            };
            self.session.send_replace(None);
            match ended {
                Ended::Stopped => return,
                Ended::Stream => tracing::debug!("the engine's events ended"),
                Ended::Failed(failure) => self.failed(&failure),
            }
            failures = if began.elapsed() >= GOOD { 0 } else { failures + 1 };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.aging(sleep(retry_in(failures, dice()))) => {}
            }
        }
    }

    /// One session: events as they come, a ping now and then, a list every minute, `/info` when it may have changed.
    async fn serve(&mut self, client: &Client, began: Timestamp) -> Ended {
        let since = self.last_event.unwrap_or(i64::MAX).min(began.0 / 1_000) - 1;
        let mut events = pin!(client.events(since));
        let mut questions = JoinSet::new();
        let (mut pings, mut lists) = (every(PING_EVERY), every(LIST_EVERY));
        let (mut pinging, mut looking, mut listing) = (false, false, false);
        let mut looked = Instant::now();
        let mut look = self.info_due(looked);
        let (stop, again) = (self.eyes.stop.clone(), Arc::clone(&self.again));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ended::Stopped,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        if self.is_about_the_swarm(&event) {
                            look = look.min(looked + INFO_TASK_GAP);
                        }
                        self.tell(event, began);
                    }
                    None | Some(Err(Error::IOError { .. } | Error::HyperResponseError { .. })) => return Ended::Stream,
                    Some(Err(error)) => return Ended::Failed(client.failure("GET /events", &error)),
                },
                () = again.info.notified() => look = look.min(looked + INFO_GAP),
                () = again.list.notified() => lists.reset_after(LIST_GAP),
                _ = pings.tick(), if !pinging => {
                    pinging = true;
                    let client = client.clone();
                    questions.spawn(async move { Answer::Ping(client.ping().await) });
                }
                _ = lists.tick(), if !listing => {
                    listing = true;
                    let (client, told) = (client.clone(), self.told);
                    questions.spawn(async move { Answer::List(told, client.containers(None).await) });
                }
                () = sleep_until(look), if !looking => {
                    looking = true;
                    let client = client.clone();
                    questions.spawn(async move { Answer::Info(Box::new(client.info().await.map(Info::from))) });
                }
                Some(answer) = questions.join_next() => match answer {
                    Ok(Answer::Ping(Ok(()))) => {
                        pinging = false;
                        self.standing.answered(Instant::now(), now());
                    }
                    Ok(Answer::List(after, Ok(containers))) => {
                        listing = false;
                        let change = self.standing.answered(Instant::now(), now());
                        self.publish(change);
                        self.listed(after, containers);
                    }
                    Ok(Answer::Info(answer)) => {
                        (looking, looked) = (false, Instant::now());
                        match *answer {
                            Ok(info) => self.informed(client, info),
                            // The ping tells whether the engine is alive; this will be asked again.
                            Err(late) if late.state == EngineState::Timeout => {
                                tracing::debug!(reason = %Shown::new(&late.reason), "the engine told nothing of itself");
                            }
                            Err(failure) => return Ended::Failed(failure),
                        }
                        look = self.info_due(looked);
                    }
                    Ok(Answer::Ping(Err(failure)) | Answer::List(_, Err(failure))) => return Ended::Failed(failure),
                    Err(crash) => return Ended::Failed(Failure::crashed(&crash)),
                },
            }
        }
    }

    /// The engine told about itself.
    fn informed(&mut self, client: &Client, info: Info) {
        self.standing.informed(&info);
        let change = self.standing.answered(Instant::now(), now());
        self.publish(change);
        if change.state {
            tracing::info!(version = %Shown::new(&info.version), "the container engine answers");
        }
        let session =
            Session { number: self.sessions, client: client.clone(), info: Arc::new(info), informed_at: now() };
        self.session.send_replace(Some(session));
    }

    fn listed(&self, after: u64, containers: Vec<ContainerSummary>) {
        if let Some(session) = self.session.borrow().clone() {
            // Without a collector nobody needs it.
            let _taken = self.lists.send(Listing { session, after, containers });
        }
    }

    /// Whether `/info` may say something else because of this event: a node that joins or leaves a Swarm is told of by
    /// nothing but its tasks.
    fn is_about_the_swarm(&self, event: &EventMessage) -> bool {
        let action = event.action.as_deref();
        let session = self.session.borrow();
        let Some(swarm) = session.as_ref().map(|session| &session.info.swarm) else { return false };
        let expected = if swarm.node_id.is_empty() { "create" } else { "destroy" };
        action == Some(expected) && events::is_of_a_task(event)
    }

    /// Hands an event on. One from before the session says only that something changed: what is true now is asked for.
    fn tell(&mut self, event: EventMessage, began: Timestamp) {
        let at = event.time;
        if at.is_some() {
            self.last_event = at.max(self.last_event);
        }
        let is_old = at.is_some_and(|at| at < began.0 / 1_000);
        let news = match events::understand(event) {
            Some(News::Container { id, .. }) if is_old => News::Container { id, happened: Happened::Changed },
            Some(news) => news,
            None => return,
        };
        if news == News::Swarm {
            self.again.info.notify_one();
        }
        self.told += 1;
        // Without collectors nobody needs to know.
        let _heard = self.events.send(Event { number: self.told, news });
    }

    fn info_due(&self, looked: Instant) -> Instant {
        let session = self.session.borrow();
        looked + session.as_ref().map_or(INFO_EVERY, |session| info_every(&session.info.swarm))
    }

    fn failed(&mut self, failure: &Failure) {
        let change = self.standing.failed(failure, Instant::now(), now());
        if change.state {
            tracing::info!(state = %failure.state, reason = %Shown::new(&failure.reason), "the container engine does not answer");
        }
        self.publish(change);
    }

    fn publish(&self, change: Change) {
        let row = self.standing.row().map(Arc::new);
        let put = |snapshot: &mut Snapshot| {
            snapshot.engine = row;
            if change.forget {
                forget(snapshot);
            }
        };
        if change.state {
            self.eyes.board.put_urgent(put);
        } else {
            self.eyes.board.put(put);
        }
    }

    /// Waits for something, and forgets meanwhile what no longer counts.
    async fn aging<T>(&mut self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            let aged = self.standing.unknown_at();
            tokio::select! {
                done = &mut what => return done,
                () = sleep_until(aged.unwrap_or_else(Instant::now)), if aged.is_some() => {
                    self.standing.aged();
                    self.eyes.board.put(forget);
                }
            }
        }
    }
}

/// What an engine must be able to tell to count as answering.
async fn first_answers(client: &Client) -> Result<(Info, Vec<ContainerSummary>), Failure> {
    let info = client.info().await?.into();
    Ok((info, client.containers(None).await?))
}

/// How often the engine is asked about itself.
fn info_every(swarm: &Membership) -> Duration {
    match (swarm.is_unsettled(), swarm.node_id.is_empty()) {
        (true, _) => INFO_UNSETTLED,
        (false, false) => INFO_MEMBER,
        (false, true) => INFO_EVERY,
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Nothing is known of what the engine keeps.
fn forget(snapshot: &mut Snapshot) {
    (snapshot.containers, snapshot.volumes, snapshot.swarm) = (None, None, None);
}

/// The wait before another try: growing, with jitter; `dice` is between 0 and 1.
fn retry_in(failures: u32, dice: f64) -> Duration {
    let bound = RETRY.0.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY.1);
    bound.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0).max(RETRY.0)
}

fn dice() -> f64 {
    f64::from(u32::from_ne_bytes(random())) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use mainstay_common::state::SwarmState;

    use super::*;

    #[test]
    fn waits_grow_from_a_fifth_of_a_second_to_ten() {
        let waits: Vec<_> = (0..9).map(|failures| retry_in(failures, 1.0).as_millis()).collect();
        assert_eq!(waits, [200, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(retry_in(9, 0.0).as_millis(), 5_000);
    }

    #[test]
    fn a_member_of_a_swarm_looks_more_often_who_it_is() {
        let swarm = |state, node_id: &str| Membership {
            state,
            node_id: node_id.into(),
            cluster_id: String::new(),
            manager: false,
            error: String::new(),
        };
        assert_eq!(info_every(&swarm(SwarmState::Inactive, "")), INFO_EVERY);
        assert_eq!(info_every(&swarm(SwarmState::Active, "n")), INFO_MEMBER);
        assert_eq!(info_every(&swarm(SwarmState::Locked, "n")), INFO_UNSETTLED);
    }
}
