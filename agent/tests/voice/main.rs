//! Enrolment and sessions against a real gRPC server behind real TLS.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is a failed test")]

mod replica;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mainstay_agent::{
    board::Board,
    config::{AgentConfig, EyesConfig},
    enroll::{EnrollConfig, enroll},
    identity::{Identity, Wish},
    run,
    session::{self, Stands, Voice},
};
use mainstay_common::{ExitCode, Failure, process::tls::Certificate};
use mainstay_proto::v1 as pb;
use replica::{Cluster, Replica};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(10);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

#[tokio::test]
async fn a_lost_reply_is_tried_again_with_the_same_key() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    replica.lose.store(4, Ordering::Relaxed);
    let folder = TempDir::new().unwrap();
    let lost = join(&replica, folder.path()).await.unwrap_err();
    assert_eq!(lost.code, ExitCode::Unknown, "{lost}");
    join(&replica, folder.path()).await.unwrap();
    let asked = replica.redeemed.lock().unwrap().clone();
    assert!(asked.len() >= 5 && asked.iter().all(|request| request.csr == asked[0].csr));
    assert_eq!(Identity::load(folder.path()).unwrap().enrolment().cluster, "home");
    assert!(!folder.path().join("pending.key").exists());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder.path().join("agent.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn enrolling_again_into_the_same_cluster_changes_nothing() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let folder = TempDir::new().unwrap();
    join(&replica, folder.path()).await.unwrap();
    let key = fs::read(folder.path().join("agent.key")).unwrap();
    join(&replica, folder.path()).await.unwrap();
    assert_eq!(fs::read(folder.path().join("agent.key")).unwrap(), key);
}

#[tokio::test]
async fn a_wrong_pin_is_refused_before_the_secret_leaves() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let folder = TempDir::new().unwrap();
    let refused = join_with(&Cluster::new("c1").token(), &replica, folder.path()).await.unwrap_err();
    assert_eq!(refused.code, ExitCode::Denied, "{refused}");
    assert!(refused.why.contains("pins"), "{refused}");
    assert!(replica.redeemed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_directory_of_another_cluster_is_a_conflict_that_names_both() {
    let (home, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let (other, _other_serving) = Replica::start(Cluster::new("c2"), WEEK).await;
    let folder = TempDir::new().unwrap();
    join(&home, folder.path()).await.unwrap();
    let refused = join(&other, folder.path()).await.unwrap_err();
    assert_eq!(refused.code, ExitCode::Conflict, "{refused}");
    assert!(refused.what.contains("home (c1)") && refused.why.contains("c2"), "{refused}");
    assert!(other.redeemed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_first_sample_comes_at_once_and_again_after_a_cut() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let agent = Agent::start(&replica).await;
    let began = Instant::now();
    agent.board.put(|now| {
        now.host = Some(Arc::default());
        now.disks = Some(Arc::default());
        now.mounts = Some(Arc::default());
    });
    let first = samples(&replica, 1).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(first[0].host.is_some() && first[0].disks.as_ref().is_some_and(|table| table.whole));
    wait(&mut agent.reports.clone(), |reports| *reports).await;

    replica.cut_sessions();
    wait(&mut replica.hellos.subscribe(), |hellos| *hellos == 2).await;
    let again = samples(&replica, 2).await;
    assert!(again[1].host.is_some() && again[1].seq == 1, "a new stream is told everything");
    agent.stop.cancel();
    agent.holding.await.unwrap().unwrap();
}

#[tokio::test]
async fn urgent_changes_do_not_wait_for_the_interval() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let agent = Agent::start(&replica).await;
    samples(&replica, 1).await;
    agent.board.put_urgent(|now| now.engine = Some(Arc::new(pb::Engine { state: 2, ..pb::Engine::default() })));
    assert!(samples(&replica, 2).await[1].engine.is_some());
    assert!(agent.stands.bytes() > 0);
}

#[tokio::test]
async fn a_removed_node_ends_with_4() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    replica.removed.store(true, Ordering::Relaxed);
    let folder = TempDir::new().unwrap();
    join(&replica, folder.path()).await.unwrap();
    let config = AgentConfig { data_dir: folder.path().to_owned(), announce: false, ..AgentConfig::default() };
    let ended = timeout(SOON, run::run(config, CancellationToken::new())).await.unwrap().unwrap_err();
    assert_eq!(ended.code, ExitCode::Denied);
    assert!(ended.what.contains("n1 was removed from cluster home") && ended.why.contains("anna"), "{ended}");
}

#[tokio::test]
async fn a_certificate_late_in_its_life_is_renewed_for_the_same_key() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), Duration::from_secs(300)).await;
    let folder = TempDir::new().unwrap();
    join(&replica, folder.path()).await.unwrap();
    let identity = Arc::new(Identity::load(folder.path()).unwrap());
    let before = identity.certificate();
    let stop = CancellationToken::new();
    let renewing = tokio::spawn(session::renew_in_time(Arc::clone(&identity), stop.clone()));
    timeout(SOON, async {
        while identity.certificate() == before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    stop.cancel();
    renewing.await.unwrap();
    let after = Identity::load(folder.path()).unwrap().certificate();
    assert_eq!(after.spki_sha256, before.spki_sha256);
    assert!(after.not_after > before.not_after);
    assert_eq!(replica.renewed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_expired_certificate_is_made_anew_for_the_same_key() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), Duration::ZERO).await;
    let agent = Agent::start(&replica).await;
    wait(&mut replica.hellos.subscribe(), |hellos| *hellos == 1).await;
    let asked = replica.reenrolled.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    let shown = Certificate::from_der(&asked[0].certificate).unwrap();
    let kept = Identity::load(agent.folder.path()).unwrap().certificate();
    assert_eq!((kept.spki_sha256, kept.identity), (shown.spki_sha256, shown.identity));
    assert!(shown.not_after < kept.not_after);
}

#[tokio::test]
async fn an_expired_agent_whose_node_was_removed_ends_with_4() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), Duration::ZERO).await;
    replica.removed.store(true, Ordering::Relaxed);
    let agent = Agent::start(&replica).await;
    let ended = timeout(SOON, agent.holding).await.unwrap().unwrap().unwrap_err();
    assert_eq!(ended.code, ExitCode::Denied, "{ended}");
}

#[tokio::test]
async fn a_replica_hears_which_roots_are_kept_and_of_a_renewal_on_the_stream_that_stands() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), Duration::from_secs(300)).await;
    let agent = Agent::start(&replica).await;
    let first = wait(&mut replica.holdings.subscribe(), |all| !all.is_empty()).await.remove(0);
    assert_eq!(first.version, 7);
    let stop = CancellationToken::new();
    let renewing = tokio::spawn(session::renew_in_time(Arc::clone(&agent.identity), stop.clone()));
    let told = wait(&mut replica.holdings.subscribe(), |all| all.len() == 2).await.remove(1);
    assert_ne!(told.certificate, first.certificate);
    assert_eq!(told.certificate, agent.identity.held().der());
    assert_eq!(*replica.hellos.borrow(), 1, "the stream lives on");
    stop.cancel();
    renewing.await.unwrap();
}

#[tokio::test]
async fn roots_that_a_lagging_replica_tells_change_nothing() {
    let (home, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let folder = TempDir::new().unwrap();
    join(&home, folder.path()).await.unwrap();
    let identity = Identity::load(folder.path()).unwrap();
    let next = format!("{}{}", home.cluster.pem(), Cluster::new("c1").pem());
    let wish = |version, replica: &str| Wish { version, replica: replica.into(), ..Wish::default() };
    identity.trust(&next, wish(7, "a:1")).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("ca.crt")).unwrap(), next, "they are on disk");
    identity.trust(home.cluster.pem(), wish(5, "b:1")).unwrap();
    assert!(identity.held().trusts(&next));
    identity.trust(home.cluster.pem(), wish(5, "a:1")).unwrap();
    assert!(identity.held().trusts(home.cluster.pem()), "a cluster that was restored goes back");
    let foreign = identity.trust(Cluster::new("c2").pem(), wish(9, "a:1")).unwrap_err();
    assert!(foreign.contains("another cluster"), "{foreign}");
    assert!(identity.trust("rubbish", wish(9, "a:1")).is_err());
    assert!(Identity::load(folder.path()).unwrap().held().trusts(home.cluster.pem()));
}

#[tokio::test]
async fn a_replica_that_a_restore_left_behind_is_not_listened_to() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    replica.generation.store(2, Ordering::Relaxed);
    let agent = Agent::start(&replica).await;
    timeout(SOON, agent.stands.connected()).await.unwrap();
    let kept = || Identity::load(agent.folder.path()).unwrap().enrolment().generation;
    assert_eq!(kept(), 2, "a restart knows it");
    let next = |generation| {
        replica.generation.store(generation, Ordering::Relaxed);
        replica.cut_sessions();
    };
    next(1);
    // It asks again and again, and believes nothing.
    wait(&mut replica.hellos.subscribe(), |hellos| *hellos == 3).await;
    assert!(agent.stands.replicas().values().all(|stands| !stands));
    assert!(agent.identity.hear_generation(0).unwrap_err().contains("restored as generation 2"));
    next(3);
    timeout(SOON, agent.stands.connected()).await.unwrap();
    assert_eq!(kept(), 3);
}

#[tokio::test]
async fn running_ends_soon_after_it_is_told() {
    let (replica, _serving) = Replica::start(Cluster::new("c1"), WEEK).await;
    let folder = TempDir::new().unwrap();
    join(&replica, folder.path()).await.unwrap();
    let stop = CancellationToken::new();
    let eyes = EyesConfig { program: env!("CARGO_BIN_EXE_mainstay-agent").into(), ..EyesConfig::default() };
    let config = AgentConfig { data_dir: folder.path().to_owned(), announce: false, eyes, ..AgentConfig::default() };
    let running = tokio::spawn(run::run(config, stop.clone()));
    wait(&mut replica.hellos.subscribe(), |hellos| *hellos == 1).await;
    assert!(samples(&replica, 1).await[0].host.is_some(), "the first sample waits for the first readings");
    stop.cancel();
    timeout(Duration::from_secs(5), running).await.unwrap().unwrap().unwrap();
}

/// A voice with a board that the test writes.
struct Agent {
    folder: TempDir,
    identity: Arc<Identity>,
    board: Board,
    stands: Stands,
    reports: watch::Receiver<bool>,
    stop: CancellationToken,
    holding: JoinHandle<Result<(), Failure>>,
}

impl Agent {
    async fn start(replica: &Replica) -> Self {
        let folder = TempDir::new().unwrap();
        join(replica, folder.path()).await.unwrap();
        let (board, stands, stop) = (Board::default(), Stands::default(), CancellationToken::new());
        let (swarm_reporter, reports) = watch::channel(false);
        let (_, agent) = watch::channel(None);
        let identity = Arc::new(Identity::load(folder.path()).unwrap());
        let voice = Voice {
            identity: Arc::clone(&identity),
            board: board.clone(),
            interval: Duration::from_secs(3_600),
            boot_id: "boot".into(),
            stands: stands.clone(),
            agent,
            swarm_reporter,
            swarm_askers: AtomicUsize::new(0),
        };
        let holding = tokio::spawn(session::hold(Arc::new(voice), stop.clone()));
        Self { folder, identity, board, stands, reports, stop, holding }
    }
}

async fn join(replica: &Replica, folder: &Path) -> Result<(), Failure> {
    join_with(&replica.cluster.token(), replica, folder).await
}

async fn join_with(token: &str, replica: &Replica, folder: &Path) -> Result<(), Failure> {
    let place = TempDir::new().unwrap();
    let token_file = place.path().join("token");
    fs::write(&token_file, token).unwrap();
    let config = EnrollConfig {
        data_dir: folder.to_owned(),
        token_file,
        coordinator: replica.address.to_string(),
        name: Some("n1".into()),
    };
    enroll(&config).await.map(|_| ())
}

async fn samples(replica: &Replica, count: usize) -> Vec<pb::Sample> {
    wait(&mut replica.samples.subscribe(), |samples| samples.len() >= count).await
}

async fn wait<T: Clone>(watch: &mut watch::Receiver<T>, condition: impl FnMut(&T) -> bool) -> T {
    timeout(SOON, watch.wait_for(condition)).await.unwrap().unwrap().clone()
}
