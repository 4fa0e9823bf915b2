//! Data directories that went back in time, or live twice: whoever knows better refuses them.

use std::{path::Path, time::Duration};

use mainstay_tests::{Daemon, Outcome, Program, Replicas, machine::free_port};

/// The end of a replica that may not take part any more.
const DENIED: i32 = 4;

fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    Outcome::of(command.arg("-a").arg(from).arg(to)).done();
}

fn write(replicas: &Replicas, count: usize) {
    for _ in 0..count {
        replicas.mainstay(&["token", "create"]).done();
    }
}

fn follower(replicas: &Replicas) -> String {
    let leader = replicas.leader();
    replicas.ids().into_iter().find(|id| *id != leader).unwrap()
}

#[test]
fn a_replica_on_an_older_copy_of_its_directory_is_refused_and_comes_back_as_another() {
    let mut replicas = Replicas::found(3);
    let id = follower(&replicas);
    let data = replicas.member(&id).data.clone();
    let before = replicas.folder().join("before");
    replicas.take(&id).stop();
    copy(&data, &before);
    replicas.start(&id);
    replicas.settle();
    write(&replicas, 3);
    replicas.settle();

    replicas.take(&id).kill();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&before, &data);
    replicas.begin(&id);
    let daemon = replicas.daemon(&id);
    assert_eq!(daemon.ends(Duration::from_secs(20)), DENIED, "{}", daemon.said());
    let said = daemon.said();
    assert!(said.contains("went back in time") && said.contains("mainstay-coordinator join"), "{said}");

    write(&replicas, 1);
    replicas.mainstay(&["cluster", "remove", &id, "--yes"]).done();
    replicas.forget(&id);
    replicas.add();
    replicas.settle();
}

#[test]
fn of_two_replicas_on_copies_of_one_directory_the_later_is_refused() {
    let mut replicas = Replicas::found(3);
    let id = follower(&replicas);
    let copied = replicas.folder().join("copied");
    replicas.take(&id).stop();
    copy(&replicas.member(&id).data.clone(), &copied);
    replicas.start(&id);
    replicas.settle();

    let address = || format!("127.0.0.1:{}", free_port());
    let (listen, peers) = (address(), address());
    let mut run = Program::Coordinator.command();
    run.arg("run").arg("--data-dir").arg(&copied).args(["--listen", &listen, "--peer-listen", &peers]);
    run.args(["--http", &address(), "--advertise", &listen, "--peer-advertise", &peers]);
    let mut twin = Daemon::start("twin", &mut run);
    assert_eq!(twin.ends(Duration::from_secs(30)), DENIED, "{}", twin.said());
    assert!(twin.said().contains("copies of one data directory"), "{}", twin.said());

    write(&replicas, 1);
    replicas.settle();
    let rows = replicas.status();
    assert!(rows.iter().all(|row| row["address"] != *listen), "nobody is led to the copy: {rows:?}");
}
