//! The way to the other replicas over the network: one link to each, which the state's list of replicas keeps.
//!
//! Frames go one way per link, control before entries; the other way a replica's own link brings them. Checkpoints come
//! over a connection of their own. Every end of a link shows a certificate, and says who it is and whom it means.

mod checkpoint;
mod contacts;
mod greeting;
mod link;
mod pins;
mod queue;
mod service;

pub(crate) use contacts::{Contact, Contacts};
pub(crate) use link::connect;
pub(crate) use pins::Pins;
pub(crate) use service::{ReplicaService, reissue};

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::ArcSwap;
use mainstay_common::process::shutdown::CancellationToken;
use mainstay_core::{KeyFingerprint, State};
use rustls::ClientConfig;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::queue::Queue;
use crate::{
    raft::{ConfState, Log, Peers, Position, StateHash, store::Identity},
    versions::Versions,
};

/// The largest message between replicas: an entry of 1 MiB, and what goes with it.
pub(crate) const MAX_FRAMES_BYTES: usize = 4 << 20;

/// This replica, as others know it.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// Whose log it writes.
    pub(crate) identity: Identity,
    /// Where others dial it, host:port.
    pub(crate) address: Arc<str>,
    /// What it shows: read anew for every connection.
    pub(crate) tls: Arc<ArcSwap<ClientConfig>>,
}

/// Frames to all, and who is where.
pub(crate) struct Network {
    own: Own,
    log: OnceLock<Log<State>>,
    queues: Mutex<BTreeMap<u64, Arc<Queue>>>,
    contacts: watch::Sender<Contacts>,
    links: watch::Sender<BTreeMap<u64, bool>>,
    versions: Versions,
    fetches: mpsc::UnboundedSender<(u64, Position)>,
    dismissed: watch::Sender<Option<Dismissal>>,
    state_hash: watch::Sender<Option<StateHash>>,
}

/// Why others do not let this replica take part any more; their words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dismissal {
    /// Somebody removed it.
    Removed(String),
    /// It is not what they know of it.
    Barred {
        /// Why.
        why: String,
        /// The way to come back.
        try_next: String,
    },
}

/// What [`Network::keep`] is told by the log's thread.
pub(crate) struct Fetches(mpsc::UnboundedReceiver<(u64, Position)>);

impl Network {
    /// `contacts` are those of a replica that joined a moment ago; the state knows better as soon as there is one.
    pub(crate) fn new(own: Own, contacts: Contacts) -> (Arc<Self>, Fetches) {
        let (fetches, wanted) = mpsc::unbounded_channel();
        let network = Self {
            own,
            log: OnceLock::new(),
            queues: Mutex::default(),
            contacts: watch::Sender::new(contacts),
            links: watch::Sender::default(),
            versions: Versions::default(),
            fetches,
            dismissed: watch::Sender::default(),
            state_hash: watch::Sender::default(),
        };
        (Arc::new(network), Fetches(wanted))
    }

    /// Which links to others stand, by Raft's number.
    pub(crate) fn links(&self) -> BTreeMap<u64, bool> {
        self.links.borrow().clone()
    }

    /// What others say they know.
    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Tells whoever leads where this replica is dialled from now on.
    ///
    /// # Errors
    /// What the last of the others said.
    pub(crate) async fn announce(&self, address: &str, peer_address: &str) -> Result<(), String> {
        let contacts = self.contacts.borrow().clone();
        let mut why = "there is nobody else".to_owned();
        for (peer, contact) in contacts.0 {
            match link::announce(self, peer, &contact, address, peer_address).await {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Asks the leader to give the administrator's name to this key.
    ///
    /// # Errors
    /// Why it could not be asked, or what it said.
    pub(crate) async fn reissue(&self, leader: u64, key: KeyFingerprint) -> Result<(), String> {
        let contact = self.contacts.borrow().0.get(&leader).cloned().ok_or("nobody knows where the leader is")?;
        link::reissue(self, leader, &contact, key).await
    }

    /// Waits until a member says that this replica may not take part any more.
    pub(crate) async fn dismissed(&self) -> Dismissal {
        let mut dismissed = self.dismissed.subscribe();
        loop {
            if let Some(why) = dismissed.borrow_and_update().clone() {
                return why;
            }
            // The sender lives as long as self.
            dismissed.changed().await.unwrap_or(());
        }
    }

    /// Keeps a link to every other replica until `stop`.
    pub(crate) async fn keep(self: Arc<Self>, log: Log<State>, mut fetches: Fetches, stop: CancellationToken) {
        let mut state = log.watch();
        // Set once: the log that this network was made for.
        self.log.set(log).unwrap_or(());
        let mut contacts = self.contacts.subscribe();
        let mut tasks = JoinSet::new();
        let mut links: BTreeMap<u64, (Contact, CancellationToken)> = BTreeMap::new();
        let mut fetch: Option<(Position, CancellationToken)> = None;
        state.mark_changed();
        contacts.mark_changed();
        loop {
            tokio::select! {
                changed = state.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = Arc::clone(&state.borrow_and_update());
                    let own = self.own.identity.replica;
                    let members = self.log.get().map(|log| log.members().borrow().clone()).unwrap_or_default();
                    self.contacts.send_if_modified(|contacts| contacts.follow(&now, &members, own));
                }
                changed = contacts.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let wanted = contacts.borrow_and_update().clone();
                    self.relink(&wanted, &mut links, &mut tasks, &stop);
                }
                Some((from, at)) = fetches.0.recv() => {
                    if fetch.as_ref().is_some_and(|(there, stop)| *there == at && !stop.is_cancelled()) {
                        continue;
                    }
                    // An older one is no use any more.
                    if let Some((_, stop)) = fetch.take() {
                        stop.cancel();
                    }
                    let ends = stop.child_token();
                    fetch = Some((at, ends.clone()));
                    let network = Arc::clone(&self);
                    tasks.spawn(async move {
                        let _ended = ends.clone().drop_guard();
                        tokio::select! {
                            () = checkpoint::fetch(&network, from, at) => {}
                            () = ends.cancelled() => {}
                        }
                    });
                }
                Some(ended) = tasks.join_next() => if let Err(crash) = ended {
                    tracing::error!(%crash, "a link to a replica crashed");
                },
                () = stop.cancelled() => break,
            }
        }
        tasks.shutdown().await;
    }

    fn relink(
        self: &Arc<Self>,
        wanted: &Contacts,
        links: &mut BTreeMap<u64, (Contact, CancellationToken)>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        links.retain(|peer, (contact, ends)| {
            let stays = wanted.0.get(peer) == Some(contact);
            if !stays {
                ends.cancel();
                self.queues().remove(peer);
                self.links.send_if_modified(|links| links.remove(peer).is_some());
            }
            stays
        });
        for (peer, contact) in wanted.0.iter().filter(|(peer, _)| **peer != self.own.identity.replica) {
            if links.contains_key(peer) {
                continue;
            }
            let (queue, ends) = (Arc::new(Queue::default()), stop.child_token());
            self.queues().insert(*peer, Arc::clone(&queue));
            links.insert(*peer, (contact.clone(), ends.clone()));
            let (network, peer, contact) = (Arc::clone(self), *peer, contact.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = link::keep(&network, peer, &contact, &queue) => {}
                    () = ends.cancelled() => {}
                }
            });
        }
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody showed a certificate of this cluster's and is not known here yet: it is answered where it says it is.
    fn met(&self, peer: u64, address: &str) {
        self.contacts.send_if_modified(|contacts| contacts.meet(peer, address));
    }

    fn unreachable(&self, peer: u64) {
        if let Some(log) = self.log.get() {
            log.unreachable(peer);
        }
    }
}

impl Peers for Network {
    fn send(&self, to: u64, frame: Vec<u8>) {
        let queue = self.queues().get(&to).cloned();
        if queue.is_some_and(|queue| queue.push(frame)) {
            self.unreachable(to);
        }
    }

    fn fetch(&self, from: u64, checkpoint: Position) {
        // Nobody listens any more only when the replica is ending.
        self.fetches.send((from, checkpoint)).unwrap_or(());
    }

    fn state_hash(&self, hash: StateHash) {
        self.state_hash.send_replace(Some(hash));
    }

    /// The state's list decides whom there is a link to: a replica is in it before it is a member, and stays a moment
    /// longer.
    fn members(&self, _: &ConfState) {}
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("links", &self.links()).finish_non_exhaustive()
    }
}
