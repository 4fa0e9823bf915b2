//! The cluster's CA is rotated while agents run, stop and come back.

use std::{fs, path::PathBuf, time::Duration};

use mainstay_tests::{Cluster, Daemon, Outcome, eventually, wait::holds};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn agents_follow_a_rotation_and_those_that_were_off_come_back() {
    let mut cluster = Cluster::found();
    for name in ["stays", "naps", "sleeps"] {
        cluster.add_agent(name, &[]);
    }
    let sessions = cluster.agent("stays").said().matches("session stands").count();
    cluster.take_agent("sleeps").stop();
    let eve = person(&cluster, "eve");

    rotate(&cluster, &[]).done();
    let refused = eventually("only who is off is missing", SOON, || {
        let refused = rotate(&cluster, &[]);
        holds(refused.stderr.contains("1 node has"), || refused.stderr.clone()).map(|()| refused)
    });
    let words = refused.refused(5);
    assert!(words.contains("not acknowledged yet: sleeps") && words.contains("--force"), "{words}");
    let status = cluster.mainstay(&["cluster", "ca", "status"]).done();
    assert!(status.contains("spreading") && status.contains("missing   sleeps"), "{status}");
    assert_eq!(rotated(&cluster, &["--force"])["lost"][0], "sleeps");

    // In the second phase one more agent is off while the root changes hands.
    missing_are(&cluster, &["sleeps"]);
    cluster.take_agent("naps").stop();
    assert_eq!(cluster.mainstay(&["cluster", "ca", "status", "-o", "json"]).json()["phase"], "replacing");
    cluster.add_agent("late", &[]);
    let asked = Outcome::of(&mut cluster.command_as(&eve, &["node", "ls"]));
    assert_eq!(asked.code, 0, "{}", asked.stderr);
    missing_are(&cluster, &["sleeps"]);
    assert_eq!(rotated(&cluster, &["--force"])["phase"], "settled");

    assert_eq!(roots(&cluster.coordinator_folder().join("ca.crt")), 1);
    cluster.node_becomes("stays", "ready");
    let after = cluster.agent("stays").said().matches("session stands").count();
    assert_eq!(after, sessions, "a session outlives a rotation: {}", cluster.agent("stays").said());
    for name in ["naps", "sleeps"] {
        cluster.start_agent(name, &[]);
        cluster.node_becomes(name, "ready");
    }
    assert!(cluster.agent("sleeps").said().contains("a new certificate for the same key"));
    let ca = |name: &str| fs::read(cluster.agent_folder(name).join("ca.crt")).unwrap();
    assert!(ca("sleeps") == ca("stays") && ca("stays") == ca("late"));
    let asked = Outcome::of(&mut cluster.command_as(&eve, &["node", "ls"]));
    assert_eq!(asked.code, 0, "a context that was used meanwhile counts: {}", asked.stderr);

    // Everything is on disk: the whole cluster starts again with the new root alone.
    cluster.take_coordinator().stop();
    cluster.start_coordinator();
    for name in ["stays", "naps", "sleeps", "late"] {
        cluster.node_becomes(name, "ready");
    }
}

#[test]
fn a_rotation_that_waits_for_nobody_loses_no_agent_that_runs() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    let ca = || fs::read(cluster.agent_folder("n1").join("ca.crt")).unwrap();
    let before = ca();
    for _ in 0..3 {
        rotate(&cluster, &["--force"]).done();
    }
    let after = fs::read(cluster.coordinator_folder().join("ca.crt")).unwrap();
    eventually("the agent knows the new root alone", SOON, || holds(ca() == after, String::new));
    assert_ne!(after, before);
    cluster.take_agent("n1").stop();
    cluster.start_agent("n1", &[]);
    cluster.node_becomes("n1", "ready");
}

#[test]
fn a_rotation_is_asked_for_shown_and_taken_back() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    let mut unconfirmed = cluster.command_as(&cluster.coordinator_folder().join("admin.context"), &["cluster"]);
    let unconfirmed = Outcome::of(unconfirmed.args(["ca", "rotate"])).refused(2);
    assert!(unconfirmed.contains("must be confirmed"), "{unconfirmed}");
    let before = cluster.mainstay(&["cluster", "ca", "status", "-o", "json"]).json();
    assert_eq!(rotate(&cluster, &["--abort"]).refused(5).lines().count(), 3);
    assert_eq!(rotated(&cluster, &[])["phase"], "spreading");
    missing_are(&cluster, &[]);
    assert_eq!(rotated(&cluster, &[])["phase"], "replacing");
    missing_are(&cluster, &[]);
    assert_eq!(rotated(&cluster, &["--abort"])["phase"], "spreading");
    missing_are(&cluster, &[]);
    assert_eq!(rotated(&cluster, &["--abort"])["phase"], "settled");
    let after = cluster.mainstay(&["cluster", "ca", "status", "-o", "json"]).json();
    assert_eq!(after["roots"][0]["key"], before["roots"][0]["key"]);
    cluster.node_becomes("n1", "ready");
    let audit = cluster.mainstay(&["audit"]).done();
    assert!(audit.contains("ca begin") && audit.contains("ca back"), "{audit}");

    let mut viewer = cluster.command_as(&person(&cluster, "eve"), &["cluster", "ca", "rotate", "--yes"]);
    assert_eq!(Outcome::of(&mut viewer).code, 4);
}

#[test]
fn a_context_that_slept_through_a_rotation_is_told_what_to_do() {
    let cluster = Cluster::found();
    let eve = person(&cluster, "eve");
    for phase in ["spreading", "replacing", "settled"] {
        assert_eq!(rotated(&cluster, &[])["phase"], phase);
    }
    let refused = Outcome::of(&mut cluster.command_as(&eve, &["node", "ls"])).refused(4);
    assert!(refused.contains("rotated out") && refused.contains("mainstay user add eve"), "{refused}");
}

#[test]
fn an_agent_that_lost_every_root_enrols_again_as_the_same_node() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.take_agent("n1").stop();
    for _ in 0..2 {
        for _ in 0..3 {
            rotate(&cluster, &["--force"]).done();
        }
    }
    let mut agent = Daemon::start("agent n1", &mut cluster.agent_command("n1", &[]));
    let told = agent.says("rotated in while nobody here was on", SOON);
    assert!(told.contains("no session"), "{told}");
    agent.stop();
    cluster.enroll("n1");
    cluster.start_agent("n1", &[]);
    cluster.node_becomes("n1", "ready");
    assert_eq!(cluster.rows("node").len(), 1);
}

fn rotate(cluster: &Cluster, flags: &[&str]) -> Outcome {
    cluster.mainstay(&[&["cluster", "ca", "rotate", "--yes"], flags].concat())
}

fn rotated(cluster: &Cluster, flags: &[&str]) -> Value {
    rotate(cluster, &[flags, &["-o", "json"]].concat()).json()
}

fn missing_are(cluster: &Cluster, names: &[&str]) {
    eventually(&format!("missing are {names:?}"), SOON, || {
        let status = cluster.mainstay(&["cluster", "ca", "status", "-o", "json"]).json();
        holds(status["missing"] == serde_json::json!(names), || status.to_string())
    });
}

fn person(cluster: &Cluster, name: &str) -> PathBuf {
    let file = cluster.folder().join(format!("{name}.context"));
    cluster.mainstay(&["user", "add", name, "--role", "viewer", "--out", file.to_str().unwrap()]).done();
    file
}

fn roots(file: &std::path::Path) -> usize {
    fs::read_to_string(file).unwrap().matches("BEGIN CERTIFICATE").count()
}
