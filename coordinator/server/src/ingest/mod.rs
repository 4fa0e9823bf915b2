//! Samples in: one task owns the live view, sessions bring what agents send.

mod convert;
mod limits;
mod scissors;
mod session;
mod sessions;
mod share;
mod trust;

pub(crate) use limits::Limit;
pub(crate) use session::AgentService;
pub(crate) use sessions::Sessions;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mainstay_common::{
    NodeId, Timestamp,
    process::{now, shutdown::CancellationToken},
};
use mainstay_core::live::{Hello, LiveView, Sample, swarm_reporters};
use mainstay_proto::v1 as pb;
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use limits::Cuts;

/// How often the reporter of each Swarm is chosen anew.
const REPORTERS_EVERY: Duration = Duration::from_secs(5);

enum Observation {
    Hello(NodeId, Hello, Timestamp),
    Sample(NodeId, Box<Sample>),
    Forget(NodeId),
}

/// Counts for `/metrics`.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicU64,
    pub(crate) samples: AtomicU64,
    pub(crate) bytes: AtomicU64,
    cuts: [AtomicU64; Limit::ALL.len()],
}

impl Counts {
    fn cut(&self, cuts: &Cuts) {
        for (limit, count) in cuts.met() {
            self.cuts[limit as usize].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How often each limit was met.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = (Limit, u64)> + '_ {
        Limit::ALL.iter().map(|limit| (*limit, self.cuts[*limit as usize].load(Ordering::Relaxed)))
    }

    fn sample(&self, bytes: usize) {
        self.samples.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The live view's handle: cheap to clone.
#[derive(Clone)]
pub(crate) struct View {
    observations: mpsc::Sender<Observation>,
    live: watch::Receiver<Arc<LiveView>>,
    reporters: watch::Receiver<Arc<Vec<NodeId>>>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) sessions: Arc<Sessions>,
}

/// What a session makes of one message: the sample in core's words, within every limit of a first one.
///
/// # Errors
/// Where the bytes are no report.
pub fn sample_of(message: &[u8]) -> Result<Option<Sample>, prost::DecodeError> {
    let Some(pb::report::Report::Sample(sent)) = pb::Report::decode(message)?.report else { return Ok(None) };
    let (mut sample, mut cuts) = convert::sample(sent);
    let mut share = share::Share::default();
    share.admit(&mut sample, &mut cuts);
    share.complain(&mut sample, &cuts, std::time::Instant::now());
    Ok(Some(sample))
}

impl View {
    /// Starts the one task that changes the view.
    pub(crate) fn start(stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (observations, queue) = mpsc::channel(1_024);
        let empty = LiveView::new(now());
        let (publish, live) = watch::channel(Arc::new(empty.clone()));
        let (choose, reporters) = watch::channel(Arc::default());
        let view = Self { observations, live, reporters, counts: Arc::default(), sessions: Arc::default() };
        (view, own(empty, queue, publish, choose, stop))
    }

    /// The view as of now.
    pub(crate) fn read(&self) -> Arc<LiveView> {
        Arc::clone(&self.live.borrow())
    }

    /// Follows the view.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<LiveView>> {
        self.live.clone()
    }

    /// Forgets a node that was removed.
    pub(crate) async fn forget(&self, node: NodeId) {
        self.sessions.forget(&node);
        self.send(Observation::Forget(node)).await;
    }

    /// An observation that comes too late, at the end of the replica, may be lost.
    async fn send(&self, observation: Observation) {
        drop(self.observations.send(observation).await);
    }
}

async fn own(
    mut live: LiveView,
    mut queue: mpsc::Receiver<Observation>,
    publish: watch::Sender<Arc<LiveView>>,
    choose: watch::Sender<Arc<Vec<NodeId>>>,
    stop: CancellationToken,
) {
    let mut choosing = tokio::time::interval(REPORTERS_EVERY);
    loop {
        tokio::select! {
            observation = queue.recv() => match observation {
                None => break,
                Some(Observation::Hello(node, hello, sent_at)) => live.hello(&node, hello, sent_at, now()),
                Some(Observation::Sample(node, sample)) => live.observe(&node, *sample, now()),
                Some(Observation::Forget(node)) => live.forget(&node),
            },
            _ = choosing.tick() => {
                let reporters = swarm_reporters(&live, now());
                choose.send_if_modified(|before| {
                    let changed = **before != reporters;
                    if changed {
                        *before = Arc::new(reporters);
                    }
                    changed
                });
                continue;
            }
            () = stop.cancelled() => break,
        }
        publish.send_replace(Arc::new(live.clone()));
    }
}
