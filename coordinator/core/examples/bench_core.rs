//! How much core costs at 10,000 nodes: `cargo run --release -p mainstay-core --example bench_core`. Ends with lines
//! `ratio NAME VALUE bar BAR holds|missed`: times in milliseconds, or how many times as long; at most the bar holds.

#![allow(clippy::unwrap_used, reason = "a program that measures may end here")]
#![allow(clippy::disallowed_methods, reason = "who measures needs a clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use mainstay_common::{
    NodeId, Timestamp,
    metric::{
        CATALOGUE, Readings,
        catalogue::{DISK_AVAILABLE_BYTES, DISK_TOTAL_BYTES, DISK_USED_BYTES},
    },
    state::DiskState,
};
use mainstay_core::{
    Actor, Command, Effect, Entry, Fence, Founding, KeyFingerprint, Leading, Origin, Planner, State, codec,
    live::{Disk, Hello, Host, LiveView, Sample, Update},
    plan,
};

const NODES: usize = 10_000;
const FRESH: usize = 1_000;
/// Per node; with those of the host 60 readings.
const DISKS: usize = 6;
const GIB: u64 = 1 << 30;
const START: Timestamp = Timestamp(1_767_225_600_000);

/// Counts what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe by its interface; this one only counts")]
// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let empty = ALLOCATED.load(Ordering::Relaxed);
    let mut state = state();
    let per_node_state = (ALLOCATED.load(Ordering::Relaxed) - empty) as f64 / NODES as f64;
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut live = LiveView::new(START);
    for number in 0..NODES {
        live.hello(&node(number), hello(), START, START);
        observe(&mut live, number, START, 30);
    }
    let per_node_live = (ALLOCATED.load(Ordering::Relaxed) - before) as f64 / NODES as f64;
    println!("memory per node: state {per_node_state:.0} B, live view {per_node_live:.0} B");

    let (turn, sweep) = turns(&mut state, &mut live);
    println!("apply per second: {:.0}", 1.0 / applies(&state).as_secs_f64());
    storm(state.clone(), live.clone());
    outbox(state.clone(), &live);
    let (quiet, busy, clone) = snapshot(&state);
    println!("clone of the state: {clone:?}; apply while a checkpoint is written: {busy:?}, else {quiet:?}");

    ratio("plan_turn_1000_fresh_ms", turn.as_secs_f64() * 1e3, 20.0);
    ratio("plan_full_sweep_ms", sweep.as_secs_f64() * 1e3, 200.0);
    ratio("apply_beside_checkpoint", busy.as_secs_f64() / quiet.as_secs_f64(), 3.0);
}

fn ratio(name: &str, value: f64, bar: f64) {
    println!("ratio {name} {value:.3} bar {bar} {}", if value <= bar { "holds" } else { "missed" });
}

/// The median of a turn with 1,000 fresh samples, and of a sweep. One node in ten has a disk whose alert goes on.
fn turns(state: &mut State, live: &mut LiveView) -> (Duration, Duration) {
    let mut planner = Planner::new(Leading { fence: Fence { generation: 1, term: 1 }, since: START });
    let (mut now, mut index) = (START, 1_000_000);
    let (mut turns, mut sweeps) = (Vec::new(), Vec::new());
    for round in 0..60 {
        now = now.plus(Duration::from_secs(1));
        for number in (round * FRESH..(round + 1) * FRESH).map(|number| number % NODES) {
            observe(live, number, now, if number % 10 == 0 { 9 } else { 30 });
        }
        // A leader's first turn is a sweep, asked for or not.
        let sweep = round % 10 == 0;
        if sweep {
            planner.sweep();
        }
        let begin = Instant::now();
        let effects = plan(state, live, &mut planner, now);
        if sweep { &mut sweeps } else { &mut turns }.push(begin.elapsed());
        for effect in effects {
            if let Effect::Propose(command) = effect {
                index += 1;
                drop(state.apply(index, &entry(now, command)));
            }
        }
    }
    (median(turns), median(sweeps))
}

/// Every disk of every node at once: turns until all that is pending is said.
fn storm(mut state: State, mut live: LiveView) {
    let now = START.plus(Duration::from_secs(100));
    let mut planner = Planner::new(Leading { fence: Fence { generation: 1, term: 2 }, since: START });
    for number in 0..NODES {
        observe(&mut live, number, now, 1);
    }
    let (begin, mut turns, mut index) = (Instant::now(), 0, 2_000_000);
    loop {
        let effects = plan(&state, &live, &mut planner, now);
        if effects.is_empty() {
            break;
        }
        turns += 1;
        for effect in effects {
            if let Effect::Propose(command) = effect {
                index += 1;
                drop(state.apply(index, &entry(now, command)));
            }
        }
    }
    println!("storm: {} alerts pending after {turns} turns, {:?}", state.alerts.open().count(), begin.elapsed());
}

/// Everything fires at once: turns until one receiver was told of each, four at a time.
fn outbox(mut state: State, live: &LiveView) {
    use mainstay_core::{alert, declare, notify};
    let (mut index, now) = (3_000_000, START.plus(Duration::from_secs(60)));
    let mut apply = |state: &mut State, command| {
        index += 1;
        state.apply(index, &entry(now, command)).unwrap();
    };
    let address = notify::Address::Url("https://chat.example/".into());
    let receiver = notify::Receiver::Webhook(notify::Webhook { address, allow_private_address: false });
    let changes = vec![declare::Change::Receiver("ops".parse().unwrap(), Some(receiver))];
    apply(&mut state, Command::Declare(declare::Declare { changes, expecting: 0 }));
    let pending: Vec<_> = state.alerts.open().map(|(id, alert)| (id.clone(), alert.clone())).collect();
    for (id, alert) in pending {
        let episode = alert::Episode { alert: id, since: alert.since, step: alert.step };
        apply(&mut state, Command::Alert(alert::Command::Fire(episode, alert.severity, alert.space)));
    }
    let owed = state.notifications.open().count();
    let mut planner = Planner::new(Leading { fence: Fence { generation: 1, term: 3 }, since: START });
    let mut times = Vec::new();
    while times.len() < 200 {
        let begin = Instant::now();
        let effects = plan(&state, live, &mut planner, now);
        times.push(begin.elapsed());
        for effect in effects {
            match effect {
                Effect::Propose(command @ Command::Notify(_)) => apply(&mut state, command),
                Effect::Propose(_) => {}
                Effect::Send(send) => apply(&mut state, Command::Notify(notify::Command::Delivered(send.claim))),
            }
        }
    }
    let left = state.notifications.open().count();
    println!("outbox: turns with {owed} messages owed, {left} left after {}", times.len());
    median(times);
}

/// Time of one apply: labels on a node, the commonest row.
fn applies(state: &State) -> Duration {
    let mut state = state.clone();
    let entries: Vec<Entry> = (0..50_000)
        .map(|number| {
            let labels = [("zone".to_owned(), (number % 7).to_string())].into();
            let label = mainstay_core::node::Command::Label(node(number % NODES), labels);
            entry(START, Command::Node(label))
        })
        .collect();
    let begin = Instant::now();
    for (index, entry) in entries.iter().enumerate() {
        state.apply(index as u64, entry).unwrap();
    }
    begin.elapsed() / 50_000
}

/// Time of one apply with and without a copy that is being written, and of the copy.
fn snapshot(state: &State) -> (Duration, Duration, Duration) {
    // The first time warms up.
    let quiet = [applies(state), applies(state)][1];
    let begin = Instant::now();
    let copy = state.clone();
    let clone = begin.elapsed();
    let (busy, bytes, took) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let begin = Instant::now();
            let bytes: usize =
                copy.sections().flat_map(|section| section.pieces).map(|piece| black_box(piece).len()).sum();
            (bytes, begin.elapsed())
        });
        let busy = applies(state);
        let (bytes, took) = writer.join().unwrap();
        (busy, bytes, took)
    });
    println!("checkpoint: {:.1} MiB in {took:?}", bytes as f64 / (1 << 20) as f64);
    let sections: Vec<_> = state.sections().map(|section| (section.name, section.pieces.collect::<Vec<_>>())).collect();
    let begin = Instant::now();
    let read = State::from_sections(sections).unwrap();
    println!("checkpoint read back in {:?}, equal: {}", begin.elapsed(), read == *state);
    let label = entry(START, Command::Node(mainstay_core::node::Command::Remove(node(1))));
    let begin = Instant::now();
    for _ in 0..100_000 {
        black_box(codec::decode::<Entry>(&codec::encode(black_box(&label))).unwrap());
    }
    println!("entry encoded and decoded: {:?}", begin.elapsed() / 100_000);
    (quiet, busy, clone)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    println!(
        "  n {} min {:?} median {:?} max {:?}",
        times.len(),
        times[0],
        times[times.len() / 2],
        times[times.len() - 1]
    );
    times[times.len() / 2]
}

fn state() -> State {
    let mut state = State::founded(Founding {
        id: "c1".parse().unwrap(),
        name: "prod".into(),
        replica: "r1".parse().unwrap(),
        address: "h:1".into(),
    });
    for number in 0..NODES {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        state.nodes.admit(START, &node(number), KeyFingerprint(key));
    }
    state
}

fn entry(at: Timestamp, command: Command) -> Entry {
    Entry {
        at,
        actor: Actor::Leader,
        from: Origin::Replica("r1".parse().unwrap()),
        request: None,
        command,
        asked: None,
        through: None,
    }
}

fn node(number: usize) -> NodeId {
    format!("node-{number:05}").parse().unwrap()
}

fn hello() -> Hello {
    Hello { version: "0.1.0".into(), boot_id: "b".into(), interval: Duration::from_secs(10) }
}

/// One sample: 6 disks with 7 readings each, and 18 of the host.
fn observe(live: &mut LiveView, number: usize, now: Timestamp, percent: u64) {
    let changed = (0..DISKS).map(|disk| (format!("/mnt/{disk}").into_bytes(), disk_row(disk, percent))).collect();
    let update = Update { read_at: now, whole: true, changed, removed: Vec::new(), left_out: 0 };
    let mut readings = Readings::new();
    for metric in CATALOGUE.iter().take(18) {
        readings.set(metric, 1.0);
    }
    let host = Host { read_at: now, readings, ..Host::default() };
    live.observe(&node(number), Sample { host: Some(host), disks: Some(update), ..Sample::default() }, now);
}

fn disk_row(disk: usize, percent: u64) -> Disk {
    let mut readings = Readings::new();
    readings.set_count(&DISK_TOTAL_BYTES, 100 * GIB);
    let available = if disk == 0 { percent * GIB } else { 50 * GIB };
    readings.set_count(&DISK_USED_BYTES, 100 * GIB - available);
    readings.set_count(&DISK_AVAILABLE_BYTES, available);
    for metric in CATALOGUE.iter().skip(40).take(4) {
        readings.set(metric, 1.0);
    }
    Disk {
        device: format!("/dev/vd{disk}").into_bytes(),
        fs: "ext4".into(),
        state: DiskState::Ok,
        aliases: Vec::new(),
        readings,
        read_at: None,
        reason: String::new(),
    }
}
