//! What the gate costs: a handshake beside nginx's, an agent that is connected, and 2,000 that come back at once.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mainstay_common::process::random;
use mainstay_proto::v1 as pb;
use mainstay_tests::{
    Cluster,
    bars::Bars,
    cpu, eventually,
    fake_nodes::{FakeNode, enrol, small},
    machine,
    memory::Memory,
    metrics,
    nginx::Nginx,
    wait::holds,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

const AGENTS: usize = 2_000;
const HANDSHAKES: usize = 3_000;
const ROUNDS: usize = 5;
const AT_ONCE: usize = 32;
/// Between two samples of an agent.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long connected agents are watched.
const WATCHED: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);
/// At most so many times nginx's CPU for a handshake.
const HANDSHAKE_BAR: f64 = 1.3;
/// At most so many KiB for an agent that is connected.
const RSS_BAR: f64 = 45.0;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    let mut bars = Bars::default();
    machine::raise_descriptors();
    let mut cluster = Cluster::found();
    let begun = Instant::now();
    let nodes = enrol(&cluster, (0..AGENTS).map(|n| format!("node{n:04}")).collect()).await;
    println!("{AGENTS} nodes enrolled in {:.1?}", begun.elapsed());

    // `tests/bench/gate handshakes` or `agents`: only these.
    let only: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |what: &str| only.is_empty() || only.iter().any(|word| word == what);
    if wanted("handshakes") {
        let handshake = handshakes(&mut cluster, &nodes).await;
        bars.at_most("handshake_cpu", handshake, HANDSHAKE_BAR);
    }
    if wanted("agents") {
        let rss = connected(&mut cluster, nodes).await;
        bars.at_most("rss_kib_per_agent", rss, RSS_BAR);
    }
    bars.end()
}

/// CPU for a handshake in times nginx's; the median of rounds that take turns.
async fn handshakes(cluster: &mut Cluster, nodes: &[FakeNode]) -> f64 {
    let nginx = Nginx::beside(cluster);
    let (ours, theirs) = (vec![cluster.coordinator().pid()], nginx.pids());
    let there: Vec<_> = nodes.iter().map(|node| node.caller.at(&nginx.address)).collect();
    let here: Vec<_> = nodes.iter().map(|node| node.caller.clone()).collect();
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut costs = [0.0; 2];
        for (cost, pids, callers) in [(0, &ours, &here), (1, &theirs, &there)] {
            let (before, begun) = (cpu::taken(pids), Instant::now());
            shake(callers).await;
            let (taken, wall) = (cpu::taken(pids) - before, begun.elapsed());
            costs[cost] = taken.as_secs_f64() / count(HANDSHAKES);
            // The first round warms up.
            if round > 0 {
                println!(
                    "{}: {HANDSHAKES} handshakes, {:.0} us of CPU each, {:.0} per second and core, in {wall:.1?}",
                    ["coordinator", "nginx"][cost],
                    costs[cost] * 1e6,
                    1.0 / costs[cost],
                );
            }
        }
        if round > 0 {
            rounds.push(costs[0] / costs[1]);
        }
    }
    let failed = metrics::value(&cluster.http, "mainstay_coordinator_refusals_total{reason=\"handshake\"}");
    assert!(failed < 0.5, "{failed} handshakes did not come about");
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

/// Handshakes one after the other, some at once; each is over when the other side closed, too.
async fn shake(callers: &[mainstay_tests::caller::Caller]) {
    let next = Arc::new(AtomicU64::new(0));
    let callers: Arc<[_]> = callers.into();
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (next, callers) = (Arc::clone(&next), Arc::clone(&callers));
        tasks.spawn(async move {
            loop {
                let turn = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("few");
                if turn >= HANDSHAKES {
                    return;
                }
                let mut stream = callers[turn % callers.len()].connect().await.expect("a handshake");
                stream.shutdown().await.ok();
                // Whether it says goodbye or just closes is its own affair.
                drop(stream.read_to_end(&mut Vec::new()).await);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("handshakes");
    }
}

/// KiB for each agent that is connected and told one small sample; on the way, their CPU, and how long they take to come
/// back after the coordinator was killed.
async fn connected(cluster: &mut Cluster, nodes: Vec<FakeNode>) -> f64 {
    // A fresh process: nothing that enrolment or handshakes left behind counts.
    cluster.take_coordinator().kill();
    cluster.start_coordinator();
    let pid = cluster.coordinator().pid();
    let memory = Memory::watch(pid);
    let begun = Instant::now();
    let mut lives = JoinSet::new();
    for node in nodes {
        lives.spawn(live(node));
    }
    let http = cluster.http.clone();
    let all_in = |samples: usize| {
        let (sessions, told) = (value(&http, "sessions"), value(&http, "samples_total"));
        holds(sessions >= count(AGENTS) && told >= count(samples), || format!("{sessions} sessions, {told} samples"))
    };
    tokio::task::block_in_place(|| eventually("all agents are in", PATIENCE, || all_in(AGENTS)));
    println!("{AGENTS} agents connected, each with a first sample, in {:.1?}", begun.elapsed());

    let (cpu_before, watched) = (cpu::taken(&[pid]), Instant::now());
    let told = value(&http, "samples_total");
    tokio::time::sleep(WATCHED).await;
    let taken = cpu::taken(&[pid]) - cpu_before;
    let (samples, seconds) = (value(&http, "samples_total") - told, watched.elapsed().as_secs_f64());
    let rss = count(usize::try_from(memory.now() - memory.before).expect("small")) / count(AGENTS);
    println!(
        "connected: {:.1} us of CPU per agent and second ({:.1} % of a core in all, {:.0} samples per second), RSS {} KiB \
         before, {} with all agents",
        taken.as_secs_f64() / seconds / count(AGENTS) * 1e6,
        taken.as_secs_f64() / seconds * 100.0,
        samples / seconds,
        memory.before,
        memory.now(),
    );

    cluster.take_coordinator().kill();
    cluster.start_coordinator();
    let begun = Instant::now();
    tokio::task::block_in_place(|| eventually("all agents are back", PATIENCE, || all_in(AGENTS)));
    let back = begun.elapsed();
    let taken = cpu::taken(&[cluster.coordinator().pid()]);
    println!("{AGENTS} agents came back within {back:.1?} after a kill, for {taken:.1?} of CPU");
    lives.shutdown().await;
    rss
}

/// An agent's life: a session, samples, and another session when it ends, spread as the coordinator wished.
async fn live(node: FakeNode) {
    let mut bound = Duration::from_secs(2);
    loop {
        tokio::time::sleep(bound.mul_f64(dice())).await;
        let Ok(mut session) = node.session().await else {
            bound = (bound * 2).min(Duration::from_secs(60));
            continue;
        };
        bound = Duration::from_millis(session.welcome.spread_ms);
        session.send(small()).await;
        let mut turns = tokio::time::interval(INTERVAL);
        turns.reset_after(INTERVAL.mul_f64(dice()));
        loop {
            tokio::select! {
                _ = session.ended() => break,
                _ = turns.tick() => {
                    let host = small().host;
                    session.send(pb::Sample { host, ..pb::Sample::default() }).await;
                }
            }
        }
    }
}

fn value(http: &str, name: &str) -> f64 {
    metrics::value(http, &format!("mainstay_coordinator_{name}"))
}

fn dice() -> f64 {
    f64::from(u32::from_ne_bytes(random())) / f64::from(u32::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn count(of: usize) -> f64 {
    of as f64
}
