//! A leader that dies at any step of a write, of a checkpoint or of a change of members: what was acknowledged stays, and
//! nobody was told of a write what did not become of it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mainstay_tests::{Replicas, Writer, daemon::STOP_LIMIT, eventually};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(30);
/// SIGKILL, as an exit code.
const KILLED: i32 = 128 + 9;

/// A write, from its proposal to its answer, in the order in which the leader reaches them.
const WRITE: [&str; 8] = [
    "log-proposed",
    "log-sent",
    "log-appended",
    "log-unsynced",
    "log-written",
    "log-committed",
    "log-applied",
    "log-applied",
];
const CHECKPOINT: [&str; 4] = ["checkpoint-begun", "checkpoint-written", "checkpoint-renamed", "checkpoint-adopted"];
/// What a follower does with what the leader sends.
const FOLLOW: [&str; 5] = ["log-appended", "log-unsynced", "log-written", "log-committed", "log-applied"];
/// A checkpoint of the leader's that takes the place of a follower's log.
const INSTALL: [&str; 3] = ["install-received", "install-reset", "install-renamed"];
const CHANGE: [&str; 2] = ["change-proposed", "change-applied"];

/// The file that says at which point a replica dies.
fn point_of(data: &Path) -> PathBuf {
    data.with_extension("failpoint")
}

fn surround(data: &Path) -> Vec<(&'static str, OsString)> {
    let mut file = OsString::from("@");
    file.push(point_of(data));
    vec![("MAINSTAY_FAILPOINT", file), ("MAINSTAY_CHECKPOINT_ENTRIES", "40".into())]
}

/// Lets a replica die at that point, and brings it back when the others have gone on.
fn dies_at(id: &str, point: &str, replicas: &mut Replicas, writer: &Writer, meanwhile: impl FnOnce(&mut Replicas)) {
    writer.goes_on(SOON);
    let file = point_of(&replicas.member(id).data);
    fs::write(&file, point).unwrap();
    meanwhile(replicas);
    let died = eventually(&format!("{id} dies at {point}"), SOON, || {
        let daemon = replicas.daemon(id);
        daemon.ended().map(|code| (code, Instant::now())).ok_or_else(|| daemon.said())
    });
    assert_eq!(died.0, KILLED, "{id} at {point}: {}", replicas.daemon(id).said());
    println!("{id} killed at {point}: the next write after {:?}", writer.goes_on_since(died.1, SOON));
    fs::remove_file(&file).unwrap();
    drop(replicas.take(id));
    replicas.start(id);
    replicas.settle();
}

#[test]
fn a_leader_killed_at_any_step_of_a_write_or_a_checkpoint_loses_nothing() {
    let mut replicas = Replicas::found_with(surround, 3);
    let writer = Writer::start(&replicas);
    for point in WRITE.into_iter().chain(CHECKPOINT) {
        let leader = replicas.leader();
        dies_at(&leader, point, &mut replicas, &writer, |_| {});
    }
    writer.goes_on(SOON);
    let ledger = writer.check(&replicas);
    assert!(!ledger.unknown.is_empty(), "whoever is killed in the middle of a write leaves a doubt");
}

#[test]
fn a_follower_killed_at_any_step_comes_back_and_costs_nobody_anything() {
    let mut replicas = Replicas::found_with(surround, 3);
    let writer = Writer::start(&replicas);
    let leader = replicas.leader();
    let follower = replicas.others(&leader).remove(0);
    for point in FOLLOW.into_iter().chain(CHECKPOINT) {
        dies_at(&follower, point, &mut replicas, &writer, |_| {});
    }
    for point in INSTALL {
        replicas.take(&follower).kill();
        // More than the leader keeps in its log.
        writer.writes(150, SOON);
        dies_at(&follower, point, &mut replicas, &writer, |replicas| replicas.begin(&follower));
    }
    assert_eq!(replicas.leader(), leader);
    writer.goes_on(SOON);
    let ledger = writer.check(&replicas);
    assert!(ledger.unknown.is_empty() && ledger.refused.is_empty(), "{:?} {:?}", ledger.unknown, ledger.refused);
}

#[test]
fn a_leader_killed_in_a_change_of_members_leaves_a_cluster_that_ends_the_change() {
    let mut replicas = Replicas::found_with(surround, 3);
    let writer = Writer::start(&replicas);
    for (point, size) in CHANGE.into_iter().zip(4..) {
        let leader = replicas.leader();
        dies_at(&leader, point, &mut replicas, &writer, |replicas| drop(replicas.join()));
        assert_eq!(replicas.status().len(), size);
    }
    writer.goes_on(SOON);
    writer.check(&replicas);
}

#[test]
fn a_leader_that_is_told_to_stop_lets_another_one_lead_first_and_answers_what_it_was_asked() {
    let mut replicas = Replicas::found(3);
    let writer = Writer::start(&replicas);
    for _ in 0..3 {
        let leader = replicas.leader();
        writer.goes_on(SOON);
        let mut daemon = replicas.take(&leader);
        let told = Instant::now();
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ends(STOP_LIMIT), 0, "{}", daemon.said());
        println!("leader told to stop: the next write after {:?}", writer.goes_on_since(told, SOON));
        assert!(daemon.said().contains("gave leadership away"), "{}", daemon.said());
        replicas.start(&leader);
        replicas.settle();
    }
    let ledger = writer.check(&replicas);
    assert!(ledger.unknown.is_empty(), "nobody is left in doubt: {:?}", ledger.unknown);
}
