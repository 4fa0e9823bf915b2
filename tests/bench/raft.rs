//! Decisions through the log beside etcd, on one disk in one run: writes, linearizable reads, failover, memory, bytes.
//!
//! Our write is `Operator.LabelNode` with a label of 256 bytes: authorised, in the log with its author, applied, and in
//! the audit trail of three replicas; etcd's is a `Put` of 256 bytes. Both take turns, round by round, with the same
//! clients of tonic's: 16 to a connection, which is what our gate allows.

use std::{
    collections::BTreeMap,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mainstay_common::process::{context::Context, tls};
use mainstay_proto::v1::{self as pb, operator_client::OperatorClient, viewer_client::ViewerClient};
use mainstay_tests::{
    Replicas,
    bars::Bars,
    caller::{Caller, of_context},
    cpu, device,
    etcd::{self, Etcd},
    fake_nodes,
    machine::{self, Need},
    memory::Memory,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Status, transport::Channel};

const MEMBERS: usize = 3;
const CLIENTS: [usize; 3] = [1, 64, 256];
/// Clients that share a connection.
const PER_CONNECTION: usize = 16;
/// Rows that are written and read.
const KEYS: u64 = 256;
const VALUE_BYTES: usize = 256;
/// Before a round counts.
const WARM_UP: Duration = Duration::from_millis(500);
const TRIALS: usize = 10;
/// After a kill so many clients knock at each survivor at once,
const KNOCKERS: usize = 4;
/// each for so long,
const KNOCK: Duration = Duration::from_millis(100);
/// and again after so long.
const KNOCK_AGAIN: Duration = Duration::from_millis(5);
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);
/// At least etcd's throughput, and at most so much of its median failover.
const THROUGHPUT_BAR: f64 = 1.0;
const FAILOVER_BAR: f64 = 0.5;
/// What we are after.
const GOALS: (f64, f64) = (2.0, 0.1);

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    machine::raise_descriptors();
    let words = Words::read();
    let mut ours = Ours::found().await;
    let mut theirs = if machine::has(&[Need::Tool("etcd")]) { Some(Etcd::found(MEMBERS).await) } else { None };
    let mut bars = Bars::default();
    for what in [What::Write, What::Read] {
        if words.wants(what.plural()) {
            throughput(&mut ours, theirs.as_ref(), what, &words, &mut bars).await;
        }
    }
    if words.wants("failover") {
        failover(&mut ours, theirs.as_mut(), &mut bars).await;
    }
    bars.end()
}

/// What the command line wants.
struct Words {
    parts: Vec<String>,
    span: Duration,
    rounds: usize,
    clients: Vec<usize>,
}

impl Words {
    fn read() -> Self {
        let mut words = Self { parts: Vec::new(), span: Duration::from_secs(4), rounds: 3, clients: CLIENTS.into() };
        let mut rest = std::env::args().skip(1);
        while let Some(word) = rest.next() {
            let mut number = || rest.next().and_then(|number| number.parse().ok()).expect("a number");
            match word.as_str() {
                "--seconds" => words.span = Duration::from_secs(number()),
                "--rounds" => words.rounds = usize::try_from(number()).expect("few"),
                "--clients" => words.clients = vec![usize::try_from(number()).expect("few")],
                // Of cargo's own.
                _ if word.starts_with("--") => {}
                _ => words.parts.push(word),
            }
        }
        words
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|word| word == part)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Write,
    Read,
}

impl What {
    fn plural(self) -> &'static str {
        match self {
            Self::Write => "writes",
            Self::Read => "reads",
        }
    }
}

/// Our replicas, and an administrator who knows how to dial them.
struct Ours {
    replicas: Replicas,
    caller: Caller,
}

impl Ours {
    async fn found() -> Self {
        let replicas = tokio::task::block_in_place(|| Replicas::found(MEMBERS));
        let context = Context::load(&replicas.context()).unwrap_or_else(|error| panic!("{error}"));
        let caller = Caller::with(&context.addresses[0], &context.cluster_id, &of_context(&replicas.context()));
        let mut ours = Self { replicas, caller };
        let token = ours.replicas.mainstay(&["token", "create", "--uses", &KEYS.to_string()]).done();
        let address = ours.leader().1;
        fake_nodes::enrol_at(&address, token.parse().expect("a token"), (0..KEYS).map(name).collect()).await;
        ours
    }

    /// Who leads, and its address.
    fn leader(&mut self) -> (String, String) {
        let leader = tokio::task::block_in_place(|| self.replicas.leader());
        let address = self.replicas.member(&leader).listen.clone();
        (leader, address)
    }

    fn pids(&mut self) -> Vec<u32> {
        self.replicas.ids().iter().map(|id| self.replicas.daemon(id).pid()).collect()
    }

    async fn dial(&self, address: &str) -> Way {
        Way::Ours(self.caller.at(address).channel().await.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// A connection to one member.
#[derive(Clone, Debug)]
enum Way {
    Ours(tls::Channel),
    Theirs(Channel),
}

impl Way {
    async fn theirs(address: &str) -> Self {
        Self::Theirs(etcd::dial(address).await.unwrap_or_else(|error| panic!("{error}")))
    }

    async fn go(&self, what: What, turn: u64) -> Result<(), Status> {
        let name = name(turn % KEYS);
        match (self, what) {
            (Self::Ours(channel), What::Write) => {
                let request = pb::LabelNodeRequest { name, set: BTreeMap::from([("note".into(), value(turn))]) };
                OperatorClient::new(channel.clone()).label_node(request).await.map(drop)
            }
            (Self::Ours(channel), What::Read) => {
                ViewerClient::new(channel.clone()).get_node(pb::GetNodeRequest { name }).await.map(drop)
            }
            (Self::Theirs(channel), What::Write) => etcd::put(channel, name.into(), value(turn).into()).await,
            (Self::Theirs(channel), What::Read) => etcd::get(channel, name.into()).await.map(drop),
        }
    }
}

fn name(key: u64) -> String {
    format!("node{key:04}")
}

fn value(turn: u64) -> String {
    format!("{turn:0VALUE_BYTES$}")
}

/// What clients met with.
#[derive(Default)]
struct Met {
    /// Of every success, microseconds.
    latencies: Vec<u64>,
    failures: u64,
    span: Duration,
    /// At the device, and by the members' own account.
    bytes: (u64, u64),
    /// What the members took, and what the clients did.
    cpu: (Duration, Duration),
}

/// What is read before and after.
#[derive(Clone, Copy)]
struct Meters {
    bytes: (u64, u64),
    cpu: (Duration, Duration),
}

impl Meters {
    fn read(disk: &Path, pids: &[u32]) -> Self {
        Self {
            bytes: (device::written(disk), pids.iter().map(|pid| device::written_by(*pid)).sum()),
            cpu: (cpu::taken(pids), cpu::taken(&[std::process::id()])),
        }
    }
}

impl Met {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failures += other.failures;
        self.span += other.span;
        self.bytes = (self.bytes.0 + other.bytes.0, self.bytes.1 + other.bytes.1);
        self.cpu = (self.cpu.0 + other.cpu.0, self.cpu.1 + other.cpu.1);
    }

    fn per_second(&self) -> f64 {
        count(self.latencies.len()) / self.span.as_secs_f64()
    }

    /// In milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |latency| float(*latency) / 1e3)
    }

    fn tell(&self, who: &str, clients: usize, what: What) {
        let (per_second, p50, p99) = (self.per_second(), self.percentile(50), self.percentile(99));
        print!("{who:8} {clients:4} clients {per_second:8.0} {}/s  p50 {p50:7.2} ms  p99 {p99:7.2} ms", what.plural());
        let calls = count(self.latencies.len().max(1)) / 1e6;
        let cpu = (self.cpu.0.as_secs_f64() / calls, self.cpu.1.as_secs_f64() / calls);
        print!("  CPU {:.0} us of members, {:.0} of clients", cpu.0, cpu.1);
        if what == What::Write {
            let entries = count(self.latencies.len().max(1) * MEMBERS);
            let (device, own) = (float(self.bytes.0) / entries, float(self.bytes.1) / entries);
            print!("  bytes per entry and member: {device:.0} at the device, {own:.0} in pages");
        }
        println!("{}", if self.failures > 0 { format!("  {} failed", self.failures) } else { String::new() });
    }
}

async fn throughput(ours: &mut Ours, theirs: Option<&Etcd>, what: What, words: &Words, bars: &mut Bars) {
    let mut met: BTreeMap<(usize, bool), Met> = BTreeMap::new();
    for round in 0..words.rounds {
        for clients in words.clients.iter().copied() {
            let connections = clients.div_ceil(PER_CONNECTION);
            // Whoever goes first in one round goes second in the next.
            for is_ours in [round % 2 == 0, round % 2 != 0] {
                let mut ways = Vec::new();
                let pids = match (is_ours, theirs) {
                    (true, _) => {
                        let address = ours.leader().1;
                        for _ in 0..connections {
                            ways.push(ours.dial(&address).await);
                        }
                        ours.pids()
                    }
                    (false, Some(etcd)) => {
                        let address = etcd.address(etcd.settle().await);
                        for _ in 0..connections {
                            ways.push(Way::theirs(address).await);
                        }
                        etcd.pids()
                    }
                    (false, None) => continue,
                };
                let disk = ours.replicas.folder();
                let more = load(&ways, clients, what, words.span, || Meters::read(disk, &pids)).await;
                met.entry((clients, is_ours)).or_default().add(more);
            }
        }
    }
    for clients in words.clients.iter().copied() {
        for (is_ours, who) in [(true, "mainstay"), (false, "etcd")] {
            if let Some(met) = met.get(&(clients, is_ours)) {
                met.tell(who, clients, what);
            }
        }
    }
    for (who, pids) in [("mainstay", ours.pids()), ("etcd", theirs.map_or_else(Vec::new, Etcd::pids))] {
        if !pids.is_empty() {
            let mib = pids.iter().map(|pid| format!("{:.0}", float(Memory::watch(*pid).now()) / 1024.0));
            println!("{who:8} RSS after {}: {} MiB", what.plural(), mib.collect::<Vec<_>>().join(", "));
        }
    }
    if theirs.is_none() {
        return;
    }
    for clients in words.clients.iter().copied() {
        let ratio = met[&(clients, true)].per_second() / met[&(clients, false)].per_second();
        bars.at_least(&format!("{}_{clients}_beside_etcd", what.plural()), ratio, THROUGHPUT_BAR);
        goal(what.plural(), clients, ratio >= GOALS.0);
    }
}

fn goal(what: &str, clients: usize, is_reached: bool) {
    if !is_reached {
        println!("the goal for {what} at {clients} clients, {} times etcd's, is not reached", GOALS.0);
    }
}

/// So many clients, one call after the other each.
async fn load(ways: &[Way], clients: usize, what: What, span: Duration, meters: impl Fn() -> Meters) -> Met {
    let (turn, counts, over) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let (turn, counts, over) = (Arc::clone(&turn), Arc::clone(&counts), Arc::clone(&over));
        let way = ways[client % ways.len()].clone();
        tasks.spawn(async move {
            let mut met = Met::default();
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = way.go(what, turn.fetch_add(1, Ordering::Relaxed)).await;
                if !counts.load(Ordering::Relaxed) {
                    continue;
                }
                match answer {
                    Ok(()) => met.latencies.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)),
                    Err(status) => {
                        if met.failures == 0 {
                            eprintln!("{what:?}: {status}");
                        }
                        met.failures += 1;
                        sleep(KNOCK_AGAIN).await;
                    }
                }
            }
            met
        });
    }
    sleep(WARM_UP).await;
    let (before, begun) = (meters(), Instant::now());
    counts.store(true, Ordering::Relaxed);
    sleep(span).await;
    over.store(true, Ordering::Relaxed);
    let (after, span) = (meters(), begun.elapsed());
    let bytes = (after.bytes.0 - before.bytes.0, after.bytes.1 - before.bytes.1);
    let cpu = (after.cpu.0 - before.cpu.0, after.cpu.1 - before.cpu.1);
    let mut all = Met { span, bytes, cpu, ..Met::default() };
    for met in tasks.join_all().await {
        all.add(met);
    }
    all
}

/// From the kill of a leader until a write succeeds, at whichever survivor.
async fn failover(ours: &mut Ours, mut theirs: Option<&mut Etcd>, bars: &mut Bars) {
    let mut took = [Vec::new(), Vec::new()];
    for trial in 0..TRIALS {
        tokio::task::block_in_place(|| ours.replicas.settle());
        let (leader, address) = ours.leader();
        let mut survivors = Vec::new();
        for survivor in ours.replicas.addresses().into_iter().filter(|other| *other != address) {
            survivors.push(ours.dial(&survivor).await);
        }
        let killed = ours.replicas.take(&leader);
        let begun = Instant::now();
        killed.kill();
        took[0].push(knock(&survivors, begun).await);
        tokio::task::block_in_place(|| ours.replicas.start(&leader));

        if let Some(etcd) = &mut theirs {
            let leader = etcd.settle().await;
            let mut survivors = Vec::new();
            for survivor in (0..etcd.count()).filter(|member| *member != leader) {
                survivors.push(Way::theirs(etcd.address(survivor)).await);
            }
            let killed = etcd.take(leader);
            let begun = Instant::now();
            killed.kill();
            took[1].push(knock(&survivors, begun).await);
            etcd.start(leader);
            etcd.settle().await;
        }
        let last = took.iter().map(|took| took.last().map_or("-".into(), |took| format!("{} ms", took.as_millis())));
        println!("failover {}: mainstay, etcd: {}", trial + 1, last.collect::<Vec<_>>().join(", "));
    }
    let mut medians = Vec::new();
    for (who, took) in ["mainstay", "etcd"].into_iter().zip(&mut took).filter(|(_, took)| !took.is_empty()) {
        took.sort_unstable();
        let (median, worst) = ((took[(took.len() - 1) / 2] + took[took.len() / 2]) / 2, took[took.len() - 1]);
        println!(
            "{who:8} failover: median {} ms, worst {} ms of {}",
            median.as_millis(),
            worst.as_millis(),
            took.len()
        );
        medians.push(median.as_secs_f64());
    }
    if let [ours, theirs] = medians[..] {
        bars.at_most("failover_beside_etcd", ours / theirs, FAILOVER_BAR);
        if ours / theirs > GOALS.1 {
            println!("the goal for failover, {} of etcd's, is not reached", GOALS.1);
        }
    }
}

async fn knock(survivors: &[Way], begun: Instant) -> Duration {
    let (open, mut opened) = mpsc::channel(1);
    let mut knockers = JoinSet::new();
    for (number, way) in (0..KNOCKERS).flat_map(|_| survivors).cloned().enumerate() {
        let open = open.clone();
        knockers.spawn(async move {
            for turn in (number as u64).. {
                if matches!(timeout(KNOCK, way.go(What::Write, turn)).await, Ok(Ok(()))) {
                    // Another may have been faster.
                    open.try_send(begun.elapsed()).unwrap_or(());
                    return;
                }
                sleep(KNOCK_AGAIN).await;
            }
        });
    }
    let took = timeout(FAILOVER_LIMIT, opened.recv()).await.ok().flatten();
    knockers.shutdown().await;
    took.unwrap_or_else(|| panic!("no write succeeded within {FAILOVER_LIMIT:?} of a kill"))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(of: u64) -> f64 {
    of as f64
}

fn count(of: usize) -> f64 {
    float(of as u64)
}
