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
    task::{JoinError, JoinHandle},
};

use super::{
    DevArgs,
    group::Group,
    identities,
    keys::{self, Keys},
    replicas::{self, Places},
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
    /// The only replica.
    coordinator: Option<Part>,
    /// Or several.
    group: Option<Group>,
    agent: Option<Part>,
}

impl Parts {
    async fn end(self) {
        for part in [self.agent, self.coordinator].into_iter().flatten() {
            if !part.is_finished() {
                // It was told to stop; whatever it says now was said by the part that failed first.
                drop(part.await);
            }
        }
        if let Some(group) = self.group {
            group.end().await;
        }
    }

    /// Waits until a part ends by itself.
    async fn early(&mut self) -> Failure {
        tokio::select! {
            ended = of(&mut self.coordinator) => early("coordinator", ended),
            ended = of(&mut self.agent) => early("agent", ended),
            failure = of_group(&mut self.group) => failure,
        }
    }
}

/// The end of a part that there may not be.
async fn of(part: &mut Option<Part>) -> Result<Result<(), Failure>, JoinError> {
    match part {
        Some(part) => part.await,
        None => std::future::pending().await,
    }
}

async fn of_group(group: &mut Option<Group>) -> Failure {
    match group {
        Some(group) => group.ended().await,
        None => std::future::pending().await,
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
    let started = if places.is_empty() {
        let (part, started) = coordinator(args, folder, stop).await?;
        parts.coordinator = Some(part);
        screen::part("coordinator r1", &format!("leads, on {}", started.listen), begun)?;
        started
    } else {
        let usual = on_loopback(HTTP_PORT);
        let http = if TcpListener::bind(usual).is_ok() { usual } else { on_loopback(0) };
        let group = Group::new(folder, places, args.http.unwrap_or(http), stop.clone());
        several(parts.group.insert(group)).await?
    };

    let begun_agent = Instant::now();
    let mut located = identities::administrator(folder, &started).await?;
    let (_, mut channel) = crate::connect::connect(&located, &located.context.addresses).await?;
    let begun = match &mut parts.group {
        None => begun_agent,
        Some(group) => {
            let leader = complete(group, folder, &channel).await?;
            let places = group.places();
            screen::part(&format!("{} replicas", places.len()), &format!("{leader} leads"), begun)?;
            located.context.addresses = places.iter().map(|place| place.listen.to_string()).collect();
            // Whoever leads is asked: what follows changes something.
            let number = leader.trim_start_matches('r').parse::<usize>().ok();
            if let Some(place) = number.and_then(|number| places.get(number.wrapping_sub(1))) {
                (_, channel) = crate::connect::connect(&located, &[place.listen.to_string()]).await?;
            }
            Instant::now()
        }
    };
    let node = identities::enrolled(folder, &started, channel.clone()).await?;
    parts.agent = Some(agent(args, folder, stop));
    let seen = tokio::select! {
        seen = first_sample(channel, &node) => seen?,
        failure = parts.early() => return Err(failure),
    };
    screen::part(&format!("agent {node}"), &seen, begun)?;
    let mut keys = if parts.group.is_some() { Keys::open() } else { None };
    screen::ready(&located.context, &started, keys.as_ref().map(|_| keys::HELP))?;
    loop {
        let typed = async {
            match &mut keys {
                Some(keys) => keys.next().await,
                None => std::future::pending().await,
            }
        };
        let line = tokio::select! {
            failure = parts.early() => return Err(failure),
            line = typed => line,
        };
        if let Some(group) = &mut parts.group {
            keys::obey(&line, group, &located).await?;
        }
    }
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
async fn several(group: &mut Group) -> Result<Started, Failure> {
    for at in 1..group.places().len() {
        if group.is_made(at) {
            // Whether it decides is seen later.
            drop(group.begin(at)?);
        }
    }
    match group.begin(0)?.await {
        Ok(started) => Ok(started),
        Err(_) => Err(group.ended().await),
    }
}

/// Takes in those that are not there yet, and waits until all decide; who leads.
async fn complete(group: &mut Group, folder: &Path, channel: &Channel) -> Result<String, Failure> {
    for at in 1..group.places().len() {
        if !group.is_made(at) {
            let (place, first) = (group.places()[at], group.places()[0]);
            replicas::take_in(folder, at, place, first, channel).await?;
            drop(group.begin(at)?);
        }
    }
    replicas::decide(channel, group.places().len()).await
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
