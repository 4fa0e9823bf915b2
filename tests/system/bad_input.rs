//! What an operator may get wrong: each gets a clear error that names cause and next step, and nothing is lost.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use mainstay_tests::{
    Cluster, Daemon, Outcome, Program, eventually,
    machine::{Need, free_port, has},
    shell::sh,
    wait::holds,
};

#[test]
fn a_directory_in_use_or_of_another_kind_is_refused() {
    let mut cluster = Cluster::found();
    let in_use = Outcome::of(&mut cluster.coordinator_command()).refused(5);
    assert!(in_use.contains("in use"), "{in_use}");

    cluster.enroll("n1");
    let coordinator_there = serve(&cluster.agent_folder("n1"));
    assert!(coordinator_there.refused(5).contains("belongs to an agent"));
    drop(cluster.take_coordinator());
    let mut agent_there = Program::Agent.command();
    agent_there.arg("run").arg("--data-dir").arg(cluster.coordinator_folder());
    let refused = Outcome::of(&mut agent_there);
    assert!((1..=5).contains(&refused.code) && refused.stderr.contains("coordinator"), "{}", refused.stderr);
}

#[test]
fn init_never_replaces_a_cluster() {
    let cluster = Cluster::found();
    let before = fs::read(cluster.coordinator_folder().join("ca.crt")).unwrap();
    let mut cluster = cluster;
    drop(cluster.take_coordinator());
    let refused = init(&cluster.coordinator_folder()).refused(5);
    assert!(refused.contains("holds cluster lab already"), "{refused}");
    assert_eq!(fs::read(cluster.coordinator_folder().join("ca.crt")).unwrap(), before);
}

#[test]
fn a_missing_or_half_written_directory_says_what_lacks() {
    let mut cluster = Cluster::found();
    drop(cluster.take_coordinator());
    assert!(serve(&cluster.folder().join("nowhere")).stderr.contains("is missing"));
    for lost in ["log/identity", "log/checkpoint-00000000000000000001"] {
        let file = cluster.coordinator_folder().join(lost);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        let refused = serve(&cluster.coordinator_folder());
        assert!(
            refused.code != 0 && refused.stderr.contains(lost.trim_start_matches("log/")),
            "{lost}: {}",
            refused.stderr
        );
        fs::write(&file, whole).unwrap();
    }
    cluster.start_coordinator();
}

#[test]
fn an_unwritable_directory_is_refused() {
    if !has(&[Need::Root, Need::Tool("setpriv")]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    // Root may write everywhere: somebody else asks.
    let copy = folder.path().join("mainstay-coordinator");
    fs::copy(Program::Coordinator.path(), &copy).unwrap();
    let mut init = Command::new("setpriv");
    init.args(["--reuid", "65534", "--clear-groups"]).arg(&copy).arg("init").arg("--data-dir");
    init.arg(folder.path().join("data")).args(["--cluster", "lab", "--advertise", "127.0.0.1:1"]);
    let refused = Outcome::of(&mut init);
    assert!(refused.code != 0 && refused.stderr.contains("ermission denied"), "{}", refused.stderr);
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = Cluster::found();
    drop(cluster.take_coordinator());
    let taken = std::net::TcpListener::bind(&cluster.listen).unwrap();
    let refused = Outcome::of(&mut cluster.coordinator_command()).refused(5);
    assert!(refused.contains(&cluster.listen) && refused.contains("--listen"), "{refused}");
    drop(taken);
    cluster.start_coordinator();
}

#[test]
fn configuration_files_are_understood_or_named_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    for (program, text, says) in [
        (
            Program::Agent,
            "data-dir = \"/x\"\nintervall = \"10s\"\n",
            ":2: unknown key `intervall`\n  why: nearest: `interval`",
        ),
        (Program::Agent, "data-dir = 3\n", ":1: "),
        (Program::Agent, "interval = \"1 fortnight\"\n", "fortnight"),
        (
            Program::Coordinator,
            "listen = \"0.0.0.0:7443\"\nhtp = \"127.0.0.1:1\"\n",
            ":2: unknown key `htp`\n  why: nearest: `http`",
        ),
        (Program::Coordinator, "listen = \"somewhere\"\n", ":1: "),
        (Program::Coordinator, "listen = [", ":1: "),
    ] {
        fs::write(&file, text).unwrap();
        let refused = Outcome::of(program.command().arg("run").arg("--config").arg(&file)).refused(2);
        assert!(refused.contains(says), "{text}: {refused}");
    }
}

#[test]
fn a_full_disk_refuses_decisions_loses_none_and_takes_them_again() {
    if !has(&[Need::Root]) {
        return;
    }
    let folder = Mounted::tmpfs("80m");
    let data = folder.0.path().join("data");
    let address = format!("127.0.0.1:{}", free_port());
    let mut made = Program::Coordinator.command();
    made.arg("init").arg("--data-dir").arg(&data).args(["--cluster", "lab", "--advertise", &address]);
    let told = Outcome::of(&mut made).done();
    assert!(told.contains("fingerprint"), "{told}");
    let mut run = Program::Coordinator.command();
    run.arg("run").arg("--data-dir").arg(&data).args(["--listen", &address, "--http", "127.0.0.1:0"]);
    let mut daemon = Daemon::start("coordinator", &mut run);
    daemon.is_ready();
    let home = tempfile::tempdir().unwrap();
    let mainstay = |words: &[&str]| {
        let mut command = Program::Mainstay.command();
        command.env("MAINSTAY_HOME", home.path()).arg("--context").arg(data.join("admin.context"));
        Outcome::of(command.args(words))
    };
    let first = mainstay(&["token", "create", "-o", "json"]).json();
    let ballast = folder.0.path().join("ballast");
    let filled =
        Outcome::of(Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", ballast.display())));
    assert_ne!(filled.code, 0, "the disk is full now");
    let tokens = || mainstay(&["token", "ls", "-o", "json"]).rows().len();
    // What was made ready for the log beforehand takes some decisions yet; large ones use it up.
    let declarations = home.path().join("large.toml");
    let declare = |round: usize| {
        let one = |n: usize| {
            format!(
                "[[receiver]]\nname = \"r{n}\"\nkind = \"webhook\"\nurl = \"https://h.example/{round}{}\"\n",
                "x".repeat(900)
            )
        };
        fs::write(&declarations, (0..400).map(one).collect::<String>()).unwrap();
        mainstay(&["apply", "-f", declarations.to_str().unwrap()])
    };
    let refused = (0..40).map(declare).find(|outcome| outcome.code != 0).expect("a full disk refuses");
    assert!(refused.stderr.contains("disk is full"), "{}", refused.stderr);
    let refused = eventually("a decision is refused", Duration::from_secs(30), || {
        let asked = mainstay(&["token", "create"]);
        holds(asked.code != 0, || asked.stdout.clone()).map(|()| asked)
    });
    assert!(refused.stderr.contains("disk is full"), "{}", refused.stderr);
    let revoked = mainstay(&["token", "revoke", first["id"].as_str().unwrap()]);
    assert_eq!(revoked.code, 0, "what shuts somebody out is taken all the same: {}", revoked.stderr);
    let before = tokens();
    fs::remove_file(&ballast).unwrap();
    eventually("decisions are taken again", Duration::from_secs(30), || {
        let asked = mainstay(&["token", "create"]);
        holds(asked.code == 0, || asked.stderr.clone())
    });
    assert_eq!(tokens(), before + 1);
    daemon.kill();
    let mut daemon = Daemon::start("coordinator", &mut run);
    daemon.is_ready();
    assert_eq!(tokens(), before + 1, "everything answered is there after a kill");
}

#[test]
fn a_missing_engine_is_a_state_with_a_reason() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    let told = cluster.mainstay(&["container", "ls", "--node", "n1"]);
    assert!(told.clone().done().is_empty() || !told.stdout.contains(" 0 "), "{}", told.stdout);
    assert!(told.stderr.contains("unknown") && told.stderr.contains("there is no socket"), "{}", told.stderr);
    let no_engine = cluster.folder().join("refused.sock");
    drop(std::os::unix::net::UnixListener::bind(&no_engine).unwrap());
    cluster.take_agent("n1").stop();
    cluster.start_agent("n1", &["--docker-socket", no_engine.to_str().unwrap()]);
    eventually("the refusal is told", Duration::from_secs(20), || {
        let told = cluster.mainstay(&["container", "ls"]).stderr;
        holds(told.contains("refused"), || told.clone())
    });
}

fn init(data: &Path) -> Outcome {
    let mut init = Program::Coordinator.command();
    Outcome::of(init.arg("init").arg("--data-dir").arg(data).args(["--cluster", "lab", "--advertise", "127.0.0.1:1"]))
}

fn serve(data: &Path) -> Outcome {
    let mut run = Program::Coordinator.command();
    run.arg("run").arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    Outcome::of(&mut run)
}

/// A small filesystem that goes with this value.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn tmpfs(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sh(&format!("mount -t tmpfs -o size={size} tmpfs {}", folder.path().display())), "");
        Self(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        sh(&format!("umount -l {}", self.0.path().display()));
    }
}
