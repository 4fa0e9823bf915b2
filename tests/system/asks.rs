//! Requests that have a name: whoever does not know what came of one asks again, and it is done once.

use std::{fs, path::Path, time::Duration};

use mainstay_common::token::JoinToken;
use mainstay_tests::{Outcome, Program, Replicas, eventually};
use rustix::process::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// A replica leads that ends at this point of its life.
fn leads_until(replicas: &mut Replicas, point: &str) -> String {
    let leader = replicas.leader();
    let id = replicas.ids().into_iter().find(|id| *id != leader).unwrap();
    replicas.take(&id).stop();
    replicas.begin_with(&id, &[("MAINSTAY_FAILPOINT", point)]);
    replicas.daemon(&id).is_ready();
    replicas.settle();
    replicas.mainstay(&["cluster", "transfer", &id]).done();
    assert_eq!(replicas.leader(), id);
    id
}

/// It died as it had to, and lives again.
fn died(replicas: &mut Replicas, id: &str) {
    assert_eq!(replicas.daemon(id).ends(PATIENCE), 128 + Signal::KILL.as_raw(), "{}", replicas.daemon(id).said());
    replicas.start(id);
    replicas.settle();
}

fn listed(replicas: &Replicas, words: &[&str]) -> Vec<Value> {
    eventually(&format!("{words:?}"), PATIENCE, || {
        let listed = replicas.mainstay(&[words, &["-o", "json"]].concat());
        if listed.code == 0 { Ok(listed.rows()) } else { Err(listed.stderr) }
    })
}

/// What the audit has of one verb: object and detail, which ends with the request's name.
fn decided(replicas: &Replicas, action: &str) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = listed(replicas, &["audit"]);
    let of_it = rows.iter().filter(|row| row["action"] == action);
    of_it.map(|row| (text(row, "object"), text(row, "detail"))).collect()
}

#[test]
fn the_leader_dies_in_the_middle_of_a_write_and_it_is_done_once() {
    let mut replicas = Replicas::found(3);
    for point in ["log-written", "proposal-applied"] {
        let before = listed(&replicas, &["token", "ls"]).len();
        let id = leads_until(&mut replicas, point);
        let told = replicas.mainstay(&["token", "create"]).done();
        died(&mut replicas, &id);
        let token: JoinToken = told.trim().parse().unwrap_or_else(|error| panic!("{point}: {told}: {error}"));
        let tokens = listed(&replicas, &["token", "ls"]);
        assert_eq!(tokens.len(), before + 1, "{point}: {tokens:?}");
        assert!(tokens.iter().any(|row| row["id"] == token.id.as_str() && row["state"] == "active"), "{tokens:?}");
        let asked = decided(&replicas, "token create").into_iter().filter(|(object, _)| object == token.id.as_str());
        let asked: Vec<_> = asked.map(|(_, detail)| detail).collect();
        if point == "proposal-applied" {
            // The first was decided before anybody died: the second is the same request.
            let name = |detail: &String| detail.split_once("(request ").map(|(_, name)| name.to_owned());
            let [Some(first), Some(second)] = &asked.iter().map(name).collect::<Vec<_>>()[..] else {
                panic!("{asked:?}")
            };
            assert_eq!(first, second);
        }
        let text = data_encoding::BASE32_NOPAD.encode(&token.secret.0);
        for secret in [&token.secret.0[..], text.as_bytes()] {
            assert_eq!(files_with(replicas.folder(), secret), Vec::<String>::new(), "a secret was kept");
        }
    }
}

#[test]
fn a_person_who_was_added_by_a_leader_that_died_gets_a_context_that_counts() {
    let mut replicas = Replicas::found(3);
    let id = leads_until(&mut replicas, "proposal-applied");
    let file = replicas.folder().join("eve.context");
    replicas.mainstay(&["user", "add", "eve", "--role", "viewer", "--out", file.to_str().unwrap()]).done();
    died(&mut replicas, &id);
    assert_eq!(decided(&replicas, "user add").iter().filter(|(object, _)| object == "eve").count(), 2);
    let mut command = Program::Mainstay.command();
    command.env("MAINSTAY_HOME", replicas.folder().join("eve")).arg("--context").arg(&file);
    Outcome::of(command.arg("status")).done();
}

#[test]
fn a_name_is_for_one_request() {
    let replicas = Replicas::found(1);
    let make = || replicas.mainstay(&["token", "create", "-o", "json"]).json()["id"].as_str().unwrap().to_owned();
    let (first, second) = (make(), make());
    replicas.mainstay(&["token", "revoke", &first, "--request", "q1"]).done();
    replicas.mainstay(&["token", "revoke", &first, "--request", "q1"]).done();
    let refused = replicas.mainstay(&["token", "revoke", &second, "--request", "q1"]).refused(5);
    assert!(refused.contains("was used for another command"), "{refused}");
    // The secret would be another one.
    replicas.mainstay(&["token", "create", "--request", "q2"]).done();
    replicas.mainstay(&["token", "create", "--request", "q2"]).refused(5);
    let file = replicas.folder().join("rules.toml");
    fs::write(&file, "[[rule]]\nname = \"fs.space\"\nhold = \"10m\"\n").unwrap();
    for told in ["0 removed", "nothing to change"] {
        let applied = replicas.mainstay(&["apply", "-f", file.to_str().unwrap(), "--request", "q3"]).done();
        assert!(applied.contains(told), "{applied}");
    }
    let tokens = listed(&replicas, &["token", "ls"]);
    assert!(tokens.iter().any(|row| row["id"] == *second && row["state"] == "active"), "{tokens:?}");
    assert_eq!(tokens.len(), 3);
}

#[test]
fn what_nobody_can_tell_is_told_as_that_and_asked_for_again_by_name() {
    let mut replicas = Replicas::found(3);
    let file = replicas.folder().join("eve.context");
    replicas.mainstay(&["user", "add", "eve", "--role", "viewer", "--out", file.to_str().unwrap()]).done();
    let leader = replicas.leader();
    let others: Vec<String> = replicas.ids().into_iter().filter(|id| *id != leader).collect();
    for id in &others {
        replicas.daemon(id).signal(Signal::STOP);
    }
    // The leader has it in its log, and loses the others.
    let address = replicas.member(&leader).listen.clone();
    let told = replicas.mainstay(&["user", "revoke", "eve", "--yes", "--coordinator", &address]).refused(6);
    for id in &others {
        replicas.daemon(id).signal(Signal::CONT);
    }
    let mut words = told.split_whitespace().skip_while(|word| *word != "--request");
    let name = words.nth(1).unwrap_or_else(|| panic!("no name to ask again by: {told}")).to_owned();
    replicas.settle();
    replicas.mainstay(&["user", "revoke", "eve", "--yes", "--request", &name]).done();
    let done: Vec<_> = decided(&replicas, "user revoke");
    assert!(!done.is_empty() && done.iter().all(|(_, detail)| detail.contains(&name)), "{done:?}");
}

/// Files below a folder that hold these bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path).is_ok_and(|read| read.windows(bytes.len()).any(|window| window == bytes)) {
            found.push(path.display().to_string());
        }
    }
    found
}
