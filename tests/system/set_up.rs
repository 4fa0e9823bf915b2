//! The real set-up, as the README writes it.

use std::{fs, time::Duration};

use mainstay_tests::{Cluster, Outcome, Program, eventually, shell::sh, wait::holds};
use rustix::process::Signal;

#[test]
fn a_machine_joins_and_its_disks_equal_df() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    eventually("disks equal df", Duration::from_secs(20), || {
        let row = cluster.row("disk", "mount", "/").ok_or("no row for /")?;
        let df = sh("df -B1 --output=size,used,avail,itotal,iused / | tail -n 1");
        let df: Vec<u64> = df.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let keys = ["total_bytes", "used_bytes", "avail_bytes", "inodes_total", "inodes_used"];
        let ours = keys.map(|key| row[key].as_u64());
        // Others write on this disk between our look and df's.
        let near = ours.iter().zip(&df).all(|(ours, df)| ours.is_some_and(|ours| ours.abs_diff(*df) * 1_000 <= *df));
        holds(near, || format!("{ours:?} {df:?}"))
    });
    assert!(cluster.take_agent("n1").stop() < Duration::from_secs(5));
    assert!(cluster.take_coordinator().stop() < Duration::from_secs(5));
}

#[test]
fn a_token_admits_one_machine_once_and_a_lost_reply_locks_nobody_out() {
    let cluster = Cluster::found();
    let token = cluster.token_file("one");
    let enroll = |name: &str| {
        let mut enroll = Program::Agent.command();
        enroll.arg("enroll").arg("--data-dir").arg(cluster.agent_folder(name)).arg("--token-file").arg(&token);
        Outcome::of(enroll.args(["--coordinator", &cluster.listen, "--name", name]))
    };
    assert_eq!(enroll("n1").code, 0);
    assert_eq!(enroll("n1").code, 0, "the same machine again");
    let refused = enroll("n2").refused(4);
    assert!(refused.contains("used already, by n1") && refused.contains("mainstay token create"), "{refused}");
    assert!(!cluster.agent_folder("n2").join("agent.crt").exists());
    assert_eq!(cluster.row("token", "state", "used").unwrap()["uses_left"], 0);
}

#[test]
fn a_token_comes_in_by_a_pipe_and_rubbish_is_named() {
    let cluster = Cluster::found();
    let token = cluster.mainstay(&["token", "create"]).done();
    assert_eq!(token.lines().count(), 1, "the token alone: {token}");
    let enroll = |name: &str, token: &str| {
        let mut enroll = Program::Agent.command();
        enroll.arg("enroll").arg("--data-dir").arg(cluster.agent_folder(name)).args(["--token-file", "-"]);
        Outcome::fed(enroll.args(["--coordinator", &cluster.listen, "--name", name]), token.as_bytes())
    };
    let cut = &token.trim_end()[..token.len() - 3];
    for rubbish in ["", "rubbish", cut, &format!("{cut}0")] {
        let refused = enroll("n1", rubbish).refused(2);
        assert!(!refused.contains(rubbish.get(..20).unwrap_or("\0")), "a secret is never printed: {refused}");
    }
    assert_eq!(enroll("n1", &token).code, 0);

    let other = Cluster::found();
    let foreign = other.mainstay(&["token", "create"]).done();
    let refused = enroll("n2", &foreign).refused(4);
    assert!(refused.contains("the secret was not sent"), "{refused}");
}

#[test]
fn people_get_what_their_role_allows_until_they_are_revoked() {
    let cluster = Cluster::found();
    let context = cluster.folder().join("eve.context");
    let file = context.to_str().unwrap();
    cluster.mainstay(&["user", "add", "eve", "--role", "viewer", "--out", file]).done();
    assert_eq!(sh(&format!("stat -c %a {file}")), "600");
    let eve = |words: &[&str]| Outcome::of(&mut cluster.command_as(&context, words));
    assert!(eve(&["node", "ls", "-o", "json"]).rows().is_empty());
    let refused = eve(&["token", "create"]).refused(4);
    assert!(refused.contains("admin"), "{refused}");
    let as_json = eve(&["token", "create", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&as_json.stderr).unwrap();
    assert_eq!((as_json.code, &error["error"]["code"]), (4, &4.into()), "{error}");

    let twice = cluster.mainstay(&["user", "add", "eve", "--role", "admin", "--out", "/tmp/never"]);
    assert_eq!(twice.code, 5, "{}", twice.stderr);
    cluster.mainstay(&["user", "revoke", "eve", "--yes"]).done();
    assert!(eve(&["node", "ls"]).refused(4).contains("revoked"));
}

#[test]
fn a_context_becomes_the_current_one() {
    let cluster = Cluster::found();
    let file = cluster.coordinator_folder().join("admin.context");
    let mainstay = |words: &[&str]| {
        let mut command = Program::Mainstay.command();
        Outcome::of(command.env("MAINSTAY_HOME", cluster.folder().join("fresh")).args(words))
    };
    let refused = mainstay(&["node", "ls"]).refused(2);
    assert!(refused.contains("mainstay dev") || refused.contains("context use"), "{refused}");
    mainstay(&["context", "use", file.to_str().unwrap()]).done();
    assert_eq!(mainstay(&["context", "ls", "-o", "json"]).rows()[0]["cluster"], "lab");
    assert!(mainstay(&["node", "ls", "-o", "json"]).rows().is_empty());
}

#[test]
fn a_removed_agent_ends_with_4_and_stays_out() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.mainstay(&["node", "rm", "n1", "--yes"]).done();
    let mut agent = cluster.take_agent("n1");
    assert_eq!(agent.ends(Duration::from_secs(5)), 4, "{}", agent.said());
    let mut again = cluster.agent_command("n1", &[]);
    let refused = Outcome::of(&mut again);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(cluster.rows("node").is_empty());
}

#[test]
fn what_stops_is_stale_then_unreachable_and_its_values_stay_and_age() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.row_becomes(("disk", "mount", "/"), Duration::from_secs(10), |row| row["state"] == "ok");
    cluster.agent("n1").signal(Signal::STOP);
    cluster.node_becomes("n1", "stale");
    cluster.node_becomes("n1", "unreachable");
    let row = cluster.row("disk", "mount", "/").unwrap();
    assert_eq!(row["state"], "unknown");
    assert!(row["total_bytes"].as_u64().is_some(), "the last value stays: {row}");
    let seen = cluster.row("node", "name", "n1").unwrap()["last_seen"].clone();
    cluster.agent("n1").signal(Signal::CONT);
    let back = cluster.node_becomes("n1", "ready");
    assert_ne!(back["last_seen"], seen);
    cluster.row_becomes(("disk", "mount", "/"), Duration::from_secs(10), |row| row["state"] == "ok");
}

#[test]
fn a_killed_coordinator_forgets_nothing_and_its_agents_come_back() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    cluster.mainstay(&["node", "label", "n1", "rack=7"]).done();
    let tokens = cluster.rows("token").len();
    cluster.take_coordinator().kill();
    assert_eq!(cluster.mainstay(&["node", "ls"]).code, 3);
    cluster.start_coordinator();
    assert_eq!(cluster.rows("token").len(), tokens);
    let row = cluster.node_becomes("n1", "ready");
    assert_eq!(row["labels"]["rack"], "7");
}

#[test]
fn both_programs_tell_their_metrics() {
    let mut cluster = Cluster::found();
    let own = format!("127.0.0.1:{}", mainstay_tests::machine::free_port());
    cluster.add_agent("n1", &["--metrics", &own]);
    for (address, name) in
        [(&cluster.http, "mainstay_coordinator_nodes{state=\"ready\"} 1"), (&own, "mainstay_memory_total_bytes")]
    {
        let page = eventually("a page of metrics", Duration::from_secs(10), || {
            let page = mainstay_tests::shell::try_sh(&format!("curl -sf http://{address}/metrics")).stdout;
            holds(page.contains(name), || page.clone()).map(|()| page)
        });
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}

#[test]
fn the_units_are_what_systemd_takes() {
    if !mainstay_tests::machine::has(&[mainstay_tests::machine::Need::Tool("systemd-analyze")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for unit in ["mainstay-agent", "mainstay-coordinator"] {
        let text = fs::read_to_string(format!("{}/../deploy/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR")));
        // The programs are not installed where the tests run; everything else must fit as it is.
        let text = text.unwrap().replace(&format!("/usr/bin/{unit}"), "/bin/true");
        fs::write(folder.path().join(format!("{unit}.service")), text).unwrap();
        let told = sh(&format!("systemd-analyze verify {}/{unit}.service 2>&1", folder.path().display()));
        assert!(!told.contains(unit), "{told}");
    }
}
