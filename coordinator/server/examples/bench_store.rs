//! How many entries a second the log's store makes durable, beside a bare append + fdatasync loop of the same data in
//! the same run; and how long entries wait for a checkpoint at most.
//!
//! `cargo run --release -p mainstay-coordinator --example bench_store [DIR]`; DIR has to be on a real disk.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use mainstay_coordinator::raft::{
    Machine, Position, Settings, Undecodable, found, start,
    store::{self, Batch, Checkpoint, Entry, EntryKind, Identity, Priority, Section, Store, disk::Folder},
};

/// As in the figures for other stores: 256 bytes an entry.
const ENTRY_BYTES: usize = 256;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(400);
const BAR: f64 = 0.8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| "target".into());
    let dir = tempfile::tempdir_in(&parent)?;
    println!("{ENTRY_BYTES} bytes an entry, {ROUNDS} rounds of {ROUND:?} each, in {parent}");
    let mut held = true;
    for per_sync in [1, 16, 256] {
        held &= throughput(dir.path(), per_sync)?;
    }
    stall(dir.path())?;
    if held { Ok(()) } else { Err("a bar was missed".into()) }
}

/// Rounds of the one and the other by turns, so that a busy disk meets both.
fn throughput(dir: &Path, per_sync: usize) -> Result<bool, Box<dyn std::error::Error>> {
    let folder = Folder::at(dir.join(format!("store-{per_sync}")))?;
    let mut store = Store::create(folder, identity()?, store::Settings::default(), &Checkpoint::bootstrap(1, vec![]))?;
    let mut bare = OpenOptions::new().create_new(true).append(true).open(dir.join(format!("bare-{per_sync}")))?;
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let rates = (store_round(&mut store, per_sync)?, bare_round(&mut bare, per_sync)?);
        // The first one only warms up.
        if round > 0 {
            ours.push(rates.0);
            theirs.push(rates.1);
            ratios.push(rates.0 / rates.1);
        }
    }
    let (ours, theirs, ratio) = (median(ours), median(theirs), median(ratios));
    println!("{per_sync:>3} entries per fsync: store {ours:>9.0}/s, bare append + fdatasync {theirs:>9.0}/s");
    println!("ratio store_{per_sync} {ratio:.2} bar {BAR} {}", if ratio >= BAR { "holds" } else { "missed" });
    Ok(ratio >= BAR)
}

/// Entries per second.
fn store_round(store: &mut Store<Folder>, per_sync: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let (begin, mut written) = (Instant::now(), 0);
    while begin.elapsed() < ROUND {
        let first = store.last().index + 1;
        let entries: Vec<_> = (first..).take(per_sync).map(entry).collect();
        store.write(&Batch { entries: &entries, hard_state: None, priority: Priority::Ordinary })?;
        written += per_sync;
    }
    Ok(rate(written, begin))
}

fn bare_round(file: &mut File, per_sync: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let (begin, mut written) = (Instant::now(), 0);
    while begin.elapsed() < ROUND {
        let entries: Vec<_> = (0..).take(per_sync).map(entry).collect();
        let bytes: Vec<u8> = entries.into_iter().flat_map(|entry| entry.data).collect();
        file.write_all(&bytes)?;
        file.sync_data()?;
        written += per_sync;
    }
    Ok(rate(written, begin))
}

fn entry(index: u64) -> Entry {
    let byte = u8::try_from(index % 251).unwrap_or(0);
    Entry { index, term: 1, kind: EntryKind::Normal, data: vec![byte; ENTRY_BYTES] }
}

fn rate(entries: usize, begin: Instant) -> f64 {
    f64::from(u32::try_from(entries).unwrap_or(u32::MAX)) / begin.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn identity() -> Result<Identity, Box<dyn std::error::Error>> {
    Ok(Identity { cluster: "bench".parse()?, generation: 1, replica: 1 })
}

/// A state that takes 64 MiB in a checkpoint.
#[derive(Clone)]
struct Large(Arc<Vec<u8>>);

const STATE_BYTES: usize = 64 << 20;

impl Machine for Large {
    type Entry = Vec<u8>;
    type Outcome = u64;

    fn apply(&mut self, at: Position, _entry: &Vec<u8>) -> u64 {
        at.index
    }

    fn encode(entry: &Vec<u8>) -> Vec<u8> {
        entry.clone()
    }

    fn decode(data: &[u8]) -> Result<Vec<u8>, Undecodable> {
        Ok(data.to_vec())
    }

    fn is_essential(_entry: &Vec<u8>) -> bool {
        false
    }

    fn sections(&self) -> Vec<Section> {
        vec![Section { name: "large".into(), bytes: self.0.to_vec() }]
    }

    fn from_sections(sections: &[Section]) -> Result<Self, Undecodable> {
        Ok(Self(Arc::new(sections.iter().flat_map(|section| section.bytes.clone()).collect())))
    }
}

/// One client that proposes and waits, without checkpoints and while they are written one after the other.
fn stall(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    for (what, checkpoint_entries) in [("no checkpoint", u64::MAX), ("checkpoints of 64 MiB", 500)] {
        let settings = Settings { checkpoint_entries, ..Settings::default() };
        let folder = Folder::at(dir.join(format!("stall-{checkpoint_entries}")))?;
        found(folder.clone(), identity()?, &settings, &Large(Arc::new(vec![7; STATE_BYTES])))?;
        let (log, running) = start::<_, Large>(folder.clone(), settings, vec![])?;
        let mut waits = runtime.block_on(async {
            let (begin, mut waits) = (Instant::now(), vec![]);
            while begin.elapsed() < Duration::from_secs(6) {
                let asked = Instant::now();
                log.propose(vec![1; ENTRY_BYTES]).await?;
                waits.push(asked.elapsed());
            }
            running.end().await;
            Ok::<_, Box<dyn std::error::Error>>(waits)
        })?;
        waits.sort();
        let checkpoints = std::fs::read_dir(folder.path())?.flatten();
        let newest = checkpoints
            .filter_map(|file| file.file_name().into_string().ok()?.strip_prefix("checkpoint-")?.parse::<u64>().ok())
            .max();
        let at = |per_cent: usize| waits[(waits.len() - 1) * per_cent / 100];
        println!(
            "{what}: {} entries, newest checkpoint at {}; an entry takes {:?} (median), {:?} (99 of 100), {:?} at most",
            waits.len(),
            newest.unwrap_or(0),
            at(50),
            at(99),
            at(100)
        );
    }
    Ok(())
}
