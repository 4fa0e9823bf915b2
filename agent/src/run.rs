//! `mainstay-agent run`: eyes and voice together, until told to stop.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use mainstay_common::{
    ExitCode, Failure,
    metric::{Readings, openmetrics::CONTENT_TYPE},
    process::{data_dir::DataDir, http, now, ready, shutdown::CancellationToken},
    time,
};
use mainstay_proto::v1 as pb;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};

use crate::{
    board::Board,
    collect::{Eyes, container, disk, engine, host, listing, mount, readings, swarm, volume},
    config::{AgentConfig, EyesConfig},
    expose::{Own, expose},
    footprint,
    identity::Identity,
    probe::Probes,
    session::{self, Stands, Voice},
};

/// Tasks that do not end by themselves are dropped after this; systemd waits 5 s.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the agent until `stop`. It touches nothing of the runtime that it is on, so that another program may run it.
///
/// # Errors
/// A failure in three lines; its code 4 says that the cluster removed this node.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<(), Failure> {
    // Its own token: when the agent ends, its parts end, and nothing else does.
    let stop = stop.child_token();
    let _stop_all = stop.clone().drop_guard();
    let folder = DataDir::take(&config.data_dir)?;
    let identity = Arc::new(Identity::load(folder.path())?);
    warn_of_age(&identity);
    let listener = match config.metrics {
        Some(address) => Some(http::listen(address, "--metrics").await?),
        None => None,
    };

    let board = Board::default();
    let stands = Stands::default();
    let interval = config.eyes.interval;
    let (swarm_reporter, reports) = watch::channel(false);
    let mut eyes = start_eyes(Arc::new(config.eyes), &board, &stop, reports);

    let (own, own_reader) = watch::channel(Readings::new());
    let (on_wire, agent) = watch::channel(None);
    let mut parts = JoinSet::new();
    parts.spawn(footprint::follow(own, stands.clone(), interval, stop.clone()));
    parts.spawn(put_on_wire(own_reader.clone(), on_wire, stop.clone()));
    parts.spawn(session::renew_in_time(Arc::clone(&identity), stop.clone()));
    if config.announce {
        let (stands, stop) = (stands.clone(), stop.clone());
        parts.spawn(async move {
            tokio::select! {
                () = stands.connected() => ready::ready(),
                () = stop.cancelled() => {}
            }
        });
    }
    if let Some(listener) = listener {
        let (board, stands) = (board.clone(), stands.clone());
        let page = move |path: &str| {
            (path == "/metrics").then(|| {
                let own = Own { readings: own_reader.borrow().clone(), replicas: stands.replicas() };
                http::Page { content_type: CONTENT_TYPE, body: expose(&board.read(), &own) }
            })
        };
        parts.spawn(http::serve(listener, Arc::new(page), stop.clone()));
    }

    let voice = Voice {
        identity,
        board,
        interval,
        boot_id: boot_id(),
        stands,
        agent,
        swarm_reporter,
        swarm_askers: AtomicUsize::new(0),
    };
    let mut sessions = std::pin::pin!(session::hold(Arc::new(voice), stop.clone()));
    let result = loop {
        tokio::select! {
            ended = &mut sessions => break ended,
            Some(ended) = eyes.join_next() => match ended {
                Err(crash) => break Err(crashed("a collector", &crash)),
                Ok(()) => tracing::debug!("a collector ended"),
            },
            Some(ended) = parts.join_next() => if let Err(crash) = ended {
                break Err(crashed("a part of the agent", &crash));
            },
        }
    };
    if config.announce {
        ready::stopping();
    }
    stop.cancel();
    let all_ended = async {
        while eyes.join_next().await.is_some() {}
        while parts.join_next().await.is_some() {}
    };
    if timeout(PATIENCE, all_ended).await.is_err() {
        tracing::warn!("not everything ended within {}", time::span(PATIENCE));
    }
    result
}

/// Starts every collector: the one place that knows them all.
pub(crate) fn start_eyes(
    config: Arc<EyesConfig>,
    board: &Board,
    stop: &CancellationToken,
    swarm_reporter: watch::Receiver<bool>,
) -> JoinSet<()> {
    let probes = Probes::start_program(&config.program);
    let eyes = Eyes { config, board: board.clone(), probes, stop: stop.clone() };
    let mut tasks = JoinSet::new();
    let listing = listing::follow(&eyes, &mut tasks);
    tasks.spawn(disk::run(eyes.clone(), listing.clone()));
    tasks.spawn(mount::run(eyes.clone(), listing.clone()));
    tasks.spawn(host::run(eyes.clone()));
    let (hub, link, lists) = engine::Hub::new(eyes.clone());
    tasks.spawn(hub.run());
    tasks.spawn(container::run(eyes.clone(), link.clone(), lists));
    tasks.spawn(volume::run(eyes.clone(), link.clone(), listing));
    tasks.spawn(swarm::run(eyes, link, swarm_reporter));
    tasks
}

/// Turns the agent's own readings into what samples carry.
async fn put_on_wire(
    mut own: watch::Receiver<Readings>,
    wire: watch::Sender<Option<pb::Readings>>,
    stop: CancellationToken,
) {
    loop {
        wire.send_replace(readings(&own.borrow_and_update()));
        tokio::select! {
            changed = own.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

fn crashed(what: &str, crash: &JoinError) -> Failure {
    Failure::new(
        ExitCode::Failed,
        format!("{what} crashed"),
        crash.to_string(),
        "start the agent again and report this",
    )
}

fn warn_of_age(identity: &Identity) {
    let (certificate, clock) = (identity.certificate(), now());
    if clock > certificate.not_after {
        tracing::warn!(
            not_after = %certificate.not_after,
            %clock, "the certificate ran out while the agent was off; the key it has brings it back"
        );
    }
}

/// The kernel's name for this boot; empty where it does not tell.
fn boot_id() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_may_move_between_threads() {
        fn movable(_: impl Send + 'static) {}
        movable(run(AgentConfig::default(), CancellationToken::new()));
    }

    #[tokio::test]
    async fn an_agent_that_is_not_enrolled_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let config = AgentConfig { data_dir: folder.path().to_owned(), ..AgentConfig::default() };
        let failure = run(config, CancellationToken::new()).await.unwrap_err();
        assert!(failure.try_next.contains("mainstay-agent enroll"), "{failure}");
    }
}
