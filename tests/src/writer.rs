//! Somebody who writes all the time, whatever fails, and knows what each write was answered with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mainstay_common::process::{
    context::Context,
    tls::{Channel, new_key, signing_request},
};
use mainstay_proto::v1::{self as pb, admin_client::AdminClient, viewer_client::ViewerClient};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::{Code, Request, Status};

use crate::{
    Replicas,
    caller::{Caller, of_context},
    eventually,
    wait::holds,
};

/// A write is begun no more often.
const EVERY: Duration = Duration::from_millis(5);
/// Longest wait for a connection: who does not answer is passed over.
const DIAL: Duration = Duration::from_millis(300);
/// Longest wait for an answer: later nobody knows.
const ANSWER: Duration = Duration::from_secs(1);
/// Whoever is asked for everything in the end may take longer.
const LISTING: Duration = Duration::from_secs(30);
/// All of it in one message.
const MAX_LISTING_BYTES: usize = 256 << 20;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was changed: the coordinator says so.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What the coordinator says of a write that it did not acknowledge. Only its own three lines say that nothing was
/// changed; whatever else there is comes from the connection.
#[must_use]
pub fn fate(status: &Status) -> Fate {
    let is_own = status.message().lines().count() == 3;
    let is_doubt = matches!(status.code(), Code::Unknown | Code::Internal);
    if is_own && !is_doubt { Fate::Refused } else { Fate::Unknown }
}

/// Where the leader is, if the one that was asked says so: host:port.
#[must_use]
pub fn leader_of(status: &Status) -> Option<String> {
    status.metadata().get("mainstay-leader")?.to_str().ok().map(str::to_owned)
}

/// Everything that was written, by name.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What was acknowledged, with the moments of the question and of the answer.
    pub acknowledged: BTreeMap<String, (Instant, Instant)>,
    /// What was refused.
    pub refused: BTreeSet<String>,
    /// What nobody knows.
    pub unknown: BTreeSet<String>,
}

/// The writer; it ends with this value.
#[derive(Debug)]
pub struct Writer {
    ledger: Arc<Mutex<Ledger>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    client: Client,
}

/// An administrator who knows all addresses.
#[derive(Clone, Debug)]
struct Client {
    caller: Caller,
    addresses: Vec<String>,
}

impl Writer {
    /// Writes from now on, one write after the other, from where the calling thread is.
    ///
    /// # Panics
    /// Where the administrator's context cannot be read.
    #[must_use]
    pub fn start(replicas: &Replicas) -> Self {
        let context = Context::load(&replicas.context()).unwrap_or_else(|error| panic!("{error}"));
        let addresses = replicas.addresses();
        let caller = Caller::with(&addresses[0], &context.cluster_id, &of_context(&replicas.context()));
        let client = Client { caller, addresses };
        let (ledger, ends) = (Arc::<Mutex<Ledger>>::default(), Arc::<AtomicBool>::default());
        let pen = Pen { ledger: Arc::clone(&ledger), ends: Arc::clone(&ends), client: client.clone() };
        let thread = thread::spawn(move || runtime().block_on(pen.write()));
        Self { ledger, ends, thread: Some(thread), client }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a write is acknowledged that is begun from now on; how long that took.
    ///
    /// # Panics
    /// Where none is within `limit`.
    pub fn goes_on(&self, limit: Duration) -> Duration {
        self.goes_on_since(Instant::now(), limit)
    }

    /// Waits until a write is acknowledged that was begun after that moment; how long after it the answer came.
    ///
    /// # Panics
    /// Where none is within `limit`, from now.
    pub fn goes_on_since(&self, moment: Instant, limit: Duration) -> Duration {
        eventually("a write is acknowledged", limit, || {
            let ledger = self.ledger();
            let first = ledger.acknowledged.values().filter(|(begun, _)| *begun > moment).map(|(_, at)| *at).min();
            first.map(|at| at.duration_since(moment)).ok_or_else(|| {
                let Ledger { acknowledged, refused, unknown } = &*ledger;
                format!("{} acknowledged, {} refused, {} unknown", acknowledged.len(), refused.len(), unknown.len())
            })
        })
    }

    /// Waits until so many more are acknowledged.
    ///
    /// # Panics
    /// Where they are not within `limit`.
    pub fn writes(&self, count: usize, limit: Duration) {
        let before = self.ledger().acknowledged.len();
        eventually(&format!("{count} writes are acknowledged"), limit, || {
            let now = self.ledger().acknowledged.len() - before;
            holds(now >= count, || format!("{now} are"))
        });
    }

    /// How long the writes took that were begun after that moment and acknowledged: half of them less than this.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn median_since(&self, moment: Instant) -> Duration {
        let ledger = self.ledger();
        let since = ledger.acknowledged.values().filter(|(begun, _)| *begun > moment);
        let mut took: Vec<Duration> = since.map(|(begun, at)| at.duration_since(*begun)).collect();
        took.sort_unstable();
        *took.get(took.len() / 2).unwrap_or_else(|| panic!("nothing was acknowledged"))
    }

    /// Ends, and looks at every replica: what was acknowledged is there, decided once; what was refused is not; what
    /// nobody knows is there once or not at all; and everywhere it is the same. What was written, for whoever wants more.
    ///
    /// # Panics
    /// Where it is otherwise.
    pub fn check(mut self, replicas: &Replicas) -> Ledger {
        self.end();
        let ledger = std::mem::take(&mut *self.ledger());
        let views: Vec<View> = replicas.addresses().iter().map(|address| self.client.view(address)).collect();
        let all = ledger.acknowledged.keys().chain(&ledger.refused).chain(&ledger.unknown);
        for name in all {
            // A trail lacks what a checkpoint from elsewhere had already; no two may differ.
            let decided: BTreeSet<&[u64]> =
                views.iter().filter_map(|view| view.decided.get(name)).map(Vec::as_slice).collect();
            let there: BTreeSet<bool> = views.iter().map(|view| view.users.contains(name)).collect();
            let is_there = there.len() == 1 && there.contains(&true) && decided.len() == 1;
            let is_not = there.len() == 1 && there.contains(&false) && decided.is_empty();
            let is_once = decided.iter().all(|indexes| indexes.len() == 1);
            let (fate, fits) = if ledger.acknowledged.contains_key(name) {
                ("acknowledged", is_there)
            } else if ledger.refused.contains(name) {
                ("refused", is_not)
            } else {
                ("unknown", is_not || is_there)
            };
            assert!(fits && is_once, "{name} was {fate}: there {there:?}, decided at {decided:?}");
        }
        let Ledger { acknowledged, refused, unknown } = &ledger;
        println!("{} acknowledged, {} refused, {} unknown", acknowledged.len(), refused.len(), unknown.len());
        ledger
    }

    fn end(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), JoinHandle::join).unwrap_or_else(|_| panic!("the writer broke"));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
    }
}

/// What a replica has of the writer's.
#[derive(Debug)]
struct View {
    users: BTreeSet<String>,
    /// The entries that decided each, by the audit trail.
    decided: BTreeMap<String, Vec<u64>>,
}

impl Client {
    async fn channel(&self, address: &str) -> Option<Channel> {
        timeout(DIAL, self.caller.at(address).channel()).await.ok()?.ok()
    }

    fn view(&self, address: &str) -> View {
        let asked = async {
            let channel = self.caller.at(address).channel().await?;
            let mut admin = AdminClient::new(channel.clone()).max_decoding_message_size(MAX_LISTING_BYTES);
            let mut viewer = ViewerClient::new(channel).max_decoding_message_size(MAX_LISTING_BYTES);
            // Linearizable: the replica has all that was committed when it answers.
            let users = admin.list_users(pb::ListUsersRequest {}).await.map_err(|status| status.to_string())?;
            let request = pb::ListAuditRequest { since_ms: 0, actor: String::new(), limit: 100_000 };
            let audit = viewer.list_audit(request).await.map_err(|status| status.to_string())?.into_inner();
            assert!(!audit.more, "more was written than the trail shows");
            let ours = |name: &String| name.starts_with("w-");
            let users = users.into_inner().rows.into_iter().map(|row| row.name).filter(ours).collect();
            let mut decided: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for row in audit.rows.into_iter().filter(|row| row.action == "user add" && ours(&row.object)) {
                decided.entry(row.object).or_default().push(row.index);
            }
            Ok::<View, String>(View { users, decided })
        };
        let answer = runtime().block_on(async { timeout(LISTING, asked).await });
        answer.unwrap_or_else(|_| panic!("{address}: no answer")).unwrap_or_else(|why| panic!("{address}: {why}"))
    }
}

struct Pen {
    ledger: Arc<Mutex<Ledger>>,
    ends: Arc<AtomicBool>,
    client: Client,
}

impl Pen {
    /// One key for all: only names tell people apart.
    async fn write(self) {
        let csr = signing_request(&new_key()).unwrap_or_else(|error| panic!("{error}"));
        let mut pace = interval(EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut number, mut turn, mut leader, mut way) = (0, 0, None, None);
        while !self.ends.load(Ordering::Relaxed) {
            pace.tick().await;
            let Some(channel) = &way else {
                let next =
                    leader.take().unwrap_or_else(|| self.client.addresses[turn % self.client.addresses.len()].clone());
                turn += 1;
                way = self.client.channel(&next).await;
                continue;
            };
            number += 1;
            let name = format!("w-{number:06}");
            let request = pb::AddUserRequest { name: name.clone(), role: "viewer".into(), csr: csr.clone() };
            let begun = Instant::now();
            let answer = timeout(ANSWER, AdminClient::new(channel.clone()).add_user(Request::new(request))).await;
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(Ok(_)) => {
                    ledger.acknowledged.insert(name, (begun, Instant::now()));
                    continue;
                }
                Ok(Err(status)) => {
                    match fate(&status) {
                        Fate::Refused => ledger.refused.insert(name),
                        Fate::Unknown => ledger.unknown.insert(name),
                    };
                    leader = leader_of(&status);
                }
                Err(_) => drop(ledger.unknown.insert(name)),
            }
            way = None;
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap_or_else(|error| panic!("{error}"))
}
