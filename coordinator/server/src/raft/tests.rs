use std::{
    io,
    ops::RangeInclusive,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::*;
use crate::raft::store::{Identity, Preparing, Section, disk::faulty::FaultyDisk};

/// Numbers in the order in which they came; each only once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Toy(Vec<u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ToyEntry {
    Add(u64),
    /// As `Add`, and essential.
    Urge(u64),
    Panic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Twice;

impl Machine for Toy {
    type Entry = ToyEntry;
    type Outcome = Result<usize, Twice>;

    fn apply(&mut self, _at: Position, entry: &ToyEntry) -> Self::Outcome {
        let (ToyEntry::Add(number) | ToyEntry::Urge(number)) = *entry else { panic!("as it was told") };
        if self.0.contains(&number) {
            return Err(Twice);
        }
        self.0.push(number);
        Ok(self.0.len())
    }

    fn encode(entry: &ToyEntry) -> Vec<u8> {
        let (kind, number) = match entry {
            ToyEntry::Add(number) => (1, *number),
            ToyEntry::Urge(number) => (2, *number),
            ToyEntry::Panic => (3, 0),
        };
        [[kind].as_slice(), &number.to_le_bytes(), &[0; 400]].concat()
    }

    fn decode(data: &[u8]) -> Result<ToyEntry, Undecodable> {
        let number = u64::from_le_bytes(data[1..9].try_into().unwrap());
        match data[0] {
            1 => Ok(ToyEntry::Add(number)),
            2 => Ok(ToyEntry::Urge(number)),
            kind => Err(Undecodable::Newer { what: format!("kind {kind}"), version: Some("0.7.0".into()) }),
        }
    }

    fn is_essential(entry: &ToyEntry) -> bool {
        matches!(entry, ToyEntry::Urge(_))
    }

    fn sections(&self) -> Vec<Section> {
        let bytes = self.0.iter().flat_map(|number| number.to_le_bytes()).collect();
        vec![Section { name: "toy".into(), bytes }]
    }

    fn from_sections(sections: &[Section]) -> Result<Self, Undecodable> {
        let [Section { bytes, .. }] = sections else { return Err(Undecodable::Nonsense("not one section".into())) };
        Ok(Self(bytes.chunks(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect()))
    }
}

/// What an observer saw, kept when it is told to; its clones share it.
#[derive(Clone, Debug, Default)]
struct Trail(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    wanted: u64,
    shown: Vec<(Position, ToyEntry, Result<usize, Twice>)>,
    missed: Vec<RangeInclusive<u64>>,
    cannot_keep: bool,
    /// Waits for this at the next entry.
    gate: Option<mpsc::Receiver<()>>,
    /// Waits for this when it is to be kept.
    stuck: Option<mpsc::Receiver<()>>,
}

impl Observer<Toy> for Trail {
    fn wanted(&self) -> u64 {
        self.0.lock().unwrap().wanted
    }

    fn applied(&mut self, at: Position, entry: &ToyEntry, outcome: &Result<usize, Twice>) {
        let gate = {
            let mut seen = self.0.lock().unwrap();
            seen.shown.push((at, *entry, *outcome));
            seen.gate.take()
        };
        if let Some(gate) = gate {
            gate.recv().unwrap();
        }
    }

    fn missed(&mut self, indexes: RangeInclusive<u64>) {
        self.0.lock().unwrap().missed.push(indexes);
    }

    fn keep(&mut self) -> Keep {
        let (trail, next) =
            (Arc::clone(&self.0), self.0.lock().unwrap().shown.last().map_or(0, |(at, ..)| at.index + 1));
        Keep::by(move || {
            let stuck = trail.lock().unwrap().stuck.take();
            if let Some(stuck) = stuck {
                stuck.recv().unwrap();
            }
            let mut seen = trail.lock().unwrap();
            seen.wanted = next;
            if seen.cannot_keep { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        })
    }
}

#[tokio::test]
async fn what_is_answered_is_in_the_state_and_there_again_after_a_restart() {
    let disk = founded(1);
    let (log, running) = started(&disk);
    assert_eq!(log.propose(ToyEntry::Add(5)).await, Ok(Ok(1)));
    assert_eq!(log.read().0, [5]);
    assert_eq!(log.propose(ToyEntry::Add(5)).await, Ok(Err(Twice)));
    assert_eq!(log.propose(ToyEntry::Add(6)).await, Ok(Ok(2)));
    assert_eq!((*log.leader().borrow(), log.applied()), (Some(2), Position { index: 5, term: 2 }));
    assert_eq!(running.end().await, End::Asked);
    assert_eq!(log.propose(ToyEntry::Add(7)).await, Err(ProposeError::Ending));
    assert_eq!((*log.leader().borrow(), log.ended().await), (None, End::Asked));

    disk.power_loss();
    let (log, running) = started(&disk);
    assert_eq!(log.read().0, [5, 6]);
    leads(&log).await;
    assert_eq!((*log.leader().borrow(), log.applied()), (Some(3), Position { index: 6, term: 3 }));
    drop(running);
}

#[tokio::test]
async fn an_observer_whose_disk_hangs_holds_up_no_entry() {
    let disk = founded(1);
    let (open, stuck) = mpsc::channel();
    let trail = Trail::default();
    trail.0.lock().unwrap().stuck = Some(stuck);
    let settings = Settings { checkpoint_entries: 3, ..settings() };
    let (log, running) = start(disk.clone(), settings, vec![Box::new(trail)]).unwrap();
    for number in 0..10 {
        assert!(matches!(log.propose(ToyEntry::Add(number)).await, Ok(Ok(_))));
    }
    let checkpoint = async || log.status().await.unwrap().checkpoint.index;
    assert_eq!(checkpoint().await, 1, "none without what was seen");
    open.send(()).unwrap();
    let begin = Instant::now();
    while checkpoint().await == 1 {
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    drop(running);
}

#[tokio::test]
async fn what_waits_becomes_durable_with_one_sync() {
    let disk = founded(1);
    let (open, gate) = mpsc::channel();
    let trail = Trail::default();
    trail.0.lock().unwrap().gate = Some(gate);
    let (log, _running) = start(disk.clone(), settings(), vec![Box::new(trail.clone())]).unwrap();
    let first = tokio::spawn({
        let log = log.clone();
        async move { log.propose(ToyEntry::Add(0)).await }
    });
    eventually("the first is being applied", || trail.0.lock().unwrap().shown.len() == 1).await;
    let syncs = disk.syncs();
    let proposals = join_all((1..=7).map(|number| log.propose(ToyEntry::Add(number))));
    let release = async {
        // The others are queued: they were polled before.
        open.send(()).unwrap();
    };
    let (outcomes, ()) = tokio::join!(proposals, release);
    assert_eq!(first.await.unwrap(), Ok(Ok(1)));
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Ok(_)))));
    // Seven fit into one record, which does not fit into the first segment: the next one's head and new spares.
    assert!(disk.syncs() - syncs <= 4, "{} syncs", disk.syncs() - syncs);
    assert_eq!(log.read().0, (0..=7).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_follows_the_state_is_woken_now_and_then_and_misses_nothing() {
    let (log, _running) = started(&founded(1));
    let mut followed = log.watch();
    let writing = async {
        for number in 0..500 {
            log.propose(ToyEntry::Add(number)).await.unwrap().unwrap();
            assert_eq!(log.read().0.len() as u64, number + 1, "who reads sees it at once");
        }
    };
    let following = async {
        let mut wakes = 0_u128;
        while followed.borrow_and_update().0.len() < 500 {
            followed.changed().await.unwrap();
            wakes += 1;
        }
        wakes
    };
    let begun = Instant::now();
    let both = async { tokio::join!(writing, following).1 };
    let wakes = tokio::time::timeout(Duration::from_secs(60), both).await.expect("the last change is told of");
    assert!(wakes <= begun.elapsed().as_millis() / 10 + 2, "{wakes} wakes in {:?}", begun.elapsed());
}

#[test]
fn acknowledged_is_there_after_a_crash_at_any_step() {
    let (mut crashed, mut kept_unacknowledged) = (0, 0);
    for seed in 0..400 {
        let disk = founded(seed);
        let trail = Trail::default();
        let mut settings = Settings { checkpoint_entries: 7, ..settings() };
        // With the thread that makes segments a seed is not the same every time, but as in real life.
        settings.store.preparing = if seed % 2 == 0 { Preparing::WhenNeeded } else { Preparing::InBackground };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (mut acknowledged, mut in_flight) = (vec![], vec![]);
        disk.die_after(Some(usize::try_from(seed).unwrap() % 80));
        if let Ok((log, running)) = start(disk.clone(), settings.clone(), vec![Box::new(trail.clone())]) {
            runtime.block_on(async {
                for wave in 0..20 {
                    let wave: Vec<_> = (wave * 3..wave * 3 + 1 + wave % 3).collect();
                    let outcomes = join_all(wave.iter().map(|number| log.propose(ToyEntry::Add(*number)))).await;
                    for (number, outcome) in wave.iter().zip(&outcomes) {
                        match outcome {
                            Ok(_) => acknowledged.push(*number),
                            Err(ProposeError::Broken(_)) => in_flight.push(*number),
                            Err(other) => panic!("seed {seed}: {other}"),
                        }
                    }
                    if !in_flight.is_empty() {
                        assert!(matches!(log.ended().await, End::Broken(_)));
                        assert_eq!(log.read().0, acknowledged, "seed {seed}");
                        break;
                    }
                }
            });
            drop(running);
        }
        crashed += usize::from(disk.is_dead());
        if seed % 3 == 0 {
            disk.revive()
        } else {
            disk.power_loss()
        }
        // A trail that was kept is not shown again what it saw; one that was not may be shown some of it twice.
        let (log, running) = start(disk, settings, vec![Box::new(trail.clone())]).unwrap();
        let there = log.read();
        let (stayed, more) = there.0.split_at(acknowledged.len());
        assert_eq!(stayed, acknowledged, "seed {seed}");
        assert!(in_flight.starts_with(more), "seed {seed}: {more:?} of {in_flight:?}");
        kept_unacknowledged += usize::from(!more.is_empty());
        let seen = trail.0.lock().unwrap();
        let mut shown = seen.shown.clone();
        shown.sort_by_key(|(at, ..)| at.index);
        shown.dedup();
        let numbers: Vec<_> = shown.iter().map(|(_, entry, _)| *entry).collect();
        assert_eq!(numbers, there.0.iter().map(|number| ToyEntry::Add(*number)).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(seen.missed, [], "seed {seed}");
        drop(seen);
        drop(running);
    }
    assert!(crashed > 200 && kept_unacknowledged > 20, "{crashed} {kept_unacknowledged}");
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_goes_on_when_there_is_room() {
    let disk = founded(1);
    let (log, _running) = started(&disk);
    let mut number = 0;
    while disk.used_bytes() < 30_000 {
        number += 1;
        log.propose(ToyEntry::Add(number)).await.unwrap().unwrap();
    }
    disk.set_room(Some(disk.used_bytes()));
    let refused = loop {
        number += 1;
        if let Err(error) = log.propose(ToyEntry::Add(number)).await {
            break error;
        }
    };
    assert_eq!(refused, ProposeError::NoRoom);
    assert_eq!(log.read().0, (1..number).collect::<Vec<_>>());
    log.propose(ToyEntry::Urge(number)).await.unwrap().unwrap();
    disk.set_room(None);
    // The checkpoint that the refusal began may still hold the ballast's room.
    let begin = Instant::now();
    while log.propose(ToyEntry::Add(number + 1)).await == Err(ProposeError::NoRoom) {
        assert!(begin.elapsed() < Duration::from_secs(30), "there is room");
    }
    assert_eq!(log.read().0, (1..=number + 1).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_essential_does_not_share_the_fate_of_its_batch_on_a_full_disk() {
    let disk = founded(1);
    let trail = Trail::default();
    // Without checkpoints the disk stays full.
    trail.0.lock().unwrap().cannot_keep = true;
    let (log, _running) = start(disk.clone(), settings(), vec![Box::new(trail.clone())]).unwrap();
    leads(&log).await;
    disk.set_room(Some(disk.used_bytes()));
    let mut number = 100;
    while log.propose(ToyEntry::Add(number)).await.is_ok() {
        number += 1;
    }
    let (open, gate) = mpsc::channel();
    trail.0.lock().unwrap().gate = Some(gate);
    let queued = [ToyEntry::Urge(1), ToyEntry::Add(2), ToyEntry::Urge(3), ToyEntry::Add(4)];
    let proposals = join_all(queued.map(|entry| log.propose(entry)));
    let (outcomes, ()) = tokio::join!(proposals, async { open.send(()).unwrap() });
    let refused: Vec<_> = outcomes.iter().map(|outcome| *outcome == Err(ProposeError::NoRoom)).collect();
    assert_eq!(refused, [false, true, false, true]);
    assert!(log.read().0.ends_with(&[1, 3]));
}

#[tokio::test]
async fn a_replica_leads_when_there_is_room_for_a_term() {
    let disk = founded(1);
    let trail = Trail::default();
    trail.0.lock().unwrap().cannot_keep = true;
    let (log, running) = start(disk.clone(), settings(), vec![Box::new(trail.clone())]).unwrap();
    leads(&log).await;
    disk.set_room(Some(disk.used_bytes()));
    let mut number = 0;
    while log.propose(ToyEntry::Urge(number)).await.is_ok() {
        number += 1;
    }
    running.end().await;
    let (log, _running) = start(disk.clone(), settings(), vec![Box::new(trail.clone())]).unwrap();
    assert_eq!(log.propose(ToyEntry::Urge(number)).await, Err(ProposeError::NoRoom));
    assert_eq!((log.read().0.len() as u64, *log.leader().borrow()), (number, None));
    disk.set_room(None);
    leads(&log).await;
    log.propose(ToyEntry::Add(number)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failed_sync_ends_the_log() {
    let disk = founded(1);
    let (log, running) = started(&disk);
    log.propose(ToyEntry::Add(1)).await.unwrap().unwrap();
    disk.fail_sync_after(Some(0));
    let broken = log.propose(ToyEntry::Add(2)).await.unwrap_err();
    assert!(matches!(&broken, ProposeError::Broken(why) if why.contains("segment-")), "{broken}");
    assert!(matches!(log.ended().await, End::Broken(_)));
    assert_eq!((*log.leader().borrow(), log.read().0.clone()), (None, vec![1]));
    let content = disk.content();
    assert!(matches!(log.propose(ToyEntry::Add(3)).await, Err(ProposeError::Broken(_))));
    assert_eq!(disk.content(), content);
    assert!(matches!(running.end().await, End::Broken(_)));
}

#[tokio::test]
async fn checkpoints_spare_the_next_start_most_of_the_log() {
    let disk = founded(1);
    let settings = Settings { checkpoint_entries: 10, ..settings() };
    let trail = Trail::default();
    let (log, running) = start(disk.clone(), settings.clone(), vec![Box::new(trail.clone())]).unwrap();
    let segments = || disk.content().keys().filter(|name| name.starts_with("segment-")).count();
    let (begin, mut count) = (Instant::now(), 0);
    // Without checkpoints, a hundred entries of a sector each are in 15 segments.
    while count < 100 || segments() > 10 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{} segments for {count} entries", segments());
        log.propose(ToyEntry::Add(count)).await.unwrap().unwrap();
        count += 1;
    }
    running.end().await;
    assert!(segments() <= 10);
    let fresh = Trail::default();
    let (log, _running) = start(disk.clone(), settings, vec![Box::new(trail), Box::new(fresh.clone())]).unwrap();
    assert_eq!(log.read().0, (0..count).collect::<Vec<_>>());
    let seen = fresh.0.lock().unwrap();
    let missed = *seen.missed[0].end();
    assert!(missed > count / 2 && seen.shown.first().is_none_or(|(at, ..)| at.index == missed + 1), "{missed}");
}

#[tokio::test]
async fn an_entry_of_a_later_version_stops_the_start_and_names_it() {
    let disk = founded(1);
    let (log, running) = started(&disk);
    log.propose(ToyEntry::Add(1)).await.unwrap().unwrap();
    // Encoded by this version, and unknown to it: the toy decodes no panics.
    assert_eq!(log.propose(ToyEntry::Panic).await, Err(ProposeError::Unknown));
    assert_eq!(log.ended().await, End::Panicked);
    assert_eq!(log.propose(ToyEntry::Add(2)).await, Err(ProposeError::Unknown));
    drop(running);
    let content = disk.content();
    let error = start::<_, Toy>(disk.clone(), settings(), vec![]).err().unwrap();
    assert!(matches!(error, StartError::Entry { index: 4, .. }), "{error}");
    let failure = error.failure("/data/log");
    assert_eq!(failure.why, "entry 4 cannot be read: kind 3 is not known to this version");
    assert!(failure.try_next.contains("mainstay-coordinator 0.7.0 or later"));
    assert_eq!(disk.content(), content);
}

#[tokio::test]
async fn an_entry_that_is_too_long_is_refused() {
    let settings = Settings { entry_limit_bytes: 408, ..settings() };
    let (log, _running) = start::<_, Toy>(founded(1), settings, vec![]).unwrap();
    assert_eq!(log.propose(ToyEntry::Add(1)).await, Err(ProposeError::TooLarge { bytes: 409, limit: 408 }));
}

fn founded(seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    let identity = Identity { cluster: "c1".parse().unwrap(), generation: 1, replica: 7 };
    found(disk.clone(), identity, &settings(), &Toy::default()).unwrap();
    disk
}

fn started(disk: &FaultyDisk) -> (Log<Toy>, Running<Toy>) {
    start(disk.clone(), settings(), vec![]).unwrap()
}

/// Segments of eight sectors; checkpoints only where a test wants them.
fn settings() -> Settings {
    let store = store::Settings {
        segment_bytes: 4096,
        ballast_bytes: 8192,
        entries_behind: 3,
        retry_interval: Duration::from_millis(5),
        preparing: Preparing::WhenNeeded,
    };
    Settings { store, checkpoint_entries: u64::MAX, retry_interval: Duration::from_millis(5), ..Settings::default() }
}

async fn leads(log: &Log<Toy>) {
    let mut leader = log.leader();
    let led = tokio::time::timeout(Duration::from_secs(30), leader.wait_for(Option::is_some)).await;
    led.expect("leads within 30 s").unwrap();
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("not within 30 s: {what}"));
}
