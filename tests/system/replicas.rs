//! Several replicas: what was decided survives the death of any of them, and of all.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use mainstay_tests::{
    Daemon, DiskLab, Outcome, Program, Replicas, WebhookReceiver, Writer, eventually, machine::has, wait::holds,
};

/// Ids of every token that is known.
fn tokens(replicas: &Replicas) -> BTreeSet<String> {
    let rows = eventually("tokens are listed", Duration::from_secs(20), || {
        let listed = replicas.mainstay(&["token", "ls", "-o", "json"]);
        if listed.code == 0 { Ok(listed.rows()) } else { Err(listed.stderr) }
    });
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn write(replicas: &Replicas) -> Outcome {
    replicas.mainstay(&["token", "create", "-o", "json"])
}

#[test]
fn what_was_answered_survives_the_leaders_death_and_everybodys() {
    let mut replicas = Replicas::found(3);
    let first = write(&replicas).json()["id"].as_str().unwrap().to_owned();
    let leader = replicas.leader();
    replicas.take(&leader).kill();
    println!("failover, until the command line is answered again: {:?}", replicas.until_written());
    assert_ne!(replicas.leader(), leader);
    let second = write(&replicas).json()["id"].as_str().unwrap().to_owned();
    replicas.start(&leader);
    replicas.settle();
    assert!(tokens(&replicas).is_superset(&[first.clone(), second.clone()].into()));

    for id in replicas.ids() {
        replicas.take(&id).kill();
    }
    for id in replicas.ids() {
        replicas.begin(&id);
    }
    for id in replicas.ids() {
        replicas.daemon(&id).is_ready();
    }
    replicas.settle();
    assert!(tokens(&replicas).is_superset(&[first, second].into()));
}

#[test]
fn a_rolling_restart_costs_no_write() {
    let mut replicas = Replicas::found(3);
    let done = AtomicBool::new(false);
    let observer = Observer::of(&replicas);
    let (written, failed) = thread::scope(|scope| {
        let writer = scope.spawn(|| observer.write_until(&done));
        for id in replicas.ids() {
            replicas.take(&id).stop();
            replicas.start(&id);
            replicas.settle();
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), failed.len() + written.len());
    assert!(tokens(&replicas).is_superset(&written.into_iter().collect()));
}

/// Enrols and starts the agent of n1.
fn start_agent(replicas: &Replicas) -> Daemon {
    let token = replicas.folder().join("agent.token");
    std::fs::write(&token, replicas.mainstay(&["token", "create"]).done()).unwrap();
    let folder = replicas.folder().join("agent");
    let mut enroll = Program::Agent.command();
    enroll.arg("enroll").arg("--data-dir").arg(&folder).arg("--token-file").arg(&token);
    Outcome::of(enroll.args(["--coordinator", &replicas.addresses()[0], "--name", "n1"])).done();
    let mut run = Program::Agent.command();
    run.arg("run").arg("--data-dir").arg(&folder).args(["--interval", "1s", "--docker-socket", "/nonexistent/engine"]);
    let mut agent = Daemon::start("agent", &mut run);
    agent.is_ready();
    agent
}

/// A second administrator, who only has the context.
struct Observer {
    context: std::path::PathBuf,
    home: std::path::PathBuf,
}

impl Observer {
    fn of(replicas: &Replicas) -> Self {
        let context = replicas.folder().join("second.context");
        std::fs::copy(replicas.context(), &context).unwrap();
        Self { context, home: replicas.folder().join("second") }
    }

    fn write_until(&self, done: &AtomicBool) -> (Vec<String>, Vec<String>) {
        let (mut written, mut failed) = (Vec::new(), Vec::new());
        while !done.load(Ordering::Relaxed) {
            let mut command = Program::Mainstay.command();
            command.env("MAINSTAY_HOME", &self.home).arg("--context").arg(&self.context);
            let made = Outcome::of(command.args(["token", "create", "-o", "json"]));
            if made.code == 0 {
                written.push(made.json()["id"].as_str().unwrap().to_owned());
            } else {
                failed.push(format!("exit code {}: {}", made.code, made.stderr));
            }
        }
        (written, failed)
    }
}

#[test]
fn replicas_are_added_and_removed_while_somebody_writes() {
    let mut replicas = Replicas::found(1);
    let done = AtomicBool::new(false);
    let observer = Observer::of(&replicas);
    let (written, failed) = thread::scope(|scope| {
        let writer = scope.spawn(|| observer.write_until(&done));
        assert_eq!(replicas.add(), "r2");
        replicas.settle();
        assert_eq!(replicas.add(), "r3");
        replicas.settle();
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(failed.is_empty(), "{failed:?}");
    assert!(tokens(&replicas).is_superset(&written.into_iter().collect()));

    // The leader goes: another one leads first, and does it.
    let leader = replicas.leader();
    replicas.mainstay(&["cluster", "remove", &leader, "--yes"]).done();
    let mut gone = replicas.take(&leader);
    assert_eq!(gone.ends(Duration::from_secs(20)), 4, "{}", gone.said());
    assert!(gone.said().contains("removed"), "{}", gone.said());
    // It says so again, however often it is started.
    replicas.begin(&leader);
    assert_eq!(replicas.daemon(&leader).ends(Duration::from_secs(20)), 4);
    replicas.forget(&leader);
    replicas.settle();
    let refused = replicas.mainstay(&["cluster", "remove", &leader, "--yes"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert_eq!(replicas.add(), "r4", "an id is never used again");
    replicas.settle();
}

#[test]
fn no_majority_is_given_up() {
    let mut replicas = Replicas::found(3);
    let leader = replicas.leader();
    let others: Vec<_> = replicas.ids().into_iter().filter(|id| *id != leader).collect();
    replicas.take(&others[0]).kill();
    eventually("the leader misses it", Duration::from_secs(10), || {
        let rows = replicas.status();
        holds(rows.iter().any(|row| row["replica"] == others[0] && row["healthy"] == false), || format!("{rows:?}"))
    });
    let refused = replicas.mainstay(&["cluster", "remove", &others[1], "--yes"]).refused(5);
    assert!(refused.contains("majority"), "{refused}");
    replicas.mainstay(&["cluster", "remove", &others[0], "--yes"]).done();
    replicas.forget(&others[0]);
    replicas.settle();
}

#[test]
fn any_replica_answers_and_the_command_line_finds_the_leader() {
    let mut replicas = Replicas::found(3);
    let leader = replicas.leader();
    let follower = replicas.ids().into_iter().find(|id| *id != leader).unwrap();
    let address = replicas.member(&follower).listen.clone();
    // Reads are those of the whole cluster, also from a follower.
    let made = write(&replicas).json()["id"].as_str().unwrap().to_owned();
    let listed = replicas.mainstay(&["token", "ls", "-o", "json", "--coordinator", &address]).rows();
    assert!(listed.iter().any(|row| row["id"] == *made), "{listed:?}");
    for _ in 0..5 {
        let made = write(&replicas).json()["id"].as_str().unwrap().to_owned();
        let audit = replicas.mainstay(&["audit", "-o", "json", "--coordinator", &address]).rows();
        assert!(audit.iter().any(|row| row["object"] == *made), "{made} is not in the follower's audit: {audit:?}");
    }
    let refused = replicas.mainstay(&["token", "create", "--coordinator", &address]).refused(5);
    assert!(refused.contains("does not lead") && refused.contains(&leader), "{refused}");
    let stale = replicas.mainstay(&["cluster", "status", "-o", "json", "--stale", "--coordinator", &address]).rows();
    assert_eq!(stale.len(), 3);
    // With a context that knows only a follower.
    let context = std::fs::read_to_string(replicas.context()).unwrap();
    let mut table: toml::Table = context.parse().unwrap();
    table.insert("addresses".into(), toml::Value::Array(vec![address.into()]));
    let only = replicas.folder().join("only.context");
    std::fs::write(&only, table.to_string()).unwrap();
    let mut command = Program::Mainstay.command();
    command.env("MAINSTAY_HOME", replicas.folder().join("home")).arg("--context").arg(&only);
    Outcome::of(command.args(["token", "create"])).done();

    replicas.mainstay(&["cluster", "transfer", &follower]).done();
    assert_eq!(replicas.leader(), follower);
}

#[test]
fn an_agent_speaks_to_every_replica_also_to_one_that_joins_later() {
    let mut replicas = Replicas::found(1);
    let _agent = start_agent(&replicas);
    replicas.add();
    replicas.add();
    replicas.settle();
    for address in replicas.addresses() {
        eventually(&format!("{address} sees n1"), Duration::from_secs(30), || {
            let words = ["node", "ls", "-o", "json", "--coordinator", &address];
            let rows = replicas.mainstay(&words).rows();
            holds(rows.iter().any(|row| row["name"] == "n1" && row["state"] == "ready"), || format!("{rows:?}"))
        });
    }
    let leader = replicas.leader();
    replicas.take(&leader).kill();
    eventually("the next leader has seen it all along", Duration::from_secs(20), || {
        let listed = replicas.mainstay(&["node", "ls", "-o", "json"]);
        if listed.code != 0 {
            return Err(listed.stderr);
        }
        let rows = listed.rows();
        holds(rows.iter().any(|row| row["name"] == "n1" && row["state"] == "ready"), || format!("{rows:?}"))
    });
}

#[test]
fn an_alert_is_told_once_whoever_leads() {
    if !has(&DiskLab::NEEDS) {
        return;
    }
    let lab = DiskLab::open();
    let disk = lab.tmpfs("full", 64);
    let receiver = WebhookReceiver::start();
    let mut replicas = Replicas::found(3);
    let _agent = start_agent(&replicas);
    let file = replicas.folder().join("alerts.toml");
    let (url, mount) = (receiver.url(), disk.at.display());
    let declared = format!(
        "[[receiver]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"{url}\"\nallow_private_address = true\n\
         [[rule]]\nname = \"fs.space\"\nmatch = {{ mount = \"{mount}\" }}\nwarning = \"50%\"\ncritical = \"20%\"\n\
         hold = \"2s\"\ncritical_hold = \"2s\"\nclear_margin = \"5%\"\nclear_hold = \"2s\"\n"
    );
    std::fs::write(&file, declared).unwrap();
    replicas.mainstay(&["apply", "-f", file.to_str().unwrap()]).done();
    let fill = |mib: usize| std::fs::write(disk.at.join("file"), vec![7; mib << 20]).unwrap();
    let mut told = Vec::new();
    for (mib, event) in [(40, "fired"), (4, "resolved"), (40, "fired"), (4, "resolved")] {
        let leader = replicas.leader();
        fill(mib);
        // It dies while the alert is on its way.
        eventually("the next message is on its way", Duration::from_secs(30), || {
            let alerts = replicas.mainstay(&["alert", "ls", "-o", "json"]);
            if alerts.code != 0 {
                return Err(alerts.stderr);
            }
            holds(event == "resolved" || !alerts.rows().is_empty(), || "no alert is open".into())
        });
        replicas.take(&leader).kill();
        told.push(event.to_owned());
        eventually(&format!("{told:?} arrive"), Duration::from_secs(60), || {
            let events = receiver.events();
            holds(events == told, || format!("{events:?}"))
        });
        replicas.start(&leader);
        replicas.settle();
    }
    assert!(receiver.counts().values().all(|count| *count == 1), "{:?}", receiver.counts());
}

#[test]
fn every_address_may_change_one_by_one() {
    let mut replicas = Replicas::found(3);
    let _agent = start_agent(&replicas);
    let before = replicas.addresses();
    for id in replicas.ids() {
        replicas.take(&id).stop();
        replicas.move_away(&id);
        replicas.start(&id);
        replicas.settle();
    }
    let now: BTreeSet<String> = replicas.addresses().into_iter().collect();
    assert!(before.iter().all(|address| !now.contains(address)));
    let listed = replicas.status().iter().map(|row| row["address"].as_str().unwrap().to_owned()).collect();
    assert_eq!(now, listed);
    for address in now {
        eventually(&format!("{address} sees n1"), Duration::from_secs(30), || {
            let rows = replicas.mainstay(&["node", "ls", "-o", "json", "--coordinator", &address]).rows();
            holds(rows.iter().any(|row| row["name"] == "n1" && row["state"] == "ready"), || format!("{rows:?}"))
        });
    }
}

#[test]
fn a_replica_that_was_away_for_long_is_sent_a_checkpoint() {
    let mut replicas = Replicas::found_with(|_| vec![("MAINSTAY_CHECKPOINT_ENTRIES", "100".into())], 3);
    let writer = Writer::start(&replicas);
    let leader = replicas.leader();
    let follower = replicas.others(&leader).remove(0);
    replicas.take(&follower).kill();
    // Whoever leads keeps two checkpoints, and what is behind the older one no more.
    writer.writes(300, Duration::from_secs(60));
    replicas.start(&follower);
    let daemon = replicas.daemon(&follower);
    daemon.says("a checkpoint from another replica is the state now", Duration::from_secs(30));
    replicas.settle();
    writer.goes_on(Duration::from_secs(30));
    writer.check(&replicas);
}

#[test]
fn a_sole_replica_of_a_version_that_knew_no_others_becomes_three() {
    // Killed with -9 after its administrator had added anna, and declared a receiver and a route.
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/old_data/sole_replica.tar.gz");
    let mut replicas = Replicas::found_on(archive.as_ref());
    replicas.add();
    replicas.add();
    replicas.settle();
    let writer = Writer::start(&replicas);
    let has_all = |replicas: &Replicas, address: &str| {
        let names = |noun| {
            let rows = replicas.mainstay(&[noun, "ls", "-o", "json", "--coordinator", address]).rows();
            rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        let (users, receivers) = (names("user"), names("receiver"));
        assert!(users.contains("anna") && receivers.contains("ops"), "{address}: {users:?} {receivers:?}");
    };
    for address in replicas.addresses() {
        has_all(&replicas, &address);
    }
    let first = replicas.member("r1").listen.clone();
    let audit = replicas.mainstay(&["audit", "--since", "87600h", "-o", "json", "--coordinator", &first]).rows();
    assert!(audit.iter().any(|row| row["action"] == "declaration apply"), "what was decided before is told: {audit:?}");
    replicas.take("r1").kill();
    writer.goes_on(Duration::from_secs(30));
    for id in ["r2", "r3"] {
        let address = replicas.member(id).listen.clone();
        has_all(&replicas, &address);
    }
    replicas.start("r1");
    replicas.settle();
    writer.check(&replicas);
}
