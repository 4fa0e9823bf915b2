//! Clocks that are wrong, and certificates that ran out: errors name both clocks, and what can heal heals by itself.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mainstay_tests::{
    Cluster, Daemon, Outcome, Replicas, Writer,
    machine::{Need, has},
    shell::sh,
};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn everything_that_ran_out_while_it_was_off_heals_at_the_next_start() {
    let Some(in_40_days) = Shift::by("+40d") else { return };
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.take_agent("n1").stop();
    cluster.take_coordinator().stop();
    let mut coordinator = Daemon::start("coordinator", in_40_days.on(&mut cluster.coordinator_command()));
    coordinator.is_ready();
    assert!(coordinator.said().contains("the administrator's context on this machine is fresh again"));
    let mut agent = Daemon::start("agent n1", in_40_days.on(&mut cluster.agent_command("n1", &[])));
    agent.is_ready();
    assert!(agent.said().contains("a new certificate for the same key"), "{}", agent.said());
    let admin = cluster.coordinator_folder().join("admin.context");
    let rows = Outcome::of(in_40_days.on(&mut cluster.command_as(&admin, &["node", "ls", "-o", "json"]))).rows();
    assert_eq!((&rows[0]["name"], &rows[0]["state"]), (&"n1".into(), &"ready".into()));
}

#[test]
fn after_90_days_a_new_token_brings_the_same_node_back() {
    let Some(much_later) = Shift::by("+100d") else { return };
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.take_agent("n1").stop();
    cluster.take_coordinator().stop();
    let mut coordinator = Daemon::start("coordinator", much_later.on(&mut cluster.coordinator_command()));
    coordinator.is_ready();
    let mut agent = Daemon::start("agent n1", much_later.on(&mut cluster.agent_command("n1", &[])));
    let told = agent.says("was away for too long", SOON);
    assert!(told.contains("mainstay token create"), "{told}");
    assert!(agent.ended().is_none(), "it goes on trying");
}

#[test]
fn a_person_whose_certificate_ran_out_is_told_the_way_to_a_new_one() {
    let Some(in_10_days) = Shift::by("+10d") else { return };
    let cluster = Cluster::found();
    let eve = cluster.folder().join("eve.context");
    cluster.mainstay(&["user", "add", "eve", "--role", "viewer", "--out", eve.to_str().unwrap()]).done();
    let refused = Outcome::of(in_10_days.on(&mut cluster.command_as(&eve, &["node", "ls"]))).refused(4);
    assert!(refused.contains("expired") && refused.contains("mainstay user add eve"), "{refused}");
}

#[test]
fn an_agent_a_day_ahead_or_behind_works_and_says_both_clocks() {
    let (Some(ahead), Some(behind)) = (Shift::by("+1d"), Shift::by("-1d")) else { return };
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.take_agent("n1").stop();
    let mut agent = Daemon::start("agent n1", ahead.on(&mut cluster.agent_command("n1", &[])));
    agent.is_ready();
    let told = agent.says("this machine's clock is ahead of the replica's", SOON);
    assert!(told.contains("here") && told.contains("there"), "{told}");
    cluster.node_becomes("n1", "ready");
    agent.stop();
    // What a replica vouched for is a floor: a day behind it, certificates are still checked against that.
    let mut agent = Daemon::start("agent n1", behind.on(&mut cluster.agent_command("n1", &[])));
    agent.is_ready();
    agent.says("this machine's clock is behind the replica's", SOON);
    cluster.node_becomes("n1", "ready");
    agent.stop();
    std::fs::remove_file(cluster.agent_folder("n1").join("clock")).unwrap();
    let mut agent = Daemon::start("agent n1", behind.on(&mut cluster.agent_command("n1", &[])));
    let told = agent.says("one of the two clocks is wrong", SOON);
    assert!(told.contains("its certificate counts from") && told.contains("this machine's clock says"), "{told}");
    assert!(agent.ended().is_none());
}

#[test]
fn a_coordinator_a_day_ahead_or_behind_keeps_its_agents() {
    let shifts = [Shift::by("+8d"), Shift::by("-1d")];
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    for shift in shifts {
        let Some(shift) = shift else { return };
        cluster.take_agent("n1").stop();
        cluster.take_coordinator().stop();
        let mut coordinator = Daemon::start("coordinator", shift.on(&mut cluster.coordinator_command()));
        coordinator.is_ready();
        // By that clock the agent's certificate ran out, or does not count yet: the key brings it in all the same.
        let mut agent = Daemon::start("agent n1", &mut cluster.agent_command("n1", &[]));
        agent.is_ready();
        assert!(agent.said().contains("a new certificate for the same key"), "{}", agent.said());
        agent.says("this machine's clock is", SOON);
        agent.stop();
        coordinator.stop();
        cluster.start_coordinator();
        cluster.start_agent("n1", &[]);
        cluster.node_becomes("n1", "ready");
    }
}

#[test]
fn clocks_of_replicas_jump_by_a_day_while_somebody_writes() {
    if !has(&[Need::Tool("faketime")]) {
        return;
    }
    // Certificates are three days old: one from today would not count yet by a clock that is a day behind.
    let mut replicas = Replicas::found_with(|data| Shift::in_file(data, "-3d"), 3);
    for id in replicas.ids() {
        Shift::jump(&replicas.member(&id).data, "+0");
    }
    replicas.settle();
    let writer = Writer::start(&replicas);
    let leader = replicas.leader();
    let follower = replicas.others(&leader).remove(0);
    for id in [&leader, &follower] {
        let data = replicas.member(id).data.clone();
        for by in ["+1d", "-1d", "+0"] {
            Shift::jump(&data, by);
            // It is noticed by the next heartbeats, if at all.
            writer.writes(30, SOON);
            replicas.settle();
            assert_eq!(replicas.leader(), leader, "{id} by {by}");
        }
    }
    // What a replica dials and is dialled with counts by that clock, too.
    for id in [&follower, &leader] {
        let data = replicas.member(id).data.clone();
        for by in ["+1d", "-1d", "+0"] {
            Shift::jump(&data, by);
            replicas.take(id).stop();
            replicas.start(id);
            replicas.settle();
            writer.goes_on(SOON);
        }
    }
    writer.check(&replicas);
}

/// A clock that is wrong by so much, for one program.
struct Shift {
    library: String,
    by: &'static str,
}

impl Shift {
    fn by(by: &'static str) -> Option<Self> {
        let library = sh("ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null || true");
        has(&[Need::Tool("faketime")]).then_some(Self { library, by })
    }

    fn on<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME", self.by).env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// What a replica with that data directory finds in its surroundings: a clock that can jump.
    fn in_file(data: &Path, by: &str) -> Vec<(&'static str, OsString)> {
        Self::jump(data, by);
        let library = sh("ls /usr/lib/*/faketime/libfaketimeMT.so.1");
        vec![
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", Self::file(data).into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    fn jump(data: &Path, by: &str) {
        let unfinished = data.with_extension("clock.tmp");
        fs::write(&unfinished, by).and_then(|()| fs::rename(&unfinished, Self::file(data))).unwrap();
    }

    fn file(data: &Path) -> PathBuf {
        data.with_extension("clock")
    }
}
