//! The voice: one session to every replica, each for itself.

mod comeback;
mod holding;
mod renewal;
mod retry;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use mainstay_common::{ExitCode, Failure, process::shutdown::CancellationToken};
use mainstay_proto::v1 as pb;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use comeback::{NoWayBack, come_back};
pub use renewal::renew_in_time;
use retry::{Retry, dice};
use stream::Ended;

use crate::{board::Board, identity::Identity};

/// The first line of the refusal that ends the agent: gRPC code PermissionDenied and this message.
pub const NODE_REMOVED: &str = "node removed";

/// What sessions work with.
#[derive(Debug)]
pub struct Voice {
    /// Who speaks.
    pub identity: Arc<Identity>,
    /// What is told.
    pub board: Board,
    /// Time between samples.
    pub interval: Duration,
    /// The boot that samples belong to.
    pub boot_id: String,
    /// How the sessions fare.
    pub stands: Stands,
    /// The agent about itself, with every sample.
    pub agent: watch::Receiver<Option<pb::Readings>>,
    /// Whether this manager reports its Swarm: true while a replica asks for it.
    pub swarm_reporter: watch::Sender<bool>,
    /// How many replicas ask for it.
    pub swarm_askers: AtomicUsize,
}

impl Voice {
    fn asked_to_report(&self, reports: bool) {
        self.swarm_reporter.send_if_modified(|reporter| {
            let askers = &self.swarm_askers;
            let others = if reports {
                askers.fetch_add(1, Ordering::Relaxed)
            } else {
                askers.fetch_sub(1, Ordering::Relaxed).saturating_sub(1)
            };
            std::mem::replace(reporter, reports || others > 0) != *reporter
        });
    }
}

/// How the sessions fare, for `/metrics` and samples.
#[derive(Clone, Debug)]
pub struct Stands {
    bytes: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
    replicas: watch::Sender<BTreeMap<String, bool>>,
}

impl Default for Stands {
    fn default() -> Self {
        Self { bytes: Arc::default(), dropped: Arc::default(), replicas: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Stands {
    /// Sample bytes handed to the network.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Samples that were overtaken before they could be sent.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Replicas by address, and whether the session stands.
    #[must_use]
    pub fn replicas(&self) -> BTreeMap<String, bool> {
        self.replicas.borrow().clone()
    }

    /// Waits for the first session that stands.
    pub async fn connected(&self) {
        let mut replicas = self.replicas.subscribe();
        // An error would mean that the sender is gone; it lives as long as self.
        let _stands = replicas.wait_for(|all| all.values().any(|stands| *stands)).await;
    }

    fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    fn overtaken(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn set(&self, address: &str, stands: bool) {
        self.replicas.send_if_modified(|all| all.insert(address.to_owned(), stands) != Some(stands));
    }

    fn forget(&self, address: &str) {
        self.replicas.send_if_modified(|all| all.remove(address).is_some());
    }
}

/// The addresses to hold a session with. The one that `enroll` was given helps out until a told one answers: it may
/// be a name for the same replica, and a second session to it would be one too many.
fn wanted(told: &[String], first: &str, stands: &BTreeMap<String, bool>) -> BTreeSet<String> {
    let mut wanted: BTreeSet<String> = told.iter().cloned().collect();
    if !told.iter().any(|address| stands.get(address) == Some(&true)) {
        wanted.insert(first.to_owned());
    }
    wanted
}

/// Holds the sessions until `stop`.
///
/// # Errors
/// A failure with exit code 4 when the cluster removed this node; nothing else ends it.
pub async fn hold(voice: Arc<Voice>, stop: CancellationToken) -> Result<(), Failure> {
    let mut enrolment = voice.identity.watch_enrolment();
    let mut stands = voice.stands.replicas.subscribe();
    let mut sessions = JoinSet::new();
    let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        let now = enrolment.borrow_and_update().clone();
        let wanted = wanted(&now.addresses, &now.coordinator, &stands.borrow_and_update());
        running.retain(|address, stop| {
            let keep = wanted.contains(address);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for address in wanted {
            running.entry(address).or_insert_with_key(|address| {
                let stop = stop.child_token();
                sessions.spawn(replica(Arc::clone(&voice), address.clone(), stop.clone()));
                stop
            });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Ok(()) = enrolment.changed() => {}
            Ok(()) = stands.changed() => {}
            Some(ended) = sessions.join_next() => match ended {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => return Err(failure),
                Err(crash) => return Err(crashed(&crash)),
            },
        }
    }
    while sessions.join_next().await.is_some() {}
    Ok(())
}

fn crashed(crash: &tokio::task::JoinError) -> Failure {
    Failure::new(ExitCode::Failed, "a session crashed", crash.to_string(), "start the agent again and report this")
}

/// One replica: a session, and another one when it ends, until `stop`.
async fn replica(voice: Arc<Voice>, address: String, stop: CancellationToken) -> Result<(), Failure> {
    let mut retry = Retry::default();
    let mut last_reason = String::new();
    voice.stands.set(&address, false);
    let result = loop {
        let ended = tokio::select! {
            ended = stream::speak(&voice, &address, &mut retry, &mut last_reason) => ended,
            () = stop.cancelled() => break Ok(()),
        };
        voice.stands.set(&address, false);
        let ended = match ended {
            Ended::OutOfDate(reason, refused) => match come_back(&voice.identity, &address, &refused).await {
                // The usual wait follows: a replica that refuses the new one too is not asked without a pause.
                Ok(()) => None,
                Err(NoWayBack::Removed(why)) => break Err(removed(&voice, &why)),
                Err(NoWayBack::Because(why)) => Some(format!("{reason}; no new one: {why}")),
            },
            Ended::Removed(why) => break Err(removed(&voice, &why)),
            Ended::Because(reason) => Some(reason),
        };
        match ended {
            None => last_reason.clear(),
            Some(reason) if reason != last_reason => {
                tracing::warn!(replica = address, reason, "no session; trying again for as long as it takes");
                last_reason = reason;
            }
            Some(reason) => tracing::debug!(replica = address, reason, "no session"),
        }
        tokio::select! {
            () = sleep(retry.next(dice())) => {}
            () = stop.cancelled() => break Ok(()),
        }
    };
    voice.stands.forget(&address);
    result
}

fn removed(voice: &Voice, why: &str) -> Failure {
    let enrolment = voice.identity.enrolment();
    Failure::new(
        ExitCode::Denied,
        format!("node {} was removed from cluster {}", enrolment.node, enrolment.cluster),
        if why.is_empty() { "an administrator removed it".to_owned() } else { why.to_owned() },
        "to bring it back: move the data directory away and `mainstay-agent enroll` with a new token",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_helps_out_only_until_a_told_one_answers() {
        let told = ["a:1".to_owned(), "b:1".to_owned()];
        let down = BTreeMap::from([("a:1".to_owned(), false), ("x:1".to_owned(), true)]);
        assert_eq!(wanted(&told, "x:1", &down).len(), 3);
        let up = BTreeMap::from([("a:1".to_owned(), true)]);
        assert_eq!(wanted(&told, "x:1", &up), BTreeSet::from(told));
        assert_eq!(wanted(&[], "x:1", &BTreeMap::new()), BTreeSet::from(["x:1".to_owned()]));
    }
}
