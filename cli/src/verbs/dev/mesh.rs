//! The parts of the mesh: started in order, ended together.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mainstay_agent::config::Given;
use mainstay_common::{
    ExitCode, Failure, NodeId,
    process::{shutdown::CancellationToken, tls::Channel},
    state::NodeState,
};
use mainstay_coordinator::{Lives, ServeConfig, Started};
use mainstay_proto::v1::{self as pb, viewer_client::ViewerClient};
use tokio::{
    sync::oneshot,
    task::{JoinError, JoinHandle, JoinSet},
};

use super::{
    DevArgs, identities,
    replicas::{self, Place, Places},
    screen,
};

/// Where `/metrics` is served unless something else has the port.
const HTTP_PORT: u16 = 7480;
/// Where agents and operators are served unless something else has the port.
pub(super) const LISTEN_PORT: u16 = 7443;
/// How long parts may take until the first sample is visible.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// A part of the mesh, and what it ended with.
type Part = JoinHandle<Result<(), Failure>>;

/// Starts everything, says what can be tried, and serves until `stop`.
///
/// # Errors
/// What the part says that could not start, or ended by itself.
pub(super) async fn run(args: &DevArgs, folder: &Path, stop: CancellationToken) -> Result<(), Failure> {
    let mut parts = Parts::default();
    let outcome = tokio::select! {
        // Parts end when they are told to: that they did is no news then.
        biased;
        () = stop.cancelled() => Ok(()),
        outcome = start_and_serve(args, folder, &stop, &mut parts) => outcome,
    };
    // Whatever happened, no part outlives this function.
    stop.cancel();
    parts.end().await;
    outcome?;
    screen::say(&format!("stopped; the data stays in {}", folder.display()))
}

#[derive(Default)]
struct Parts {
    coordinator: Option<Part>,
    /// Further replicas.
    others: JoinSet<Result<(), Failure>>,
    agent: Option<Part>,
}

impl Parts {
    async fn end(mut self) {
        for part in [self.agent, self.coordinator].into_iter().flatten() {
            if !part.is_finished() {
                // It was told to stop; whatever it says now was said by the part that failed first.
                drop(part.await);
            }
        }
        while self.others.join_next().await.is_some() {}
    }
}

async fn start_and_serve(
    args: &DevArgs,
    folder: &Path,
    stop: &CancellationToken,
    parts: &mut Parts,
) -> Result<(), Failure> {
    screen::title(folder)?;
    let begun = Instant::now();
    let made = identities::make_cluster(folder)?;
    screen::part("certificates", if made { "made" } else { "there already" }, begun)?;

    let begun = Instant::now();
    let places = Places::of(folder, args.replicas)?;
    let (coordinator, started) = match places.first() {
        None => coordinator(args, folder, stop).await?,
        Some(_) => several(args, folder, stop, &places, &mut parts.others).await?,
    };
    let coordinator = parts.coordinator.insert(coordinator);
    if places.is_empty() {
        screen::part("coordinator r1", &format!("leads, on {}", started.listen), begun)?;
    }

    let begun_agent = Instant::now();
    let mut located = identities::administrator(folder, &started).await?;
    let (_, mut channel) = crate::connect::connect(&located, &located.context.addresses).await?;
    if let [first, others @ ..] = &places[..] {
        for (at, place) in (1..).zip(others) {
            if !mainstay_coordinator::holds_cluster(&replicas::folder_of(folder, at)) {
                replicas::take_in(folder, at, *place, *first, &channel).await?;
                begin(folder, at, *place, stop, &mut parts.others);
            }
        }
        let leader = replicas::decide(&channel, places.len()).await?;
        screen::part(&format!("{} replicas", places.len()), &format!("{leader} leads"), begun)?;
        located.context.addresses = places.iter().map(|place| place.listen.to_string()).collect();
        // Whoever leads is asked: what follows changes something.
        let leads =
            leader.trim_start_matches('r').parse::<usize>().ok().and_then(|number| places.get(number.wrapping_sub(1)));
        if let Some(place) = leads {
            (_, channel) = crate::connect::connect(&located, &[place.listen.to_string()]).await?;
        }
    }
    let begun = if places.is_empty() { begun_agent } else { Instant::now() };
    let node = identities::enrolled(folder, &started, channel.clone()).await?;
    let agent = parts.agent.insert(agent(args, folder, stop));
    let seen = tokio::select! {
        seen = first_sample(channel, &node) => seen?,
        ended = &mut *agent => return Err(early("agent", ended)),
        ended = &mut *coordinator => return Err(early("coordinator", ended)),
        Some(ended) = parts.others.join_next() => return Err(early("coordinator", ended)),
    };
    screen::part(&format!("agent {node}"), &seen, begun)?;
    screen::ready(&located.context, &started)?;
    Err(tokio::select! {
        ended = coordinator => early("coordinator", ended),
        Some(ended) = parts.others.join_next() => early("coordinator", ended),
        ended = agent => early("agent", ended),
    })
}

/// A part that ended although nobody asked it to.
fn early(part: &str, ended: Result<Result<(), Failure>, JoinError>) -> Failure {
    let (what, why) = match ended {
        Ok(Err(failure)) => return failure,
        Ok(Ok(())) => (format!("the {part} ended"), "nobody asked it to".into()),
        Err(crash) => (format!("the {part} crashed"), crash.to_string()),
    };
    Failure::new(ExitCode::Failed, what, why, "start dev again, and report this: RUST_LOG=debug mainstay dev")
}

const fn on_loopback(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

/// At the usual ports where they are free, else at any: other programs of ours may run on this machine, and take one
/// between a look at it and its use.
async fn coordinator(args: &DevArgs, folder: &Path, stop: &CancellationToken) -> Result<(Part, Started), Failure> {
    let usual = |port| if TcpListener::bind(on_loopback(port)).is_ok() { on_loopback(port) } else { on_loopback(0) };
    match serve(args, folder, stop, usual).await {
        Err(failure) if failure.code == ExitCode::Conflict && failure.what.starts_with("cannot listen") => {
            serve(args, folder, stop, |_| on_loopback(0)).await
        }
        served => served,
    }
}

/// Every replica that is there already, at once: they need each other to decide. Ready when the first one serves.
async fn several(
    args: &DevArgs,
    folder: &Path,
    stop: &CancellationToken,
    places: &[Place],
    others: &mut JoinSet<Result<(), Failure>>,
) -> Result<(Part, Started), Failure> {
    for (at, place) in places.iter().enumerate().skip(1) {
        if mainstay_coordinator::holds_cluster(&replicas::folder_of(folder, at)) {
            begin(folder, at, *place, stop, others);
        }
    }
    let usual = if TcpListener::bind(on_loopback(HTTP_PORT)).is_ok() { on_loopback(HTTP_PORT) } else { on_loopback(0) };
    let config = replicas::config_of(folder, 0, places[0], args.http.unwrap_or(usual));
    started(config, stop).await
}

/// Starts a further replica.
fn begin(folder: &Path, at: usize, place: Place, stop: &CancellationToken, others: &mut JoinSet<Result<(), Failure>>) {
    let (tell, _) = oneshot::channel();
    others.spawn(mainstay_coordinator::run(replicas::config_of(folder, at, place, on_loopback(0)), stop.clone(), tell));
}

async fn serve(
    args: &DevArgs,
    folder: &Path,
    stop: &CancellationToken,
    place: impl Fn(u16) -> SocketAddr,
) -> Result<(Part, Started), Failure> {
    let config = ServeConfig {
        data_dir: folder.join("coordinator"),
        listen: place(LISTEN_PORT),
        // Nobody else is there to dial it.
        peer_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        advertise: None,
        peer_advertise: None,
        http: args.http.unwrap_or_else(|| place(HTTP_PORT)),
        announce_listen: true,
        lives: Lives::default(),
    };
    started(config, stop).await
}

/// Starts a replica, and waits until it serves.
async fn started(config: ServeConfig, stop: &CancellationToken) -> Result<(Part, Started), Failure> {
    let (tell, started) = oneshot::channel();
    let part = tokio::spawn(mainstay_coordinator::run(config, stop.clone(), tell));
    match started.await {
        Ok(started) => Ok((part, started)),
        Err(_) => Err(early("coordinator", part.await)),
    }
}

/// Where the agent keeps what it needs.
pub(super) fn agent_folder(folder: &Path) -> PathBuf {
    folder.join("agent")
}

fn agent(args: &DevArgs, folder: &Path, stop: &CancellationToken) -> Part {
    let given = Given {
        data_dir: Some(agent_folder(folder)),
        interval: args.interval,
        docker_socket: args.docker_socket.clone(),
        metrics: args.metrics,
        ..Given::default()
    };
    let mut config = given.complete();
    config.announce = false;
    tokio::spawn(mainstay_agent::run::run(config, stop.clone()))
}

/// Waits until this machine's sample with its disks is visible, and says what else is.
async fn first_sample(channel: Channel, node: &NodeId) -> Result<String, Failure> {
    let refused = |status| crate::connect::failure::from_status(&status, crate::connect::Call::Looks);
    let mut viewer = ViewerClient::new(channel).max_decoding_message_size(mainstay_proto::MAX_MESSAGE_BYTES);
    let deadline = Instant::now() + START_LIMIT;
    let mut again = tokio::time::interval(ASK_EVERY);
    while Instant::now() < deadline {
        again.tick().await;
        let asked = pb::ListRequest { node: node.to_string(), ..pb::ListRequest::default() };
        let disks = viewer.list_disks(asked.clone()).await.map_err(refused)?.into_inner().rows.len();
        let nodes = viewer.list_nodes(asked).await.map_err(refused)?.into_inner().rows;
        if disks > 0 && nodes.iter().any(|row| row.state == NodeState::Ready.number()) {
            let status = viewer.get_status(pb::GetStatusRequest {}).await.map_err(refused)?.into_inner();
            let counted = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
            return Ok([
                counted(status.disks, "disk"),
                counted(status.mounts, "mount"),
                counted(status.containers, "container"),
            ]
            .join(", "));
        }
    }
    Err(Failure::new(
        ExitCode::Failed,
        "no sample became visible",
        format!("the agent told of no disk within {}s", START_LIMIT.as_secs()),
        "RUST_LOG=debug mainstay dev; mainstay-agent check shows what this machine tells",
    ))
}
