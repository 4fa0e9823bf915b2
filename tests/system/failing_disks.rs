//! Replicas whose disks are slow, hang, fail, run full, tear a write or flip a bit: the others go on, and nobody pretends.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mainstay_tests::{
    Outcome, Replicas, Writer, eventually,
    failing_disk::{Order, order, surround},
    wait::holds,
};

const SOON: Duration = Duration::from_secs(30);
/// What a write may take on a healthy cluster; machines are shared.
const USUAL: Duration = Duration::from_millis(80);
/// A disk that syncs in so long is slow.
const SLOW: Order = Order::Slow(Duration::from_millis(100));
/// What a disk writes whole or not at all, in bytes.
const SECTOR: u64 = 512;

struct Story {
    replicas: Replicas,
    leader: String,
    term: u64,
}

impl Story {
    fn begin() -> Self {
        let replicas = Replicas::found_with(surround, 3);
        let (term, leader) = leadership(&replicas);
        Self { replicas, leader, term }
    }

    fn follower(&self) -> String {
        self.replicas.others(&self.leader).remove(0)
    }

    fn data(&mut self, id: &str) -> PathBuf {
        self.replicas.member(id).data.clone()
    }

    fn order(&mut self, id: &str, what: Order) {
        order(&self.data(id), what);
    }

    /// Starts one that ended, on a disk that is well.
    fn recover(&mut self, id: &str) {
        self.order(id, Order::Well);
        self.replicas.start(id);
        self.replicas.settle();
    }

    /// Declares many receivers: nothing else is as large. `round` makes a difference.
    fn declare(&self, receivers: usize, round: usize) -> Outcome {
        let file = self.replicas.folder().join("large.toml");
        let url = |n: usize| format!("https://h.example/{round}-{n}-{}", "x".repeat(900));
        let one = |n: usize| format!("[[receiver]]\nname = \"r{n}\"\nkind = \"webhook\"\nurl = \"{}\"\n", url(n));
        fs::write(&file, (0..receivers).map(one).collect::<String>()).unwrap();
        self.replicas.mainstay(&["apply", "-f", file.to_str().unwrap()])
    }
}

fn leadership(replicas: &Replicas) -> (u64, String) {
    let rows = replicas.status();
    let leader = rows.iter().find(|row| row["role"] == "leader").unwrap();
    (leader["term"].as_u64().unwrap(), leader["replica"].as_str().unwrap().to_owned())
}

#[test]
fn a_slow_disk_costs_a_follower_nothing_and_a_leader_no_leadership() {
    let mut story = Story::begin();
    let writer = Writer::start(&story.replicas);
    let (leader, follower) = (story.leader.clone(), story.follower());
    let half_within = |story: &mut Story, id: &str, what| {
        story.order(id, what);
        writer.goes_on(SOON);
        let begun = Instant::now();
        writer.writes(30, SOON);
        writer.median_since(begun)
    };
    let before = half_within(&mut story, &follower, Order::Well);
    let follower_slow = half_within(&mut story, &follower, SLOW);
    story.order(&follower, Order::Well);
    let leader_slow = half_within(&mut story, &leader, SLOW);
    story.order(&leader, Order::Well);
    println!("half of the writes within {before:?}; a slow follower {follower_slow:?}; a slow leader {leader_slow:?}");
    assert!(follower_slow < USUAL, "{follower_slow:?}");
    assert!(leader_slow < Duration::from_secs(1), "{leader_slow:?}");
    assert_eq!(leadership(&story.replicas), (story.term, leader), "nobody was taken for dead");
    story.replicas.settle();
    writer.check(&story.replicas);
}

#[test]
fn a_leader_whose_disk_hangs_for_good_gives_way_and_ends() {
    let mut story = Story::begin();
    let writer = Writer::start(&story.replicas);
    let leader = story.leader.clone();
    writer.goes_on(SOON);
    story.order(&leader, Order::Hang);
    let hung = Instant::now();
    let took = writer.goes_on_since(hung, SOON);
    println!("leader's disk hangs: the next write after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let (code, said) = story.replicas.ends(&leader, SOON);
    println!("it ends after {:?}", hung.elapsed());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the disk has not done a write for 10 s"), "{said}");
    story.recover(&leader);
    writer.goes_on(SOON);
    writer.check(&story.replicas);
}

#[test]
fn a_sync_that_fails_ends_the_replica_and_nobody_else() {
    let mut story = Story::begin();
    let writer = Writer::start(&story.replicas);
    for id in [story.follower(), story.leader.clone()] {
        writer.goes_on(SOON);
        story.order(&id, Order::Broken);
        let (code, said) = story.replicas.ends(&id, SOON);
        println!("{id}'s disk fails: the next write after it ended within {:?}", writer.goes_on(SOON));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("the log failed, so this replica ends") && said.contains("os error 5"), "{said}");
        story.recover(&id);
    }
    writer.goes_on(SOON);
    writer.check(&story.replicas);
}

#[test]
fn a_full_disk_refuses_what_can_wait_and_goes_on_with_room() {
    let mut story = Story::begin();
    let (leader, follower) = (story.leader.clone(), story.follower());
    // More than a log has prepared room for.
    let fill =
        |story: &Story, from| (from..from + 60).map(|round| story.declare(400, round)).find(|done| done.code != 0);
    story.order(&follower, Order::Full);
    assert_eq!(fill(&story, 0), None, "a follower that is full keeps nobody");
    assert!(story.replicas.daemon(&follower).ended().is_none(), "it waits");
    let said = story.replicas.daemon(&follower).said();
    assert!(said.contains("no room on the disk"), "{said}");
    story.order(&follower, Order::Well);
    story.replicas.settle();

    story.order(&leader, Order::Full);
    let refused = fill(&story, 100).unwrap_or_else(|| panic!("a disk that is full takes all")).refused(1);
    assert!(refused.contains("disk is full") && refused.contains("nothing changed"), "{refused}");
    assert_eq!(story.replicas.mainstay(&["receiver", "ls", "-o", "json"]).rows().len(), 400, "it is read as ever");
    assert!(story.replicas.daemon(&leader).ended().is_none());
    story.order(&leader, Order::Well);
    eventually("there is room again", SOON, || {
        let outcome = story.declare(400, 99);
        holds(outcome.code == 0, || outcome.stderr)
    });
    story.replicas.settle();
}

#[test]
fn a_write_that_was_torn_is_cut_and_a_flipped_bit_is_refused() {
    let mut story = Story::begin();
    let writer = Writer::start(&story.replicas);
    // The power goes in the middle of a write of several sectors; it was acknowledged by nobody.
    let torn = story.follower();
    story.order(&torn, Order::Tear);
    story.declare(2, 1).done();
    let (code, said) = story.replicas.ends(&torn, SOON);
    assert_eq!(code, 128 + 9, "{said}");
    story.recover(&torn);
    let said = story.replicas.daemon(&torn).said();
    assert!(said.contains("cut what was not written whole"), "{said}");

    // A bit flips in what was written long ago, wherever that is.
    let flipped = story.follower();
    story.replicas.take(&flipped).stop();
    let log = story.data(&flipped).join("log");
    for kind in ["identity", "checkpoint-", "segment-"] {
        let names = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let file = names.filter(|name| name.starts_with(kind)).min().unwrap();
        flip(&log.join(&file));
        story.replicas.begin(&flipped);
        let (code, said) = story.replicas.ends(&flipped, SOON);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{file} is damaged at byte ")), "{said}");
        assert!(said.contains("mainstay cluster remove"), "{said}");
        flip(&log.join(&file));
    }
    // The way that it shows.
    story.replicas.mainstay(&["cluster", "remove", &flipped, "--yes"]).done();
    story.replicas.forget(&flipped);
    let rejoined = story.replicas.add();
    assert_eq!(rejoined, "r4", "an id is never used again");
    story.replicas.settle();
    writer.goes_on(SOON);
    writer.check(&story.replicas);
}

/// Flips a bit of a file's second sector, if it has one, or back.
fn flip(file: &Path) {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let at = if file.metadata().unwrap().len() > 2 * SECTOR { SECTOR + 99 } else { 99 };
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 4]).unwrap();
}
