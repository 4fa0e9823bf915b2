//! One turn after the other: plan, propose, send.

use std::{sync::Arc, time::Duration};

use mainstay_common::process::{now, shutdown::CancellationToken};
use mainstay_core::{
    Actor, Command, State, alert,
    cluster::Fence,
    effect::Effect,
    live::LiveView,
    notify,
    plan::{Leading, Planner, plan},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::carry_out;
use crate::{
    failpoint,
    ingest::View,
    log::{Log, ProposeError},
    raft,
    receivers::Client,
};

/// The shortest time between two turns: at 10,000 nodes a thousand samples come in every second.
const TURN_EVERY: Duration = Duration::from_millis(200);
/// The longest: what only time makes due is noticed this late at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long nothing is proposed after the disk was full.
const FULL_PAUSE: Duration = Duration::from_secs(2);

/// What the leader works with.
#[derive(Clone)]
pub(crate) struct ControlLoop {
    pub(crate) log: Log,
    pub(crate) view: View,
    pub(crate) client: Arc<Client>,
}

/// What became of a turn's proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proposed {
    /// All were decided.
    All,
    /// The disk is full: the same is proposed again later.
    NoRoom,
    /// The log ends.
    Ended,
}

impl ControlLoop {
    /// Leads whenever this replica is the leader, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut leader = self.log.leader();
        loop {
            let term = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                led = leader.wait_for(Option::is_some) => match led.map(|term| *term) {
                    Ok(Some(term)) => term,
                    Ok(None) => continue,
                    // The log is gone.
                    Err(_) => return,
                },
            };
            let mut lost = leader.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // What was begun in this term is dropped with its future: the next leader settles it.
                _ = lost.wait_for(|now| *now != Some(term)) => {}
                () = self.lead(term) => return,
            }
            tracing::info!(term, "leads no longer");
        }
    }

    /// Turn after turn; ends when the log does.
    async fn lead(&self, term: u64) {
        let generation = self.log.read().cluster.about().generation;
        let leading = Leading { fence: Fence { generation, term }, since: now() };
        let mut planner = Planner::new(leading);
        let (mut states, mut lives) = (self.log.watch(), self.view.watch());
        let mut sends = JoinSet::new();
        loop {
            let (state, live) = (latest(&mut states), latest(&mut lives));
            let turn = Instant::now();
            let effects = plan(&state, &live, &mut planner, now());
            let is_idle = effects.is_empty();
            match self.carry_out(effects, &mut sends).await {
                Proposed::All => {}
                Proposed::NoRoom => sleep_until(Instant::now() + FULL_PAUSE).await,
                Proposed::Ended => return,
            }
            if is_idle {
                wait(&mut states, &mut lives, &mut sends, turn + LOOK_EVERY).await;
            }
            while sends.try_join_next().is_some() {}
            sleep_until(turn + TURN_EVERY).await;
        }
    }

    async fn carry_out(&self, effects: Vec<Effect>, sends: &mut JoinSet<()>) -> Proposed {
        let mut proposals = JoinSet::new();
        for effect in effects {
            match effect {
                Effect::Propose(command) => {
                    before(&command);
                    let log = self.log.clone();
                    proposals.spawn(async move { log.propose(log.own(Actor::Leader), command).await });
                }
                Effect::Send(send) => {
                    failpoint::reach("claim-recorded");
                    sends.spawn(carry_out::send(self.log.clone(), Arc::clone(&self.client), *send));
                }
            }
        }
        let mut all = Proposed::All;
        while let Some(answer) = proposals.join_next().await {
            match answer {
                Ok(Ok(consequence)) => tracing::debug!(?consequence, "decided"),
                // Somebody else was faster: the next plan knows.
                Ok(Err(ProposeError::Rejected(why))) => tracing::debug!(%why, "refused by the state"),
                Ok(Err(ProposeError::Log(raft::ProposeError::NoRoom))) => all = Proposed::NoRoom,
                // Leadership is lost: the next leader plans the same.
                Ok(Err(ProposeError::Log(why @ (raft::ProposeError::NotLeader(_) | raft::ProposeError::Unknown)))) => {
                    tracing::debug!(%why, "a decision is left to another leader");
                }
                // The next plan asks again.
                Ok(Err(why @ ProposeError::Behind { .. })) => tracing::warn!(%why, "a decision waits"),
                Ok(Err(ProposeError::Log(why))) => {
                    tracing::warn!(%why, "a decision could not be made");
                    return Proposed::Ended;
                }
                Err(crash) => tracing::error!(%crash, "a proposal crashed"),
            }
        }
        if all == Proposed::NoRoom {
            tracing::warn!("no room on the disk: alerts wait until there is some");
        }
        all
    }
}

/// Where tests end the process.
fn before(command: &Command) {
    if matches!(command, Command::Alert(alert::Command::Fire(..))) {
        failpoint::reach("before-fire");
    } else if matches!(command, Command::Alert(alert::Command::Resolve(..))) {
        failpoint::reach("before-resolve");
    } else if matches!(command, Command::Notify(notify::Command::Claim(..))) {
        failpoint::reach("before-claim");
    }
}

fn latest<T>(watch: &mut watch::Receiver<Arc<T>>) -> Arc<T> {
    Arc::clone(&watch.borrow_and_update())
}

/// Until something is new, or `latest` at the latest.
async fn wait(
    states: &mut watch::Receiver<Arc<State>>,
    lives: &mut watch::Receiver<Arc<LiveView>>,
    sends: &mut JoinSet<()>,
    latest: Instant,
) {
    tokio::select! {
        _ = states.changed() => {}
        _ = lives.changed() => {}
        Some(_) = sends.join_next() => {}
        () = sleep_until(latest) => {}
    }
}
