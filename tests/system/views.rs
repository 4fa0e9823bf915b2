//! What each replica tells of itself: its own view and how old it is, its metrics, and root's way in on its machine.

use std::time::Duration;

use mainstay_tests::{Outcome, Program, Replicas, eventually, metrics, wait::holds};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// What `--stale -o json` says on standard error.
fn staleness(told: &Outcome) -> Value {
    assert_eq!(told.code, 0, "{}", told.stderr);
    let line = told.stderr.lines().last().unwrap_or_else(|| panic!("nothing was said of the answer's age"));
    let said: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    said["stale"].clone()
}

#[test]
fn a_replicas_own_view_says_how_old_it_is() {
    let mut replicas = Replicas::found(3);
    let leader = replicas.leader();
    let follower = replicas.ids().into_iter().find(|id| *id != leader).unwrap();
    let address = replicas.member(&follower).listen.clone();
    let look = |replicas: &Replicas, words: &[&str]| {
        replicas.mainstay(&[words, &["--stale", "--coordinator", &address]].concat())
    };
    for words in [&["token", "ls"][..], &["status"], &["cluster", "status"]] {
        let told = look(&replicas, words);
        let begins = format!("stale: as {follower} knows it, up to entry ");
        assert!(told.stderr.contains(&begins) && told.stderr.contains("last heard from the leader"), "{}", told.stderr);
        let age = staleness(&look(&replicas, &[words, &["-o", "json"]].concat()));
        assert_eq!(age["replica"], *follower);
        assert!(age["applied_index"].as_u64().unwrap() > 1 && age["age_ms"].as_u64().unwrap() < 2_000, "{age}");
    }
    let fresh = replicas.mainstay(&["token", "ls", "-o", "json"]);
    assert!(!fresh.stderr.contains("stale"), "{}", fresh.stderr);
    for id in replicas.ids().into_iter().filter(|id| *id != follower) {
        replicas.take(&id).kill();
    }
    eventually("its view grows old", PATIENCE, || {
        let age = staleness(&look(&replicas, &["node", "ls", "-o", "json"]));
        holds(age["age_ms"].as_u64().unwrap() > 2_000, || age.to_string())
    });
}

#[test]
fn the_audit_says_through_which_replica() {
    let replicas = Replicas::found(3);
    replicas.mainstay(&["token", "create"]).done();
    let leader = replicas.leader();
    let rows = replicas.mainstay(&["audit", "-o", "json"]).rows();
    let made = rows.iter().rfind(|row| row["action"] == "token create").unwrap();
    assert_eq!(made["through"], *leader, "{made}");
    assert!(replicas.mainstay(&["audit", "-o", "wide"]).done().contains("THROUGH"));
}

#[test]
fn root_on_any_replicas_machine_gets_a_context_while_anybody_decides() {
    let mut replicas = Replicas::found(3);
    let leader = replicas.leader();
    let follower = replicas.ids().into_iter().find(|id| *id != leader).unwrap();
    let folder = replicas.member(&follower).data.clone();
    let file = replicas.folder().join("fresh.context");
    let ask = || {
        let mut admin = Program::Coordinator.command();
        Outcome::of(admin.arg("admin").arg("--data-dir").arg(&folder).arg("--out").arg(&file))
    };
    ask().done();
    let mut command = Program::Mainstay.command();
    command.env("MAINSTAY_HOME", replicas.folder().join("fresh")).arg("--context").arg(&file);
    Outcome::of(command.args(["token", "create"])).done();
    let mut old = replicas.command(&["token", "create"]);
    assert_eq!(Outcome::of(&mut old).code, 4, "the name is the new key's");
    for id in replicas.ids().into_iter().filter(|id| *id != follower) {
        replicas.take(&id).kill();
    }
    let refused = ask().refused(3);
    assert!(refused.contains("on the other replicas' machines"), "{refused}");
}

#[test]
fn replicas_tell_how_they_stand_in_metrics() {
    let mut replicas = Replicas::found(3);
    replicas.mainstay(&["token", "create"]).done();
    let leader = replicas.leader();
    for id in replicas.ids() {
        let (http, is_leader) = (replicas.member(&id).http.clone(), id == leader);
        eventually(&format!("{id} tells how it stands"), PATIENCE, || {
            let text = metrics::page(&http);
            let value = |series: &str| {
                let line =
                    text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
                line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            };
            let of = |name: &str| value(&format!("mainstay_coordinator_{name}"));
            let others: Vec<_> = replicas.ids().into_iter().filter(|other| *other != id).collect();
            let lags = others.iter().map(|peer| of(&format!("raft_lag_entries{{peer=\"{peer}\"}}")));
            let is_well = of(&format!("raft_role{{state=\"{}\"}}", if is_leader { "leader" } else { "follower" }))
                == Some(1.0)
                && of("raft_term").is_some_and(|term| term > 1.0)
                && of("raft_committed_index") == of("raft_applied_index")
                && lags.clone().all(|lag| lag == is_leader.then_some(0.0))
                && of("raft_leader_heard_seconds").is_some_and(|age| age < 5.0)
                && (!is_leader || of("proposals_total{outcome=\"committed\"}").is_some_and(|count| count > 0.0))
                && of("raft_leader_changes_total").is_some_and(|count| count > 0.0)
                && of("log_bytes").is_some_and(|bytes| bytes >= 4_194_304.0)
                && of("log_writes_total").is_some_and(|count| count > 0.0)
                && of("log_write_seconds_total") >= of("log_slowest_write_seconds")
                && of("checkpoint_index").is_some_and(|index| index >= 1.0)
                && of("checkpoint_bytes").is_some_and(|bytes| bytes > 0.0);
            holds(is_well, || text.lines().filter(|line| line.contains("coordinator_")).collect::<Vec<_>>().join("\n"))
        });
    }
}
