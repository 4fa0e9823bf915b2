//! A cluster as an operator sets it up: separate processes, and the command line beside them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Daemon, Outcome, Program, eventually, machine::free_port};

/// Time between samples in stories.
pub const INTERVAL: &str = "1s";

/// One coordinator and its agents, all on loopback; everything ends with this value.
#[derive(Debug)]
pub struct Cluster {
    agents: BTreeMap<String, Daemon>,
    coordinator: Option<Daemon>,
    /// Where it serves agents and operators.
    pub listen: String,
    /// Where it serves other replicas.
    pub peers: String,
    /// Where it serves `/metrics`.
    pub http: String,
    /// The coordinator's data directory.
    data: PathBuf,
    folder: TempDir,
}

impl Cluster {
    /// `init` and `run`.
    ///
    /// # Panics
    /// Where either fails.
    #[must_use]
    pub fn found() -> Self {
        let folder = tempfile::Builder::new().prefix("mainstay-").tempdir().unwrap_or_else(|e| panic!("{e}"));
        let data = folder.path().join("coordinator");
        Self::found_in(folder, data)
    }

    /// The same with the coordinator's data elsewhere.
    ///
    /// # Panics
    /// Where either fails.
    #[must_use]
    pub fn found_on(data: PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("mainstay-").tempdir().unwrap_or_else(|e| panic!("{e}"));
        Self::found_in(folder, data)
    }

    fn found_in(folder: TempDir, data: PathBuf) -> Self {
        let address = || format!("127.0.0.1:{}", free_port());
        let mut cluster = Self {
            agents: BTreeMap::new(),
            coordinator: None,
            listen: address(),
            peers: address(),
            http: address(),
            data,
            folder,
        };
        let data = cluster.coordinator_folder();
        let mut init = Program::Coordinator.command();
        init.arg("init").arg("--data-dir").arg(&data).args(["--cluster", "lab", "--advertise", &cluster.listen]);
        init.args(["--peer-advertise", &cluster.peers]);
        let told = Outcome::of(&mut init).done();
        assert!(told.contains("fingerprint"), "{told}");
        cluster.start_coordinator();
        cluster
    }

    /// A place for whatever belongs to the story.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The coordinator's data directory.
    #[must_use]
    pub fn coordinator_folder(&self) -> PathBuf {
        self.data.clone()
    }

    /// An agent's data directory.
    #[must_use]
    pub fn agent_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("agents").join(name)
    }

    /// `mainstay-coordinator run`, not started yet.
    #[must_use]
    pub fn coordinator_command(&self) -> Command {
        let mut run = Program::Coordinator.command();
        run.arg("run").arg("--data-dir").arg(self.coordinator_folder());
        run.args(["--listen", &self.listen, "--peer-listen", &self.peers, "--http", &self.http]);
        run
    }

    /// Starts the coordinator and waits until it serves.
    ///
    /// # Panics
    /// Where it does not.
    pub fn start_coordinator(&mut self) {
        let mut daemon = Daemon::start("coordinator", &mut self.coordinator_command());
        daemon.is_ready();
        self.coordinator = Some(daemon);
    }

    /// Starts the coordinator again, to be killed by itself at that point (see `MAINSTAY_FAILPOINT`).
    ///
    /// # Panics
    /// Where it does not serve before.
    pub fn restart_coordinator_to_die_at(&mut self, point: &str) {
        self.take_coordinator().stop();
        let mut command = self.coordinator_command();
        let mut daemon = Daemon::start("coordinator", command.env("MAINSTAY_FAILPOINT", point));
        daemon.is_ready();
        self.coordinator = Some(daemon);
    }

    /// Starts the coordinator again if it was killed; true where it was.
    ///
    /// # Panics
    /// Where it ended in another way.
    pub fn revive_coordinator(&mut self) -> bool {
        let Some(code) = self.coordinator().ended() else { return false };
        assert_eq!(code, 128 + 9, "the coordinator ended by itself: {}", self.coordinator().said());
        self.start_coordinator();
        true
    }

    /// Takes the coordinator out, to stop or to kill it.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn take_coordinator(&mut self) -> Daemon {
        self.coordinator.take().unwrap_or_else(|| panic!("the coordinator does not run"))
    }

    /// The running coordinator.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn coordinator(&mut self) -> &mut Daemon {
        self.coordinator.as_mut().unwrap_or_else(|| panic!("the coordinator does not run"))
    }

    /// A join token in a file that only its owner may read.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn token_file(&self, name: &str) -> PathBuf {
        let token = self.mainstay(&["token", "create"]).done();
        let file = self.folder.path().join(format!("{name}.token"));
        fs::write(&file, token).unwrap_or_else(|error| panic!("{error}"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&file, mode).unwrap_or_else(|error| panic!("{error}"));
        file
    }

    /// Enrols a machine under that name.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn enroll(&self, name: &str) {
        let token = self.token_file(name);
        let mut enroll = Program::Agent.command();
        enroll.arg("enroll").arg("--data-dir").arg(self.agent_folder(name)).arg("--token-file").arg(token);
        enroll.args(["--coordinator", &self.listen, "--name", name]);
        let told = Outcome::of(&mut enroll).done();
        assert!(told.contains(name), "{told}");
    }

    /// `mainstay-agent run`, not started yet: no engine unless a flag names one.
    #[must_use]
    pub fn agent_command(&self, name: &str, flags: &[&str]) -> Command {
        let mut run = Program::Agent.command();
        run.arg("run").arg("--data-dir").arg(self.agent_folder(name)).args(["--interval", INTERVAL]);
        if !flags.contains(&"--docker-socket") {
            run.arg("--docker-socket").arg(self.folder.path().join("no-engine.sock"));
        }
        run.args(flags);
        run
    }

    /// Starts an enrolled agent and waits until its first session stands.
    ///
    /// # Panics
    /// Where it does not.
    pub fn start_agent(&mut self, name: &str, flags: &[&str]) {
        let mut daemon = Daemon::start(&format!("agent {name}"), &mut self.agent_command(name, flags));
        daemon.is_ready();
        self.agents.insert(name.to_owned(), daemon);
    }

    /// Enrols and starts an agent, and waits until its first sample is visible.
    ///
    /// # Panics
    /// Where any of it fails.
    pub fn add_agent(&mut self, name: &str, flags: &[&str]) {
        self.enroll(name);
        self.start_agent(name, flags);
        self.node_becomes(name, "ready");
    }

    /// A running agent.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn agent(&mut self, name: &str) -> &mut Daemon {
        self.agents.get_mut(name).unwrap_or_else(|| panic!("agent {name} does not run"))
    }

    /// Sends a running agent a signal.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn agent_signal(&self, name: &str, signal: rustix::process::Signal) {
        let agent = self.agents.get(name).unwrap_or_else(|| panic!("agent {name} does not run"));
        agent.signal(signal);
    }

    /// Takes an agent out, to stop or to kill it.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn take_agent(&mut self, name: &str) -> Daemon {
        self.agents.remove(name).unwrap_or_else(|| panic!("agent {name} does not run"))
    }

    /// The command line with that context and a home of its own, not started yet.
    #[must_use]
    pub fn command_as(&self, context: &Path, words: &[&str]) -> Command {
        let mut command = Program::Mainstay.command();
        command.env("MAINSTAY_HOME", self.folder.path().join("home")).arg("--context").arg(context).args(words);
        command
    }

    /// The command line as the administrator.
    #[must_use]
    pub fn mainstay(&self, words: &[&str]) -> Outcome {
        let context = self.coordinator_folder().join("admin.context");
        Outcome::of(&mut self.command_as(&context, words))
    }

    /// The rows of `mainstay NOUN ls -o json`.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn rows(&self, noun: &str) -> Vec<Value> {
        self.mainstay(&[noun, "ls", "-o", "json"]).rows()
    }

    /// The row of a listing whose `key` is that, if there is one.
    #[must_use]
    pub fn row(&self, noun: &str, key: &str, value: &str) -> Option<Value> {
        self.rows(noun).into_iter().find(|row| row[key] == value)
    }

    /// Waits until a row is so; returns it.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn row_becomes(
        &self,
        (noun, key, value): (&str, &str, &str),
        limit: Duration,
        mut is: impl FnMut(&Value) -> bool,
    ) -> Value {
        eventually(&format!("{noun} {value}"), limit, || match self.row(noun, key, value) {
            Some(row) if is(&row) => Ok(row),
            Some(row) => Err(row.to_string()),
            None => Err(format!("no such row; {:?}", self.rows(noun))),
        })
    }

    /// Waits until a node is in that state; its row.
    ///
    /// # Panics
    /// When it is not in time.
    pub fn node_becomes(&self, name: &str, state: &str) -> Value {
        self.row_becomes(("node", "name", name), Duration::from_secs(30), |row| row["state"] == state)
    }
}
