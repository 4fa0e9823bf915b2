//! `mainstay dev`, as the README's first command.

use std::{
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use mainstay_tests::{
    Daemon, Outcome, Program,
    machine::{Need, has},
    shell::sh,
};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// What the first command promises.
const READY_LIMIT: Duration = Duration::from_secs(5);

#[test]
fn it_is_ready_within_5_s_and_the_commands_it_prints_work() {
    let home = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let mut dev = start(home.path(), &[]);
    let took = begun.elapsed();
    assert!(took < READY_LIMIT, "{took:?}");
    println!("ready after {took:?}");
    let said = dev.said();
    assert!(said.contains("http://127.0.0.1:"), "{said}");
    let tries: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("try")).take(3).collect();
    assert_eq!(tries.len(), 3, "{said}");
    for line in tries {
        let words = line.trim_start_matches("try").split_whitespace().skip(1);
        let told = mainstay(home.path(), &words.collect::<Vec<_>>()).done();
        assert!(!told.is_empty(), "{line}");
    }
    let rows = mainstay(home.path(), &["disk", "ls", "-o", "json"]).rows();
    assert!(rows.iter().any(|row| row["mount"] == "/"), "{rows:?}");
    let hostname = sh("hostname");
    assert_eq!(mainstay(home.path(), &["node", "ls", "-o", "name"]).done().trim(), hostname);
    assert!(dev.ended().is_none());
}

#[test]
fn a_second_one_beside_it_says_so_and_ends_with_5() {
    let home = tempfile::tempdir().unwrap();
    let _dev = start(home.path(), &[]);
    let refused = Outcome::of(&mut command(home.path(), &["dev"])).refused(5);
    assert!(refused.contains("another mainstay dev runs already"), "{refused}");
    assert!(mainstay(home.path(), &["status"]).done().contains("leader r1"), "the first goes on");
}

#[test]
fn ctrl_c_stops_it_cleanly_and_a_second_start_finds_its_data() {
    let home = tempfile::tempdir().unwrap();
    let mut dev = start(home.path(), &[]);
    let token = mainstay(home.path(), &["token", "create", "-o", "json"]).json();
    dev.signal(Signal::INT);
    let begun = Instant::now();
    assert_eq!(dev.ends(Duration::from_secs(5)), 0, "{}", dev.said());
    assert!(dev.said().contains("stopped; the data stays in"), "{}", dev.said());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(mainstay(home.path(), &["status"]).code, 3);

    let dev = start(home.path(), &[]);
    assert!(dev.said().contains("there already"), "{}", dev.said());
    let rows = mainstay(home.path(), &["token", "ls", "-o", "json"]).rows();
    assert!(rows.iter().any(|row| row["id"] == token["id"]), "{rows:?}");
}

#[test]
fn it_starts_again_when_all_its_certificates_ran_out() {
    let faketime = sh("ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null || true");
    if !has(&[Need::Tool("faketime")]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut dev = start(home.path(), &[]);
    dev.signal(Signal::TERM);
    assert_eq!(dev.ends(Duration::from_secs(5)), 0);
    let in_40_days = [("LD_PRELOAD", faketime.as_str()), ("FAKETIME", "+40d"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
    let _dev = start(home.path(), &in_40_days);
    let told = Outcome::of(command(home.path(), &["node", "ls", "-o", "json"]).envs(in_40_days)).rows();
    assert_eq!(told[0]["state"], "ready");
}

#[test]
fn three_replicas_survive_a_transfer_and_a_second_start() {
    let home = tempfile::tempdir().unwrap();
    let three = || {
        let mut dev = Daemon::start("dev", &mut command(home.path(), &["dev", "--replicas", "3", "--interval", "1s"]));
        dev.is_ready();
        dev
    };
    let mut dev = three();
    assert!(mainstay(home.path(), &["status"]).done().contains("3/3 replicas"));
    mainstay(home.path(), &["cluster", "transfer", "r2"]).done();
    assert!(mainstay(home.path(), &["status"]).done().contains("leader r2"));
    let token = mainstay(home.path(), &["token", "create", "-o", "json"]).json();
    dev.signal(Signal::INT);
    assert_eq!(dev.ends(Duration::from_secs(8)), 0, "{}", dev.said());
    let alone = Outcome::of(&mut command(home.path(), &["dev"])).refused(2);
    assert!(alone.contains("--replicas 3"), "{alone}");
    let _dev = three();
    let tokens = mainstay(home.path(), &["token", "ls", "-o", "json"]).rows();
    assert!(tokens.iter().any(|row| row["id"] == token["id"]), "{tokens:?}");
}

#[test]
fn a_replica_is_killed_by_a_key_and_brought_back() {
    let home = tempfile::tempdir().unwrap();
    let mut three = command(home.path(), &["dev", "--replicas", "3", "--interval", "1s"]);
    let mut dev = Daemon::start_and_tell("dev", &mut three);
    dev.is_ready();
    assert!(dev.said().contains("k kills the leader"), "{}", dev.said());
    let standing = || mainstay(home.path(), &["cluster", "status", "-o", "json"]).rows();
    let leads = |rows: &[Value]| rows.iter().find(|row| row["role"] == "leader").unwrap().clone();
    let first = leads(&standing());
    let (id, address) = (first["replica"].as_str().unwrap(), first["address"].as_str().unwrap());

    dev.is_told("k");
    dev.says(&format!("killed {id}, which led; 2 of 3 go on"), PATIENCE);
    dev.says("leads now, after", PATIENCE);
    let token = mainstay(home.path(), &["token", "create", "-o", "json"]).json();
    let next = leads(&standing());
    assert_ne!(next["replica"], id);
    assert!(TcpStream::connect(address).is_err(), "{id} listens still");

    dev.is_told("r");
    dev.says(&format!("{id} is back and has all"), PATIENCE);
    assert!(standing().iter().all(|row| row["healthy"] == true), "{:?}", standing());
    let told = mainstay(home.path(), &["token", "ls", "-o", "json", "--stale", "--coordinator", address]).rows();
    assert!(told.iter().any(|row| row["id"] == token["id"]), "{told:?}");

    dev.is_told("t");
    dev.says("leads now, as", PATIENCE);
    assert_ne!(leads(&standing())["replica"], next["replica"]);
    dev.is_told("x");
    dev.says("k kills the leader", PATIENCE);
    dev.signal(Signal::INT);
    assert_eq!(dev.ends(Duration::from_secs(8)), 0, "{}", dev.said());
}

#[test]
fn an_even_number_of_replicas_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let refused = Outcome::of(&mut command(home.path(), &["dev", "--replicas", "2"])).refused(2);
    assert!(refused.contains("dev cannot run 2 replicas"), "{refused}");
}

/// Starts it with that home and waits until it is ready.
fn start(home: &Path, surrounding: &[(&str, &str)]) -> Daemon {
    let mut dev = command(home, &["dev", "--interval", "1s"]);
    let mut daemon = Daemon::start("dev", dev.envs(surrounding.iter().copied()));
    daemon.is_ready();
    daemon
}

fn command(home: &Path, words: &[&str]) -> Command {
    let mut command = Program::Mainstay.command();
    command.env("HOME", home).args(words);
    command
}

fn mainstay(home: &Path, words: &[&str]) -> Outcome {
    Outcome::of(&mut command(home, words))
}
