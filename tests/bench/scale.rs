//! A large state: memory, checkpoints, a restart, a fresh replica, and the longest write meanwhile.
//!
//! 10,000 nodes with two labels each. Runs come with backups; for 100,000 finished ones stand as many join tokens, which
//! are rows of like size (some 150 bytes). They are put into the founding checkpoint, since enrolling takes its time.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mainstay_common::{
    Timestamp,
    process::{context::Context, now},
};
use mainstay_coordinator::raft::{
    self, Machine, Settings,
    store::{Store, disk::Folder},
};
use mainstay_core::{Actor, Command, Entry, KeyFingerprint, Origin, State, node, token};
use mainstay_proto::v1::{self as pb, operator_client::OperatorClient};
use mainstay_tests::{
    Replicas,
    bars::Bars,
    caller::{Caller, of_context},
    memory::Memory,
};
use tokio::task::JoinSet;

const NODES: u64 = 10_000;
const ROWS: u64 = 100_000;
/// Who write meanwhile, one call after the other each.
const WRITERS: u64 = 8;
/// How long they are watched with nothing else going on.
const QUIET: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(300);
/// The longest write beside checkpoints and a fresh replica, in milliseconds.
const STALL_BAR: f64 = 50.0;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    let begun = Instant::now();
    let mut replicas = tokio::task::block_in_place(|| Replicas::found_prepared(populate));
    println!("{NODES} nodes and {ROWS} tokens founded and served in {:.1?}", begun.elapsed());
    let data = replicas.member("r1").data.clone();
    println!("checkpoint: {:.1} MiB", mib(checkpoint_bytes(&data)));
    tokio::task::block_in_place(|| {
        replicas.take("r1").kill();
        let begun = Instant::now();
        replicas.start("r1");
        println!("restart until ready: {} ms", begun.elapsed().as_millis());
    });
    let memory = Memory::watch(replicas.daemon("r1").pid());
    println!("RSS of the sole replica: {:.0} MiB", mib(memory.now() * 1024));

    let quiet = Writers::begin(&mut replicas).await;
    tokio::time::sleep(QUIET).await;
    let quiet = quiet.end().await;
    quiet.tell("with nothing else");

    let writers = Writers::begin(&mut replicas).await;
    tokio::task::block_in_place(|| {
        let begun = Instant::now();
        let fresh = replicas.add();
        let told = replicas.daemon(&fresh).says("is the state now", LIMIT);
        println!(
            "fresh replica: serves with what the leader had {} ms after it was asked for",
            begun.elapsed().as_millis()
        );
        assert!(told.contains("checkpoint"), "{told}");
        replicas.settle();
        println!("fresh replica: decides, and lags no entry, after {} ms", begun.elapsed().as_millis());
    });
    let joining = writers.end().await;
    joining.tell("beside a fresh replica");

    let writers = Writers::begin(&mut replicas).await;
    let before = replicas.daemon("r1").said().matches("a checkpoint was made").count();
    let leader = tokio::task::block_in_place(|| {
        let begun = Instant::now();
        let made = mainstay_tests::eventually("another checkpoint is made", LIMIT, || {
            let said = replicas.daemon("r1").said();
            let made = said.lines().filter(|line| line.contains("a checkpoint was made")).nth(before);
            made.map(str::to_owned).ok_or_else(|| "not yet".to_owned())
        });
        println!("a checkpoint is due after {:.1?} of writing: {made}", begun.elapsed());
        replicas.leader()
    });
    let during = writers.end().await;
    during.tell("beside a checkpoint of each replica");
    println!("checkpoint: {:.1} MiB", mib(checkpoint_bytes(&data)));
    println!(
        "RSS of {leader}, which leads: {:.0} MiB, at most {:.0}",
        mib(memory.now() * 1024),
        mib(memory.peak() * 1024)
    );

    let mut bars = Bars::default();
    bars.at_most("stall_ms_beside_fresh_replica", joining.longest(), STALL_BAR);
    bars.at_most("stall_ms_beside_checkpoint", during.longest(), STALL_BAR);
    bars.end()
}

/// Puts the rows into the log's founding checkpoint.
fn populate(data: &Path) {
    let (folder, settings) = (data.join("log"), Settings::default());
    let disk = || Folder::at(&folder).unwrap_or_else(|error| panic!("{error}"));
    let (store, recovered) = Store::open(disk(), settings.store.clone()).unwrap_or_else(|error| panic!("{error}"));
    let identity = store.identity().clone();
    drop(store);
    let mut state =
        <State as Machine>::from_sections(&recovered.checkpoint.sections).unwrap_or_else(|why| panic!("{why}"));
    let at = now();
    for number in 0..NODES {
        let id = name(number).parse().expect("a name");
        state.nodes.admit(at, &id, key(number));
        let labels =
            BTreeMap::from([("zone".into(), "eu-central-1a".into()), ("rack".into(), (number % 40).to_string())]);
        apply(&mut state, at, Command::Node(node::Command::Label(id, labels)));
    }
    for number in 0..ROWS {
        let token = token::Token {
            secret_sha256: key(number),
            created_at: at,
            created_by: "admin".parse().expect("a name"),
            expires_at: at.plus(Duration::from_secs(86_400)),
            uses_left: 1,
            admitted: BTreeMap::from([(key(number), name(number % NODES).parse().expect("a name"))]),
            revoked_at: None,
            role: None,
        };
        let id = format!("row{number:06}").parse().expect("a name");
        apply(&mut state, at, Command::Token(token::Command::Create(id, token)));
    }
    fs::remove_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
    raft::found(disk(), identity, &settings, &state).unwrap_or_else(|error| panic!("{error}"));
}

fn apply(state: &mut State, at: Timestamp, command: Command) {
    let entry =
        Entry { at, actor: Actor::Root, from: Origin::Socket, request: None, asked: None, through: None, command };
    state.apply(1, &entry).unwrap_or_else(|why| panic!("{why}"));
}

fn name(number: u64) -> String {
    format!("node-{number:05}")
}

fn key(number: u64) -> KeyFingerprint {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    KeyFingerprint(key)
}

fn checkpoint_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data.join("log")).unwrap_or_else(|error| panic!("{error}")).filter_map(Result::ok);
    let checkpoints = files.filter(|file| file.file_name().to_string_lossy().starts_with("checkpoint-"));
    checkpoints.filter_map(|file| file.metadata().ok()).map(|file| file.len()).max().unwrap_or(0)
}

/// Operators at work: labels of 256 bytes, written one after the other.
struct Writers {
    over: Arc<AtomicBool>,
    tasks: JoinSet<Vec<Duration>>,
}

/// How long each write took.
struct Took(Vec<Duration>);

impl Writers {
    async fn begin(replicas: &mut Replicas) -> Self {
        let context = Context::load(&replicas.context()).unwrap_or_else(|error| panic!("{error}"));
        let leader = tokio::task::block_in_place(|| replicas.leader());
        let address = replicas.member(&leader).listen.clone();
        let caller = Caller::with(&address, &context.cluster_id, &of_context(&replicas.context()));
        let channel = caller.channel().await.unwrap_or_else(|error| panic!("{error}"));
        let (over, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for writer in 0..WRITERS {
            let (over, channel) = (Arc::clone(&over), channel.clone());
            tasks.spawn(async move {
                let mut took = Vec::new();
                for turn in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let node = name((writer * 1_237 + turn) % NODES);
                    let set = BTreeMap::from([("note".into(), format!("{turn:0256}"))]);
                    let begun = Instant::now();
                    let mut operator = OperatorClient::new(channel.clone());
                    let written = operator.label_node(pb::LabelNodeRequest { name: node, set });
                    written.await.unwrap_or_else(|status| panic!("{status}"));
                    took.push(begun.elapsed());
                }
                took
            });
        }
        Self { over, tasks }
    }

    async fn end(self) -> Took {
        self.over.store(true, Ordering::Relaxed);
        let mut took = self.tasks.join_all().await.concat();
        took.sort_unstable();
        Took(took)
    }
}

impl Took {
    /// In milliseconds.
    fn longest(&self) -> f64 {
        self.0.last().map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
    }

    fn tell(&self, when: &str) {
        let at = |per_mille: usize| self.0[(self.0.len() - 1) * per_mille / 1_000].as_secs_f64() * 1e3;
        println!(
            "{} writes {when}: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms",
            self.0.len(),
            at(500),
            at(990),
            at(999),
            self.longest(),
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
