//! The majority is lost for good: what is left goes on as a new generation, and what the one before still says is refused.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use mainstay_tests::{Daemon, Outcome, Program, Replicas, WebhookReceiver, eventually, wait::holds};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn the_last_replica_goes_on_and_the_others_join_anew() {
    let mut replicas = Replicas::found(3);
    let old_token = token(&replicas, "old");
    let agent = Agent::enrolled(&replicas, "n1");
    let mut running = agent.start();
    let enrolled = fs::read(agent.folder.join("agent.key")).unwrap();
    let known = replicas.mainstay(&["token", "ls", "-o", "json"]).rows().len();

    // While the others live there is nothing to restore.
    replicas.take("r3").stop();
    let refused = replicas.restore_in_place("r3", &[]).refused(5);
    assert!(refused.contains("not lost") && refused.contains("r1 at"), "{refused}");
    for id in ["r1", "r2"] {
        replicas.take(id).kill();
    }
    fs::remove_dir_all(&replicas.member("r1").data).unwrap();

    let seen = replicas.restore_in_place("r3", &["--dry-run"]).done();
    assert!(seen.contains("last term") && seen.contains("last index") && seen.contains("generation 1"), "{seen}");
    let told = replicas.restore_in_place("r3", &[]).done();
    assert!(told.contains("generation 2: replica r104") && told.contains("may be forgotten"), "{told}");
    assert!(replicas.member("r104").data.join("before-restore-2/log/identity").exists());
    replicas.start("r104");
    writes_go_on(&replicas);
    let rows = replicas.status();
    assert_eq!((rows.len(), &rows[0]["generation"]), (1, &2.into()), "{rows:?}");
    assert_eq!(replicas.mainstay(&["token", "ls", "-o", "json"]).rows().len(), known + 1, "nothing is forgotten");
    let audit = replicas.mainstay(&["audit", "-o", "json"]).rows();
    assert!(audit.iter().any(|row| row["action"] == "cluster restore"), "{audit:?}");
    assert!(audit.iter().any(|row| row["action"] == "token redeem"), "the trail of before is there: {audit:?}");

    // The agent comes back with what it had.
    node_is(&replicas, "n1", "ready");
    assert!(running.ended().is_none());
    assert_eq!(fs::read(agent.folder.join("agent.key")).unwrap(), enrolled);
    let refused = Outcome::of(&mut agent.enroll(&replicas, &replicas.folder().join("n9"), "n9", &old_token)).refused(4);
    assert!(refused.contains("revoked"), "{refused}");

    // Who was wiped has nothing to come back with, and who was not is told so.
    let mut run = Program::Coordinator.command();
    run.arg("run").arg("--data-dir").arg(&replicas.member("r1").data);
    let refused = Outcome::of(&mut run).refused(5);
    assert!(refused.contains("missing"), "{refused}");
    replicas.begin("r2");
    assert_eq!(replicas.daemon("r2").ends(SOON), 4, "{}", replicas.daemon("r2").said());
    let said = replicas.daemon("r2").said();
    assert!(said.contains("restored as generation 2, without r2") && said.contains("join"), "{said}");

    for gone in ["r1", "r2"] {
        replicas.forget(gone);
    }
    assert_eq!((replicas.add(), replicas.add()), ("r105".into(), "r106".into()));
    replicas.settle();
    replicas.mainstay(&["cluster", "transfer", "r106"]).done();
    assert_eq!(replicas.leader(), "r106");
    replicas.take("r104").kill();
    writes_go_on(&replicas);
    assert!(replicas.status().iter().all(|row| row["generation"] == 2));
}

#[test]
fn a_backup_brings_the_cluster_back_and_who_came_later_waits() {
    let mut replicas = Replicas::found(1);
    let early = Agent::enrolled(&replicas, "early");
    let _early = early.start();
    let (file, key) = (replicas.folder().join("lab.backup"), replicas.folder().join("recovery.key"));
    let words = ["cluster", "backup", text(&file), "--new-recovery-key", text(&key), "-o", "json"];
    let made = replicas.mainstay(&words);
    assert!(made.stderr.contains("holds cluster lab"), "it says loudly what it is: {}", made.stderr);
    let made = made.json();
    assert_eq!((&made["cluster"], &made["generation"], &made["sealed"]), (&"lab".into(), &1.into(), &true.into()));
    for private in [&file, &key] {
        assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(made["bytes"], fs::metadata(&file).unwrap().len());
    let again = ["cluster", "backup", text(&file), "--recovery-key-file", text(&key)];
    assert!(replicas.mainstay(&again).refused(5).contains("exists already"));
    replicas.mainstay(&[&again[..], &["--force"]].concat()).done();
    assert!(replicas.mainstay(&["status"]).done().contains("backup "), "when the last one was taken");
    let audit = replicas.mainstay(&["audit", "-o", "json"]).rows();
    let backups = audit.iter().filter(|row| row["action"] == "cluster backup" && row["actor"] == "admin/admin");
    assert_eq!(backups.count(), 2, "{audit:?}");
    let viewer = replicas.folder().join("vera.context");
    replicas.mainstay(&["user", "add", "vera", "--role", "operator", "--out", text(&viewer)]).done();
    let mut as_vera = Program::Mainstay.command();
    as_vera.env("MAINSTAY_HOME", replicas.folder().join("vera")).arg("--context").arg(&viewer);
    Outcome::of(as_vera.args(["cluster", "backup", text(&replicas.folder().join("hers"))])).refused(4);
    assert!(!replicas.folder().join("hers").exists());

    // Through a pipe it is the same.
    let piped = replicas.folder().join("piped.backup");
    let mut pipe = replicas.command(&["cluster", "backup", "-"]);
    assert!(pipe.stdout(fs::File::create(&piped).unwrap()).status().unwrap().success());
    let mut look = Program::Coordinator.command();
    look.arg("restore").arg("--data-dir").arg(replicas.folder().join("nowhere")).arg("--from").arg(&piped);
    let seen = Outcome::of(look.arg("--dry-run")).done();
    assert!(seen.contains("cluster         lab, generation 1") && seen.contains("r1 at"), "{seen}");
    assert!(!replicas.folder().join("nowhere").exists(), "a look changes nothing");

    let late = Agent::enrolled(&replicas, "late");
    let mut running = late.start();
    replicas.take("r1").kill();
    assert!(replicas.restore_from(&file, "r1", &[]).refused(2).contains("recovery key"));
    let other = replicas.folder().join("other.key");
    fs::write(&other, format!("mainstay-recovery-{}", "ab".repeat(32))).unwrap();
    assert!(replicas.restore_from(&file, "r1", &["--recovery-key-file", text(&other)]).refused(4).contains("another"));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let refused = replicas.restore_from(&file, "r1", &["--recovery-key-file", text(&key)]).refused(1);
    assert!(refused.contains("lab.backup") && refused.contains("at byte"), "{refused}");
    fs::write(&file, whole).unwrap();
    let told = replicas.restore_from(&file, "r1", &["--recovery-key-file", text(&key)]).done();
    assert!(told.contains("generation 2: replica r102"), "{told}");
    replicas.start("r102");
    writes_go_on(&replicas);
    node_is(&replicas, "early", "ready");

    // It is not removed: it waits, until somebody enrolls it again.
    running.says("not known here yet", SOON);
    assert!(running.ended().is_none());
    let rows = replicas.mainstay(&["node", "ls", "-o", "json"]).rows();
    assert!(rows.iter().all(|row| row["name"] != "late"), "{rows:?}");
    running.stop();
    let fresh = token(&replicas, "fresh");
    Outcome::of(&mut late.enroll(&replicas, &late.folder, "late", &fresh)).done();
    let _late = late.start();
    node_is(&replicas, "late", "ready");
}

#[test]
fn agents_follow_the_higher_generation_also_while_the_lower_one_leads() {
    let mut replicas = Replicas::found(3);
    let agent = Agent::enrolled(&replicas, "n1");
    let running = agent.start();
    let old = replicas.member("r1").listen.clone();
    replicas.take("r3").stop();
    let peers = replicas.hide_from_peers("r3");
    replicas.restore_in_place("r3", &["--force", "--peer-advertise", &peers]).done();
    replicas.start("r104");
    let new = replicas.member("r104").listen.clone();
    let state = |address: &str| {
        let listed = replicas.mainstay(&["node", "ls", "-o", "json", "--coordinator", address]);
        if listed.code != 0 {
            return Err(listed.stderr);
        }
        let rows = listed.rows();
        let row = rows.iter().find(|row| row["name"] == "n1");
        Ok(row.map_or_else(String::new, |row| row["state"].as_str().unwrap_or_default().to_owned()))
    };
    let becomes = |address: &str, wanted: &[&str]| {
        eventually(&format!("n1 is {wanted:?} at {address}"), SOON, || {
            let state = state(address)?;
            holds(wanted.contains(&state.as_str()), || state.clone())
        });
    };
    becomes(&new, &["ready"]);
    becomes(&old, &["stale", "unreachable"]);
    // A restart remembers it, and asks nobody of before.
    running.stop();
    let _running = agent.start();
    becomes(&new, &["ready"]);
    let enrolment = fs::read_to_string(agent.folder.join("enrolment.toml")).unwrap();
    assert!(enrolment.contains("generation = 2") && enrolment.contains(&new), "{enrolment}");
    becomes(&old, &["stale", "unreachable"]);
}

#[test]
fn what_was_delivered_since_the_backup_comes_again_under_its_own_id() {
    let receiver = WebhookReceiver::start();
    receiver.answers("503 Service Unavailable");
    let mut replicas = Replicas::found(1);
    let _agent = Agent::enrolled(&replicas, "n1").start();
    let (declared, url) = (replicas.folder().join("ops.toml"), receiver.url());
    // Every disk is fuller than that.
    let words = format!(
        "[[receiver]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"{url}\"\nallow_private_address = true\n\
         [[rule]]\nname = \"fs.space\"\nmatch = {{ mount = \"/\" }}\nwarning = \"99.9%\"\ncritical = \"0.01%\"\nhold = \"1s\"\n"
    );
    fs::write(&declared, words).unwrap();
    replicas.mainstay(&["apply", "-f", text(&declared)]).done();
    replicas.daemon("r1").says("not delivered yet", SOON);
    let file = replicas.folder().join("lab.backup");
    replicas.mainstay(&["cluster", "backup", text(&file)]).done();
    receiver.answers("204 No Content");
    let delivered = |count: usize| {
        eventually(&format!("{count} arrive"), Duration::from_secs(60), || {
            let all: usize = receiver.counts().values().sum();
            holds(all == count, || format!("{:?}", receiver.counts()))
        });
    };
    delivered(1);
    replicas.take("r1").kill();
    replicas.restore_from(&file, "r1", &[]).done();
    replicas.start("r102");
    delivered(2);
    assert_eq!(receiver.counts().len(), 1, "one id, so a receiver can tell: {:?}", receiver.counts());
}

#[test]
fn a_restore_that_is_killed_is_completed_or_was_none() {
    for point in ["restore-not-decided", "restore-decided", "restore-step:1", "restore-step:6", "restore-step:9"] {
        let mut replicas = Replicas::found(1);
        replicas.take("r1").kill();
        let data = replicas.member("r1").data.clone();
        let mut killed = Program::Coordinator.command();
        killed
            .env("MAINSTAY_FAILPOINT", point)
            .arg("restore")
            .arg("--data-dir")
            .arg(&data)
            .arg("--from-replica")
            .arg(&data);
        assert_eq!(Outcome::of(&mut killed).code, 128 + 9, "{point}");
        if point == "restore-not-decided" {
            replicas.start("r1");
            writes_go_on(&replicas);
            replicas.take("r1").stop();
        } else {
            let mut run = Program::Coordinator.command();
            let refused = Outcome::of(run.arg("run").arg("--data-dir").arg(&data)).refused(5);
            assert!(refused.contains("interrupted") && refused.contains("again"), "{refused}");
        }
        let told = replicas.restore_in_place("r1", &[]).done();
        assert!(told.contains("generation 2: replica r102"), "{point}: {told}");
        replicas.start("r102");
        writes_go_on(&replicas);
        assert_eq!(replicas.status()[0]["generation"], 2, "{point}");
    }
}

/// A node's agent, and where it keeps what it is.
struct Agent {
    folder: PathBuf,
}

impl Agent {
    fn enrolled(replicas: &Replicas, name: &str) -> Self {
        let agent = Self { folder: replicas.folder().join(format!("agent-{name}")) };
        let token = token(replicas, name);
        Outcome::of(&mut agent.enroll(replicas, &agent.folder, name, &token)).done();
        agent
    }

    fn enroll(&self, replicas: &Replicas, folder: &Path, name: &str, token: &Path) -> Command {
        let mut enroll = Program::Agent.command();
        enroll.arg("enroll").arg("--data-dir").arg(folder).arg("--token-file").arg(token);
        let leader = replicas.status().into_iter().find(|row| row["role"] == "leader").unwrap();
        enroll.args(["--coordinator", leader["address"].as_str().unwrap(), "--name", name]);
        enroll
    }

    fn start(&self) -> Daemon {
        let mut run = Program::Agent.command();
        run.arg("run").arg("--data-dir").arg(&self.folder);
        let mut agent =
            Daemon::start("agent", run.args(["--interval", "1s", "--docker-socket", "/nonexistent/engine"]));
        agent.is_ready();
        agent
    }
}

fn token(replicas: &Replicas, name: &str) -> PathBuf {
    let file = replicas.folder().join(format!("{name}.token"));
    fs::write(&file, replicas.mainstay(&["token", "create"]).done()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

fn writes_go_on(replicas: &Replicas) {
    println!("a write is answered again after {:?}", replicas.until_written());
}

fn node_is(replicas: &Replicas, name: &str, state: &str) {
    eventually(&format!("{name} is {state}"), SOON, || {
        let listed = replicas.mainstay(&["node", "ls", "-o", "json"]);
        if listed.code != 0 {
            return Err(listed.stderr);
        }
        let rows = listed.rows();
        holds(rows.iter().any(|row| row["name"] == name && row["state"] == state), || format!("{rows:?}"))
    });
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
