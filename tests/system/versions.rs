//! Replicas of several versions: nothing is decided that one of them does not know, and who is too old says so.

use std::{ffi::OsStr, fs, time::Duration};

use mainstay_tests::{Outcome, Program, Replicas, eventually, wait::holds};

const PATIENCE: Duration = Duration::from_secs(30);
/// As a program of the version before: it knows no names of requests.
const BEFORE: (&str, &str) = ("MAINSTAY_ENTRY_VERSION", "1");

/// Whether what is written now has the name of its request in the audit.
fn has_names(replicas: &Replicas) -> bool {
    let made = replicas.mainstay(&["token", "create", "-o", "json"]).json();
    let rows = replicas.mainstay(&["audit", "-o", "json"]).rows();
    let row = rows.iter().find(|row| row["object"] == made["id"]).unwrap();
    row["detail"].as_str().unwrap().contains("(request ")
}

#[test]
fn what_a_version_brings_is_used_when_the_last_member_knows_it() {
    let mut replicas = Replicas::found_with(|_| vec![(BEFORE.0, BEFORE.1.into())], 3);
    for id in replicas.ids() {
        assert!(!has_names(&replicas), "{id} does not know them");
        replicas.take(&id).stop();
        replicas.member(&id).surroundings.remove(OsStr::new(BEFORE.0));
        replicas.start(&id);
        replicas.settle();
    }
    eventually("names are used", PATIENCE, || holds(has_names(&replicas), || "not yet".into()));

    // Back again: it stops where it meets what it does not know, and says so.
    let leader = replicas.leader();
    let id = replicas.ids().into_iter().find(|id| *id != leader).unwrap();
    replicas.take(&id).stop();
    replicas.begin_with(&id, &[BEFORE]);
    assert_eq!(replicas.daemon(&id).ends(PATIENCE), 1);
    let said = replicas.daemon(&id).said();
    assert!(said.contains("later version") && said.contains("version 2 of entries"), "{said}");
    replicas.start(&id);
    replicas.settle();
}

#[test]
fn who_is_older_than_the_cluster_does_not_join_it() {
    let mut replicas = Replicas::found(1);
    let made = replicas.mainstay(&["cluster", "add", "-o", "json"]).json();
    let token = replicas.folder().join("replica.token");
    fs::write(&token, made["token"].as_str().unwrap()).unwrap();
    let (address, folder) = (replicas.member("r1").listen.clone(), replicas.folder().join("late"));
    let mut join = Program::Coordinator.command();
    join.env(BEFORE.0, BEFORE.1).arg("join").arg("--data-dir").arg(&folder).arg("--token-file").arg(&token);
    join.args(["--coordinator", &address, "--advertise", "127.0.0.1:9", "--peer-advertise", "127.0.0.1:10"]);
    let refused = Outcome::of(&mut join);
    assert!(refused.code != 0 && refused.stderr.contains("older than the cluster"), "{}", refused.stderr);
    assert_eq!(replicas.status().len(), 1);
}
