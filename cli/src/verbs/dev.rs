//! `mainstay dev`: the whole mesh in one process, with this machine's real readings.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use mainstay_agent::{
    config::Given,
    enroll::{EnrollConfig, enroll},
};
use mainstay_common::{
    ExitCode, Failure, NodeId,
    identity::server_name,
    process::{
        context::Context,
        data_dir::{self, DataDir},
        log::{self, LogFormat},
        shutdown::{self, CancellationToken},
        tls::{self, Credentials},
    },
};
use mainstay_coordinator::{InitConfig, ServeConfig, Started, init};
use mainstay_proto::v1::{self as pb, admin_client::AdminClient, viewer_client::ViewerClient};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;

use crate::{
    connect::contexts,
    output::style,
};

/// The context that `dev` writes.
const CONTEXT: &str = "dev";
/// Where `/metrics` is served unless something else has the port.
const HTTP_PORT: u16 = 7480;
/// Where agents and operators are served unless something else has the port.
const LISTEN_PORT: u16 = 7443;
/// How long parts may take until the first sample is visible.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Flags of `mainstay dev`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DevArgs {
    /// Replicas of the coordinator; more than 1 comes with the replicated log
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: u32,
    /// Where the mesh keeps its data [default: ~/.local/share/mainstay/dev]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where /metrics is served [default: 127.0.0.1:7480, or any free port]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Time between samples
    #[arg(long, value_name = "DURATION", value_parser = mainstay_agent::config::parse_interval)]
    interval: Option<Duration>,
    /// The container engine's socket
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Where the agent's own /metrics is served
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
}

/// Runs until Ctrl-C.
///
/// # Errors
/// Where the data directory is in use or a part cannot start.
pub(crate) fn run(args: &DevArgs) -> Result<(), Failure> {
    if args.replicas != 1 {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("dev cannot run {} replicas", args.replicas),
            "this version's coordinator is one replica; the replicated log comes with a later one",
            "mainstay dev",
        ));
    }
    let folder = data_folder(args.data_dir.as_deref())?;
    // The lock of the whole mesh: a second dev beside this one ends here.
    let lock = DataDir::take(&folder).map_err(beside)?;
    log::start_at(LogFormat::Auto, "warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitCode::Failed, "cannot start", error.to_string(), "check `ulimit -a`"))?;
    let outcome = runtime.block_on(async {
        let stop = shutdown::on_signal()
            .map_err(|error| Failure::new(ExitCode::Failed, "cannot watch signals", error.to_string(), ""))?;
        Mesh::start(args, lock.path(), stop).await?.serve().await
    });
    // What hangs in the agent must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn beside(failure: Failure) -> Failure {
    if failure.code != ExitCode::Conflict {
        return failure;
    }
    Failure::new(
        ExitCode::Conflict,
        "another mainstay dev runs already",
        failure.what,
        "use that one: mainstay status; or give this one another --data-dir",
    )
}

fn data_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let home = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let share = home("XDG_DATA_HOME").or_else(|| home("HOME").map(|home| home.join(".local/share")));
    share.map(|share| share.join("mainstay/dev")).ok_or_else(|| {
        Failure::new(ExitCode::Usage, "no place for the data", "neither HOME nor XDG_DATA_HOME is set", "--data-dir DIR")
    })
}

/// A part of the mesh, and what it ended with.
type Part = JoinHandle<Result<(), Failure>>;

struct Mesh {
    coordinator: Part,
    agent: Part,
    stop: CancellationToken,
    folder: PathBuf,
}

impl Mesh {
    async fn start(args: &DevArgs, folder: &Path, stop: CancellationToken) -> Result<Self, Failure> {
        println!("mainstay dev {}   data {}   (Ctrl-C stops, data stays)", env!("CARGO_PKG_VERSION"), folder.display());
        let begun = Instant::now();
        let made = certificates(folder)?;
        line("certificates", if made { "made" } else { "there already" }, begun);

        let begun = Instant::now();
        let (mut coordinator, started) = coordinator(args, folder, &stop).await?;
        line("coordinator r1", &format!("leader, {}", started.listen), begun);

        let begun = Instant::now();
        let context = context(folder, &started)?;
        let channel = dial(&context).await?;
        let node = enrolled(folder, &started, channel.clone()).await?;
        let given = Given {
            data_dir: Some(folder.join("agent")),
            interval: args.interval,
            docker_socket: args.docker_socket.clone(),
            metrics: args.metrics,
            ..Given::default()
        };
        let mut config = given.complete();
        config.announce = false;
        let mut agent = tokio::spawn(mainstay_agent::run::run(config, stop.clone()));
        let seen = tokio::select! {
            seen = first_sample(channel, &node) => seen?,
            ended = &mut agent => return Err(early("agent", ended)),
            ended = &mut coordinator => return Err(early("coordinator", ended)),
            () = stop.cancelled() => String::new(),
        };
        line(&format!("agent {node}"), &seen, begun);
        tell(&context, &started)?;
        Ok(Self { coordinator, agent, stop, folder: folder.to_owned() })
    }

    async fn serve(mut self) -> Result<(), Failure> {
        let first = tokio::select! {
            ended = &mut self.coordinator => Some(early("coordinator", ended)),
            ended = &mut self.agent => Some(early("agent", ended)),
            () = self.stop.cancelled() => None,
        };
        self.stop.cancel();
        if let Some(failure) = first {
            return Err(failure);
        }
        for part in [self.agent, self.coordinator] {
            part.await.map_err(|crash| Failure::new(ExitCode::Failed, "dev crashed", crash.to_string(), ""))??;
        }
        println!("stopped; the data stays in {}", self.folder.display());
        Ok(())
    }
}

/// A part that ended although nobody asked it to.
fn early(part: &str, ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => Failure::new(ExitCode::Failed, format!("the {part} ended"), "nobody asked it to", "start dev again"),
        Err(crash) => Failure::new(ExitCode::Failed, format!("the {part} crashed"), crash.to_string(), "start dev again"),
    }
}

fn line(part: &str, what: &str, begun: Instant) {
    println!("  {} {part:<20} {what:<44} {:.1}s", style::good_symbol(), begun.elapsed().as_secs_f64());
}

/// Makes the cluster where there is none yet; false where there was one.
fn certificates(folder: &Path) -> Result<bool, Failure> {
    let data_dir = folder.join("coordinator");
    if data_dir.join("state.json").exists() {
        return Ok(false);
    }
    init(&InitConfig { data_dir, cluster: "dev".into(), advertise: format!("127.0.0.1:{LISTEN_PORT}") })?;
    Ok(true)
}

/// The usual port if it is free, else any: other programs of ours may run on this machine.
fn free(port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

async fn coordinator(args: &DevArgs, folder: &Path, stop: &CancellationToken) -> Result<(Part, Started), Failure> {
    let config = ServeConfig {
        data_dir: folder.join("coordinator"),
        listen: free(LISTEN_PORT),
        http: args.http.unwrap_or_else(|| free(HTTP_PORT)),
        announce_listen: true,
    };
    let (tell, started) = oneshot::channel();
    let part = tokio::spawn(mainstay_coordinator::run(config, stop.clone(), tell));
    match started.await {
        Ok(started) => Ok((part, started)),
        Err(_) => Err(early("coordinator", part.await)),
    }
}

/// The administrator's context, with today's address.
fn context(folder: &Path, started: &Started) -> Result<Context, Failure> {
    let path = folder.join("coordinator/admin.context");
    let mut context = Context::load(&path)?;
    context.addresses = vec![started.listen.to_string()];
    context.save(&path).map_err(|error| data_dir::unusable(&path, &error))?;
    Ok(context)
}

async fn dial(context: &Context) -> Result<Channel, Failure> {
    let credentials = Credentials {
        ca: context.ca.clone(),
        certificate: context.certificate.clone(),
        key: context.key.clone(),
    };
    let failed = |why: String| Failure::new(ExitCode::Failed, "dev cannot reach its own coordinator", why, "start dev again");
    let config = tls::client_config(&credentials).map_err(|error| failed(error.to_string()))?;
    let address = context.addresses.first().map_or("", String::as_str);
    let stream = tls::dial(address, &server_name(&context.cluster_id), config, START_LIMIT).await;
    tls::channel(stream.map_err(|error| failed(error.to_string()))?).await.map_err(|error| failed(error.to_string()))
}

/// Enrols this machine the way every machine is enrolled, unless it was before.
async fn enrolled(folder: &Path, started: &Started, channel: Channel) -> Result<NodeId, Failure> {
    let data_dir = folder.join("agent");
    if let Ok(identity) = mainstay_agent::identity::Identity::load(&data_dir) {
        return Ok(identity.enrolment().node);
    }
    let request = pb::CreateTokenRequest { role: "agent".into(), ttl_ms: 300_000, uses: 1 };
    let made = AdminClient::new(channel).create_token(request).await.map_err(|status| refused(&status))?.into_inner();
    let token_file = folder.join("join-token");
    data_dir::replace(&token_file, made.token.as_bytes(), 0o600).map_err(|error| data_dir::unusable(&token_file, &error))?;
    let config = EnrollConfig { data_dir, token_file: token_file.clone(), coordinator: started.listen.to_string(), name: None };
    let enrolled = enroll(&config).await;
    std::fs::remove_file(&token_file).map_err(|error| data_dir::unusable(&token_file, &error))?;
    Ok(enrolled?.node)
}

fn refused(status: &tonic::Status) -> Failure {
    crate::connect::failure::from_status(status)
}

/// Waits until this machine's disks are visible, and says what is.
async fn first_sample(channel: Channel, node: &NodeId) -> Result<String, Failure> {
    let mut viewer = ViewerClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
    let deadline = Instant::now() + START_LIMIT;
    let mut again = tokio::time::interval(Duration::from_millis(20));
    let filter = pb::ListRequest { node: node.to_string(), ..pb::ListRequest::default() };
    while Instant::now() < deadline {
        again.tick().await;
        let disks = viewer.list_disks(filter.clone()).await.map_err(|status| refused(&status))?.into_inner().rows.len();
        if disks > 0 {
            let status = viewer.get_status(pb::GetStatusRequest {}).await.map_err(|status| refused(&status))?.into_inner();
            let (mounts, containers) = (status.mounts, status.containers);
            return Ok(format!("{disks} disks, {mounts} mounts, {containers} containers"));
        }
    }
    Err(Failure::new(
        ExitCode::Failed,
        "no sample became visible",
        format!("the agent was silent for {}s", START_LIMIT.as_secs()),
        "RUST_LOG=debug mainstay dev",
    ))
}

/// Writes the context and prints what can be done next.
fn tell(context: &Context, started: &Started) -> Result<(), Failure> {
    contexts::save_as(CONTEXT, context)?;
    contexts::make_current_if_none(CONTEXT)?;
    let program = program();
    let flag = if contexts::current().is_some_and(|current| current == CONTEXT) { "" } else { " --context dev" };
    println!("http       http://{}/", started.http);
    for (at, verb) in ["status", "disk ls", "container ls"].into_iter().enumerate() {
        println!("{:<10} {program}{flag} {verb}", if at == 0 { "try" } else { "" });
    }
    println!("ready");
    Ok(())
}

/// How this program is called from a shell: by name where that finds it, else by its path.
fn program() -> String {
    let own = env::current_exe().unwrap_or_else(|_| "mainstay".into());
    let same = |folder: PathBuf| folder.join("mainstay").canonicalize().is_ok_and(|there| there == own);
    if env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(same)) {
        return "mainstay".into();
    }
    let here = env::current_dir().ok();
    let short = here.and_then(|here| own.strip_prefix(here).map(Path::to_owned).ok());
    short.map_or_else(|| own.display().to_string(), |short| short.display().to_string())
}
