//! The accept loop: it owns the doorkeeper, and each connection has a task of its own until tonic takes it over.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mainstay_common::{
    ClusterId, Timestamp,
    identity::Subject,
    process::{now as clock, shutdown::CancellationToken},
};
use mainstay_core::{KeyFingerprint, State};
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Peer, Refusal, Refusals, authorise,
    connection::{Connection, Presence, Rope},
    doorkeeper::{Census, Doorkeeper, Id, Order, Shown},
    handshake::{self, Metered},
    limits::{BACKLOG, Budget, HANDSHAKE_LIMIT, HELLO_LIMIT, PATIENCE, TURN_LIMIT},
};
use crate::raft::ConfState;

/// The log hears of a failing accept this often.
const ACCEPT_WARNING_EVERY: Duration = Duration::from_secs(10);
/// A listener without descriptors is asked again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

type Passed = Connection<TlsStream<Metered<TcpStream>>>;

/// What a connection's task tells the doorkeeper.
#[derive(Debug)]
pub(super) enum Said {
    /// A whole ClientHello came; the answer is its turn.
    Hello(Id, oneshot::Sender<()>),
    /// The handshake is over, with or without a certificate.
    Identified(Id, Option<Shown>),
    /// The connection is gone.
    Left(Id),
}

/// Tells the gate of certificates that were renewed while their connections stand. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Renewals(mpsc::UnboundedSender<Shown>);

impl Renewals {
    /// The way to tell, and where it is heard.
    pub(crate) fn channel() -> (Self, mpsc::UnboundedReceiver<Shown>) {
        let (tell, heard) = mpsc::unbounded_channel();
        (Self(tell), heard)
    }

    /// Connections of that name and key live until then.
    pub(crate) fn renewed(&self, subject: Subject, key: KeyFingerprint, not_after: Timestamp) {
        // Nobody listens any more only when the replica is ending.
        drop(self.0.send(Shown { subject, key, not_after }));
    }
}

/// What the gate stands on.
pub(crate) struct Gate {
    pub(crate) listener: TcpListener,
    /// Read anew for every handshake: whoever renews the replica's certificate stores here.
    pub(crate) tls: Arc<ArcSwap<ServerConfig>>,
    pub(crate) cluster: ClusterId,
    pub(crate) state: watch::Receiver<Arc<State>>,
    pub(crate) members: watch::Receiver<ConfState>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) budget: Budget,
    pub(crate) renewed: mpsc::UnboundedReceiver<Shown>,
    pub(crate) stop: CancellationToken,
}

impl Gate {
    /// Accepts until `stop`: gives the connections that passed TLS, how many are in, and the task that accepts.
    pub(crate) fn open(
        self,
    ) -> (ReceiverStream<io::Result<Passed>>, watch::Receiver<Census>, impl Future<Output = ()> + Send + 'static) {
        // std asks for less, and the kernel takes a second call for the same socket.
        if let Err(error) = rustix::net::listen(&self.listener, BACKLOG) {
            tracing::warn!(%error, "the listener's backlog stays short");
        }
        let (passed, stream) = mpsc::channel(64);
        let (said, heard) = mpsc::unbounded_channel();
        let (census, counted) = watch::channel(Census::default());
        let door = Door {
            keeper: Doorkeeper::new(self.budget),
            ropes: BTreeMap::new(),
            tasks: JoinSet::new(),
            said,
            passed,
            census,
            gate: self,
        };
        (ReceiverStream::new(stream), counted, door.keep(heard))
    }
}

/// A connection that is in, as the accept loop knows it.
struct Guest {
    address: SocketAddr,
    who: String,
    rope: Arc<Rope>,
    /// Its task waits for this.
    turn: Option<oneshot::Sender<()>>,
}

struct Door {
    gate: Gate,
    keeper: Doorkeeper,
    ropes: BTreeMap<Id, Guest>,
    tasks: JoinSet<()>,
    said: mpsc::UnboundedSender<Said>,
    passed: mpsc::Sender<io::Result<Passed>>,
    census: watch::Sender<Census>,
}

impl Door {
    async fn keep(mut self, mut heard: mpsc::UnboundedReceiver<Said>) {
        let mut state = self.gate.state.clone();
        let mut warned: Option<Instant> = None;
        // After a failed accept, until when nobody is accepted.
        let mut pause: Option<tokio::time::Instant> = None;
        loop {
            let round = tokio::time::Instant::from_std(self.keeper.next_round(now()));
            tokio::select! {
                accepted = self.gate.listener.accept(), if pause.is_none() => match accepted {
                    Ok((tcp, address)) => self.arrive(tcp, address),
                    Err(error) => {
                        // Out of descriptors, or a peer that went away again: wait instead of spinning, and never end.
                        pause = Some(tokio::time::Instant::now() + ACCEPT_AGAIN);
                        if warned.is_none_or(|at| now().duration_since(at) >= ACCEPT_WARNING_EVERY) {
                            warned = Some(now());
                            tracing::warn!(%error, "a connection could not be accepted; the listener goes on");
                        }
                    }
                },
                () = pause_over(pause) => pause = None,
                Some(shown) = self.gate.renewed.recv() => self.keeper.renewed(&shown),
                said = heard.recv() => match said {
                    Some(said) => self.hear(said),
                    None => break,
                },
                changed = state.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let state = Arc::clone(&state.borrow_and_update());
                    let members = self.gate.members.borrow().clone();
                    self.keeper.recheck(now(), |shown| counts(shown, &state, &members));
                }
                () = tokio::time::sleep_until(round) => {
                    let orders = self.keeper.round(now(), clock());
                    self.carry_out(orders);
                    while self.tasks.try_join_next().is_some() {}
                }
                () = self.gate.stop.cancelled() => break,
            }
        }
        self.tasks.shutdown().await;
    }

    fn arrive(&mut self, tcp: TcpStream, address: SocketAddr) {
        let (id, orders) = self.keeper.arrive(address);
        let rope = Rope::new();
        self.ropes.insert(id, Guest { address, who: String::new(), rope: Arc::clone(&rope), turn: None });
        let arrival = Arrival {
            tcp,
            address,
            rope: Arc::clone(&rope),
            tls: Arc::clone(&self.gate.tls),
            cluster: self.gate.cluster.clone(),
            refusals: Arc::clone(&self.gate.refusals),
            presence: Presence { id, said: self.said.clone() },
            passed: self.passed.clone(),
        };
        self.tasks.spawn(async move {
            tokio::select! {
                () = arrival.pass() => {}
                // The doorkeeper counted it already.
                _ = std::future::poll_fn(|cx| rope.poll_pulled(cx)) => {}
            }
        });
        self.carry_out(orders);
    }

    fn hear(&mut self, said: Said) {
        let orders = match said {
            Said::Hello(id, turn) => {
                if let Some(guest) = self.ropes.get_mut(&id) {
                    guest.turn = Some(turn);
                }
                self.keeper.hello(id, now())
            }
            Said::Identified(id, shown) => {
                let gate = &self.gate;
                let counts = |shown: &Shown| counts(shown, &gate.state.borrow(), &gate.members.borrow()).is_ok();
                let counts = shown.as_ref().is_some_and(counts);
                if let (Some(guest), Some(shown)) = (self.ropes.get_mut(&id), &shown) {
                    guest.who = shown.subject.to_string();
                }
                self.keeper.identified(id, shown, counts, now())
            }
            Said::Left(id) => {
                self.ropes.remove(&id);
                self.keeper.left(id, now())
            }
        };
        self.carry_out(orders);
    }

    fn carry_out(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Seat(id) => {
                    // A task that gave up meanwhile says so by leaving.
                    if let Some(turn) = self.ropes.get_mut(&id).and_then(|guest| guest.turn.take()) {
                        turn.send(()).unwrap_or(());
                    }
                }
                Order::Cut(id, refusal) => {
                    if let Some(guest) = self.ropes.get(&id) {
                        guest.rope.pull(refusal);
                        self.gate.refusals.refuse(refusal, guest.address, &guest.who, "");
                    }
                }
            }
        }
        let census = self.keeper.census();
        self.census.send_if_modified(|before| std::mem::replace(before, census) != census);
    }
}

async fn pause_over(pause: Option<tokio::time::Instant>) {
    match pause {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The runtime's clock, which tests may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn counts(shown: &Shown, state: &State, members: &ConfState) -> Result<(), Refusal> {
    // Whoever is too new for a leader is told so, and asks again over the same connection.
    let sight = authorise::Sight { state, members, leads: false };
    authorise::standing(&shown.subject, shown.key, sight).map(drop).map_err(|(refusal, _)| refusal)
}

/// Why a connection does not come in.
struct Unfit {
    refusal: Refusal,
    why: String,
    /// Where the peer has yet to read why; it takes its seat until then.
    leaving: Option<(Metered<TcpStream>, Presence)>,
}

impl From<(Refusal, String)> for Unfit {
    fn from((refusal, why): (Refusal, String)) -> Self {
        Self { refusal, why, leaving: None }
    }
}

/// A connection on its way in.
struct Arrival {
    tcp: TcpStream,
    address: SocketAddr,
    rope: Arc<Rope>,
    tls: Arc<ArcSwap<ServerConfig>>,
    cluster: ClusterId,
    refusals: Arc<Refusals>,
    presence: Presence,
    passed: mpsc::Sender<io::Result<Passed>>,
}

impl Arrival {
    async fn pass(self) {
        let (address, refusals) = (self.address, Arc::clone(&self.refusals));
        let passed = self.passed.clone();
        match self.handshake().await {
            // The receiver is gone only when the server is ending.
            Ok(connection) => drop(passed.send(Ok(connection)).await),
            Err(Unfit { refusal, why, leaving }) => {
                refusals.refuse(refusal, address, "", &why);
                if let Some((tcp, _presence)) = leaving {
                    handshake::farewell(tcp).await;
                }
            }
        }
    }

    async fn handshake(self) -> Result<Passed, Unfit> {
        let late = |what: &str| (Refusal::HandshakeTimeout, what.to_owned());
        let id = self.presence.id;
        self.tcp.set_nodelay(true).map_err(|error| (Refusal::Handshake, error.to_string()))?;
        let hello = async {
            // A peer that says nothing costs no buffers.
            self.tcp.readable().await?;
            LazyConfigAcceptor::new(Acceptor::default(), Metered::new(self.tcp)).await
        };
        let start = timeout(HELLO_LIMIT, hello).await.map_err(|_| late("no ClientHello"))?;
        let start = start.map_err(|error| handshake::failed(&error))?;

        let (turn, begins) = oneshot::channel();
        self.presence.said.send(Said::Hello(id, turn)).map_err(|_| late("the replica is ending"))?;
        let begins = timeout(TURN_LIMIT, begins).await.map_err(|_| late("its turn did not come"))?;
        begins.map_err(|_| late("the replica is ending"))?;

        let accepting = start.into_stream(self.tls.load_full()).into_fallible();
        let mut stream = match timeout(HANDSHAKE_LIMIT, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, tcp))) => {
                let (refusal, why) = handshake::failed(&error);
                return Err(Unfit { refusal, why, leaving: Some((tcp, self.presence)) });
            }
            Err(_) => return Err(late("the handshake did not end").into()),
        };
        stream.get_mut().0.lift();
        let shown = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(der) => Some(handshake::identity(der, &self.cluster)?),
        };
        let who = shown.as_ref().map(|shown| (shown.subject.clone(), shown.key));
        self.presence.said.send(Said::Identified(id, shown)).map_err(|_| late("the replica is ending"))?;
        let peer = Peer { address: self.address, who };
        Ok(Connection::new(stream, peer, PATIENCE, self.rope, self.refusals, self.presence))
    }
}
