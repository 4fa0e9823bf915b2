//! The life of one replica.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mainstay_common::{
    ClusterId, ExitCode, Failure,
    process::{data_dir::DataDir, http, ready, shutdown::CancellationToken},
};
use mainstay_core::State;
use mainstay_proto::v1 as pb;
use rustls::ServerConfig;
use tokio::{
    net::TcpListener,
    sync::{Mutex, oneshot},
    task::JoinSet,
};

use crate::{
    admin_socket,
    announce::Announcement,
    api::{AdminService, EnrolService, OperatorService, Shared, StalenessLayer, ViewerService},
    config::ServeConfig,
    gate::{self, AuthoriseLayer, Budget, Gate, Refusals, Renewals},
    identity::{self, Authority, Holders, Opener, OwnFiles},
    ingest::{AgentService, View},
    joined::Joined,
    leader::{ControlLoop, Membership},
    log::{self, Log},
    peers::{Dismissal, MAX_FRAMES_BYTES, Network, Own, ReplicaService},
    raft::{Peers, Running},
    receivers::{Client, Limits, system_roots},
};

/// Largest message from an agent; a full sample of 2,000 containers stays below it.
const MAX_SAMPLE_BYTES: usize = mainstay_proto::MAX_MESSAGE_BYTES;
/// Largest message from whoever shows no certificate: a token, a name and a signing request.
const MAX_ENROLMENT_BYTES: usize = 8 * 1024;
/// Largest question to health and reflection.
const MAX_PROBE_BYTES: usize = 4 * 1024;
/// Largest message from a person.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// How long another replica may take to lead, and the last answers to go.
const GIVING_WAY: Duration = Duration::from_millis(1_800);
/// Between the last answers and the end of the connections.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// How long parts may take to end: SIGTERM ends the whole within 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where a replica serves, once it does.
#[derive(Clone, Debug)]
pub struct Started {
    /// Agents and operators.
    pub listen: SocketAddr,
    /// `/metrics`.
    pub http: SocketAddr,
    /// The cluster's name.
    pub cluster: String,
}

/// Serves until `stop`; tells `started` when agents and operators can come in.
///
/// # Errors
/// Where the data directory or an address cannot be used.
pub async fn run(
    config: ServeConfig,
    stop: CancellationToken,
    started: oneshot::Sender<Started>,
) -> Result<(), Failure> {
    let dir = DataDir::take_existing(&config.data_dir)?;
    log::refuse_missing(dir.path())?;
    // Addresses first: a replica that cannot serve begins no term.
    let listener = http::listen(config.listen, "--listen").await?;
    let http_listener = http::listen(config.http, "--http").await?;
    let peer_listener = http::listen(config.peer_listen, "--peer-listen").await?;
    let addresses = (local(&listener)?, local(&http_listener)?);
    let dir = Arc::new(dir);
    let joined = Joined::read(&dir)?;
    let own = Own {
        identity: log::identity(&dir)?,
        address: config.peer_advertise.clone().unwrap_or_else(|| joined.peer_address.clone()).into(),
        tls: Arc::new(ArcSwap::new(identity::client_of_files(&dir))),
    };
    let (cluster_id, client) = (own.identity.cluster.clone(), Arc::clone(&own.tls));
    let (network, fetches) = Network::new(own, joined.contacts());
    let peers: Arc<dyn Peers> = Arc::<Network>::clone(&network);
    let (log, running) = Log::start(&dir, peers, network.versions().clone())?;
    let running = Held(Some(running));
    // Not the caller's: connections and links stand until another replica leads.
    let shared_stop = CancellationToken::new();
    let _stops = shared_stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    let refusals = Arc::new(Refusals::default());
    tasks.spawn(Arc::clone(&network).keep(log.raft().clone(), fetches, shared_stop.clone()));
    let mut peer_door = Some(PeerDoor {
        listener: peer_listener,
        cluster: cluster_id,
        log: log.clone(),
        network: Arc::clone(&network),
        dir: Arc::clone(&dir),
        refusals: Arc::clone(&refusals),
        stop: shared_stop.clone(),
    });
    let mut server = None;
    if log.read().cluster.is_blank() {
        // It joined and knows nothing yet: the leader tells it, over the peers' port alone.
        let shown = Arc::new(ArcSwap::new(identity::server_of_files(&dir)?));
        server = Some(Arc::clone(&shown));
        if let Some(door) = peer_door.take() {
            door.open(shown, &mut tasks);
        }
        tracing::info!(replica = %log.replica(), "waiting for the leader to tell what the cluster knows");
        let mut state = log.watch();
        tokio::select! {
            () = async { drop(state.wait_for(|state| !state.cluster.is_blank()).await) } => {}
            failure = ended(&log, &network) => return Err(failure),
            () = stop.cancelled() => return Ok(()),
        }
    }
    let listed = log.read().cluster.replica(log.replica()).and_then(|replica| replica.key);
    let others_decide = log.raft().members().borrow().all().len() > 1;
    identity::refuse_lost_key(&dir, log.replica(), listed, others_decide)?;
    let about = log.read().cluster.about().clone();
    let opener = Opener::read(&dir);
    let ca = Arc::new(Authority::new(about.id.clone(), log.watch(), opener, config.lives));
    if let Err(error) = ca.issuing() {
        tracing::warn!(%error, "this replica serves, and signs nothing until that is put right");
    }
    let own_files = OwnFiles::open(Arc::clone(&dir), Arc::clone(&ca), log.clone(), server, client)?;
    if let Some(door) = peer_door.take() {
        door.open(own_files.tls(), &mut tasks);
    }
    let cluster = about.name.clone();
    let (view, view_task) = View::start(shared_stop.clone());
    tasks.spawn(view_task);
    let membership = Arc::<Mutex<()>>::default();
    tasks.spawn(Membership { log: log.clone(), alone: Arc::clone(&membership) }.run(shared_stop.clone()));
    let announcement = Announcement {
        log: log.clone(),
        network: Arc::clone(&network),
        address: config.advertise.clone(),
        peer_address: config.peer_advertise.clone(),
        key: identity::key_of_files(&dir),
    };
    tasks.spawn(announcement.make(shared_stop.clone()));
    let (renewals, renewed) = Renewals::channel();
    let (holders, noting) = Holders::start(log.clone(), shared_stop.clone());
    tasks.spawn(noting);
    let shared = Shared {
        log: log.clone(),
        view,
        ca,
        cluster: about.name.into(),
        cluster_id: about.id.clone(),
        announced: config.announce_listen.then(|| addresses.0.to_string().into()),
        network: Arc::clone(&network),
        membership,
        holders: holders.clone(),
        renewals,
        data_dir: dir.path().into(),
    };
    shared.view.sessions.expect(log.read().nodes.members().count());
    let gate = Gate {
        listener,
        tls: own_files.tls(),
        cluster: about.id,
        state: log.watch(),
        members: log.raft().members(),
        refusals: Arc::clone(&refusals),
        budget: Budget::of_this_process(),
        renewed,
        stop: shared_stop.clone(),
    };
    let (incoming, census, accepting) = gate.open();
    tasks.spawn(accepting);
    tasks.spawn(own_files.keep(holders, shared_stop.clone()));
    tasks.spawn(http::serve(
        http_listener,
        crate::http::handler(shared.clone(), Arc::clone(&refusals), census),
        shared_stop.clone(),
    ));
    let admin_path = dir.file(admin_socket::NAME);
    if let Some(socket) = admin_socket::open(&admin_path) {
        tasks.spawn(admin_socket::serve(socket, admin_path, shared.clone(), shared_stop.clone()));
    }

    let client = Arc::new(Client::new(system_roots(), Limits::default()));
    let control_loop = ControlLoop { log: log.clone(), view: shared.view.clone(), client };
    tasks.spawn(control_loop.run(shared_stop.clone()));

    let health = health().await.max_decoding_message_size(MAX_PROBE_BYTES);
    let router = gate::server()
        .layer(AuthoriseLayer::new(log.clone(), Arc::clone(&refusals)))
        .layer(StalenessLayer(log.clone()))
        .add_service(health)
        .add_service(
            pb::agent_server::AgentServer::new(AgentService {
                shared: shared.clone(),
                refusals: Arc::clone(&refusals),
            })
            .max_decoding_message_size(MAX_SAMPLE_BYTES),
        )
        .add_service(
            pb::enrol_server::EnrolServer::new(EnrolService(shared.clone()))
                .max_decoding_message_size(MAX_ENROLMENT_BYTES),
        )
        .add_service(
            pb::viewer_server::ViewerServer::new(ViewerService(shared.clone()))
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .add_service(
            pb::operator_server::OperatorServer::new(OperatorService(shared.clone()))
                .max_decoding_message_size(MAX_REQUEST_BYTES),
        )
        .add_service(
            pb::admin_server::AdminServer::new(AdminService(shared)).max_decoding_message_size(gate::DECLARATION_BYTES),
        )
        .add_service(reflection()?.max_decoding_message_size(MAX_PROBE_BYTES));
    let (listen, http) = addresses;
    tracing::info!(%listen, %http, cluster, version = crate::VERSION, "serving");
    let mut leader = log.raft().known_leader();
    tasks.spawn(async move {
        // A replica that knows no leader serves stale answers, and is not ready.
        if leader.wait_for(Option::is_some).await.is_ok() {
            ready::ready();
            // Whoever waited for this may have gone.
            drop(started.send(Started { listen, http, cluster }));
        }
    });

    // Long streams never end by themselves: the server is dropped with them when it is told to stop.
    let served = tokio::select! {
        served = router.serve_with_incoming(incoming) => match served {
            Err(error) => Err(server_ended(error.to_string())),
            // Connections end with the log, which is about to say why it did.
            Ok(()) => {
                let failure = tokio::time::timeout(PATIENCE, ended(&log, &network)).await;
                Err(failure.unwrap_or_else(|_| server_ended("nobody told it to".into())))
            }
        },
        failure = ended(&log, &network) => Err(failure),
        () = async {
            stop.cancelled().await;
            ready::stopping();
            if tokio::time::timeout(GIVING_WAY, give_way(&log)).await.is_err() {
                tracing::warn!("no other replica took leadership over in time");
            }
        } => Ok(()),
    };
    ready::stopping();
    shared_stop.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    let ended = async {
        ended.await;
        running.end().await
    };
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        tracing::warn!("not everything ended in time; what was answered is on disk");
    }
    tracing::info!("stopped");
    served
}

/// Another replica leads before this one goes, so that nobody waits for an election; what was asked meanwhile is still
/// answered.
async fn give_way(log: &Log) {
    if log.leads() && log.raft().members().borrow().voters.len() > 1 {
        match log.hand_over(None).await {
            Some(number) => tracing::info!(leader = %mainstay_core::cluster::numbered(number), "gave leadership away"),
            None => tracing::warn!("no other replica took leadership over in time"),
        }
        tokio::time::sleep(LAST_ANSWERS).await;
    }
}

fn server_ended(why: String) -> Failure {
    Failure::new(ExitCode::Failed, "the server ended", why, "start it again")
}

/// The log's thread. Where the replica is dropped in the middle of its life, it dies as in a crash.
struct Held(Option<Running<State>>);

impl Held {
    async fn end(mut self) {
        if let Some(running) = self.0.take() {
            running.end().await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.cut();
        }
    }
}

/// What the process has to end with by itself.
async fn ended(log: &Log, network: &Network) -> Failure {
    tokio::select! {
        failure = log.failed() => failure,
        why = network.dismissed() => match why {
            Dismissal::Removed(why) => Failure::new(
                ExitCode::Denied,
                format!("replica {} was removed from the cluster", log.replica()),
                why,
                "to bring this machine back: mainstay cluster add, and mainstay-coordinator join with a new --data-dir",
            ),
            Dismissal::Barred { why, try_next } => Failure::new(
                ExitCode::Denied,
                format!("replica {} may not take part any more", log.replica()),
                why,
                try_next,
            ),
        },
    }
}

/// The port for replicas.
struct PeerDoor {
    listener: TcpListener,
    cluster: ClusterId,
    log: Log,
    network: Arc<Network>,
    dir: Arc<DataDir>,
    refusals: Arc<Refusals>,
    stop: CancellationToken,
}

impl PeerDoor {
    /// Serves it in tasks of their own until `stop`.
    fn open(self, tls: Arc<ArcSwap<ServerConfig>>, tasks: &mut JoinSet<()>) {
        let Self { listener, cluster, log, network, dir, refusals, stop } = self;
        let (_, renewed) = Renewals::channel();
        let gate = Gate {
            listener,
            tls,
            cluster,
            state: log.watch(),
            members: log.raft().members(),
            refusals: Arc::clone(&refusals),
            budget: Budget::of_peers(),
            renewed,
            stop: stop.clone(),
        };
        let (incoming, _, accepting) = gate.open();
        tasks.spawn(accepting);
        let service = ReplicaService { network, log: log.clone(), dir, pins: Arc::default() };
        let service = pb::replica_server::ReplicaServer::new(service).max_decoding_message_size(MAX_FRAMES_BYTES);
        let router = gate::peer_server().layer(AuthoriseLayer::new(log, refusals)).add_service(service);
        tasks.spawn(async move {
            tokio::select! {
                served = router.serve_with_incoming(incoming) => if let Err(error) = served {
                    tracing::error!(%error, "the server for replicas ended");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::new(ExitCode::Failed, "a socket has no address", error.to_string(), ""))
}

/// gRPC health, for every service and for the whole (the empty name).
async fn health() -> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health> {
    let (reporter, service) = tonic_health::server::health_reporter();
    for name in ["Agent", "Enrol", "Viewer", "Operator", "Admin"] {
        reporter.set_service_status(format!("mainstay.v1.{name}"), tonic_health::ServingStatus::Serving).await;
    }
    service
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    Failure,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(mainstay_proto::DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Failure::new(ExitCode::Failed, "reflection cannot be served", error.to_string(), ""))
}
