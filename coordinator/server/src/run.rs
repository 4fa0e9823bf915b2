//! The life of one replica.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mainstay_common::{
    ClusterId, ExitCode, Failure, ReplicaId,
    process::{
        data_dir::{self, DataDir},
        http, now, ready,
        shutdown::CancellationToken,
        tls::{Certificate, Credentials},
    },
};
use mainstay_proto::v1 as pb;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use crate::{
    admin_socket,
    api::{AdminService, EnrolService, OperatorService, Shared, ViewerService},
    config::ServeConfig,
    gate::{self, AuthoriseLayer, Budget, Gate, Refusals},
    identity::{self, Ca, REPLICA_LIFE},
    ingest::{AgentService, View},
    init,
    leader::ControlLoop,
    log::{self, Log},
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
/// Largest message from an administrator: a folder of declarations.
const MAX_DECLARATION_BYTES: usize = 1024 * 1024;

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
    let addresses = (local(&listener)?, local(&http_listener)?);
    let (log, running) = Log::start(&dir)?;
    let about = log.read().cluster.about().clone();
    let ca = Arc::new(load_ca(&dir, &about.id)?);
    let credentials = replica_credentials(&dir, &ca, &about.id, log.replica())?;
    let tls = gate::server_config(&credentials).map_err(|why| damaged(&dir, "replica.crt", &why))?;
    let cluster = about.name.clone();

    let shared_stop = stop.child_token();
    let mut tasks = JoinSet::new();
    let (view, view_task) = View::start(shared_stop.clone());
    tasks.spawn(view_task);
    let addresses_told: Arc<[String]> = if config.announce_listen {
        Arc::new([addresses.0.to_string()])
    } else {
        log.read().cluster.replicas().map(|(_, replica)| replica.address.clone()).collect()
    };
    let shared = Shared {
        log: log.clone(),
        view,
        ca,
        cluster: about.name.into(),
        cluster_id: about.id.clone(),
        addresses: addresses_told,
        data_dir: dir.path().into(),
    };
    shared.view.sessions.expect(log.read().nodes.members().count());
    let refusals = Arc::new(Refusals::default());
    let gate = Gate {
        listener,
        tls: Arc::new(ArcSwap::new(tls)),
        cluster: about.id,
        state: log.watch(),
        refusals: Arc::clone(&refusals),
        budget: Budget::of_this_process(),
        stop: shared_stop.clone(),
    };
    let (incoming, census, accepting) = gate.open();
    tasks.spawn(accepting);
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
            pb::admin_server::AdminServer::new(AdminService(shared)).max_decoding_message_size(MAX_DECLARATION_BYTES),
        )
        .add_service(reflection()?.max_decoding_message_size(MAX_PROBE_BYTES));
    let (listen, http) = addresses;
    tracing::info!(%listen, %http, cluster, version = crate::VERSION, "serving");
    ready::ready();
    // Whoever waited for this may have gone.
    drop(started.send(Started { listen, http, cluster }));

    // Long streams never end by themselves: the server is dropped with them when it is told to stop.
    let served = tokio::select! {
        served = router.serve_with_incoming(incoming) => served.map_err(|error| {
            Failure::new(ExitCode::Failed, "the server ended", error.to_string(), "start it again")
        }),
        failure = log.failed() => Err(failure),
        () = stop.cancelled() => Ok(()),
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

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::new(ExitCode::Failed, "a socket has no address", error.to_string(), ""))
}

fn damaged(dir: &DataDir, file: &str, why: &str) -> Failure {
    let what = format!("{} is damaged", dir.file(file).display());
    Failure::new(ExitCode::Failed, what, why, "put it back from a copy of the data directory")
}

fn read(dir: &DataDir, name: &str) -> Result<String, Failure> {
    let path = dir.file(name);
    fs::read_to_string(&path).map_err(|error| data_dir::unusable(&path, &error))
}

fn load_ca(dir: &DataDir, cluster: &ClusterId) -> Result<Ca, Failure> {
    let ca = Ca::load(cluster.clone(), read(dir, "ca.crt")?, &read(dir, "ca.key")?);
    ca.map_err(|which| match which {
        identity::Damaged::Certificate(why) => damaged(dir, "ca.crt", &why),
        identity::Damaged::Key(why) => damaged(dir, "ca.key", &why),
    })
}

/// The replica's certificate; a sole replica makes itself a new one when less than a third of its life is left, or when
/// it is missing or damaged: it holds the CA.
fn replica_credentials(
    dir: &DataDir,
    ca: &Ca,
    cluster: &ClusterId,
    replica: &ReplicaId,
) -> Result<Credentials, Failure> {
    let good = |certificate: &str| {
        Certificate::from_pem(certificate).is_ok_and(|read| {
            read.identity.cluster == *cluster
                && read.not_after.since(now()) > REPLICA_LIFE / 3
                && read.not_before <= now()
        })
    };
    let there = read(dir, "replica.crt").ok().filter(|certificate| good(certificate));
    if there.is_none() || !dir.file("replica.key").exists() {
        init::issue_replica(dir, ca, replica, now())?;
        tracing::info!(%replica, "replica's certificate made anew");
    }
    Ok(Credentials { ca: ca.pem().to_owned(), certificate: read(dir, "replica.crt")?, key: read(dir, "replica.key")? })
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
