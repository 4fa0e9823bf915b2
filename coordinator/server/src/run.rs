//! The life of one replica.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mainstay_common::{
    ExitCode, Failure,
    process::{data_dir::DataDir, http, ready, shutdown::CancellationToken},
};
use mainstay_proto::v1 as pb;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use crate::{
    admin_socket,
    api::{AdminService, EnrolService, OperatorService, Shared, ViewerService},
    config::ServeConfig,
    gate::{self, AuthoriseLayer, Budget, Gate, Refusals, Renewals},
    identity::{self, Authority, Holders, Opener, OwnFiles},
    ingest::{AgentService, View},
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
    let dir = Arc::new(dir);
    identity::adopt_plain_key(&dir, &log).await?;
    let opener = Opener::read(&dir);
    let ca = Arc::new(Authority::new(about.id.clone(), log.watch(), opener, config.lives));
    if let Err(error) = ca.issuing() {
        tracing::warn!(%error, "this replica serves, and signs nothing until that is put right");
    }
    let own_files = OwnFiles::open(Arc::clone(&dir), Arc::clone(&ca), log.clone())?;
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
    let (renewals, renewed) = Renewals::channel();
    let (holders, noting) = Holders::start(log.clone(), shared_stop.clone());
    tasks.spawn(noting);
    let shared = Shared {
        log: log.clone(),
        view,
        ca,
        cluster: about.name.into(),
        cluster_id: about.id.clone(),
        addresses: addresses_told,
        holders: holders.clone(),
        renewals,
        data_dir: dir.path().into(),
    };
    shared.view.sessions.expect(log.read().nodes.members().count());
    let refusals = Arc::new(Refusals::default());
    let gate = Gate {
        listener,
        tls: own_files.tls(),
        cluster: about.id,
        state: log.watch(),
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
