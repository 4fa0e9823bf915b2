//! A cluster of several replicas as an operator makes it: separate processes, killed and started as stories want.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Daemon, Outcome, Program, eventually,
    machine::free_port,
    networks::{Machine, Networks},
    wait::holds,
};

/// How long a change of who decides may take.
const SETTLING: Duration = Duration::from_secs(30);

/// One replica's process, and where it is.
#[derive(Debug)]
pub struct Member {
    daemon: Option<Daemon>,
    /// Its data directory.
    pub data: PathBuf,
    /// Where it serves agents and operators.
    pub listen: String,
    peers: String,
    /// Where it serves `/metrics`.
    pub http: String,
    /// Where it runs, if not here.
    machine: Option<Machine>,
    /// What it finds in its surroundings from its next start on.
    pub surroundings: BTreeMap<OsString, OsString>,
}

/// Replicas by id; everything ends with this value.
#[derive(Debug)]
pub struct Replicas {
    members: BTreeMap<String, Member>,
    folder: TempDir,
    surround: Surround,
    // Fields are dropped in their order: whoever runs on a machine goes before it.
    networks: Option<Networks>,
}

/// What a replica with that data directory finds in its surroundings.
pub type Surround = fn(&Path) -> Vec<(&'static str, OsString)>;

impl Replicas {
    /// All on loopback: the first by `init`, the others by `join`; all decide when this returns.
    ///
    /// # Panics
    /// Where any of it fails.
    #[must_use]
    pub fn found(count: usize) -> Self {
        Self::found_in(None, |_| Vec::new(), |_| (), count)
    }

    /// The same, each with surroundings of its own.
    ///
    /// # Panics
    /// As [`Self::found`].
    #[must_use]
    pub fn found_with(surround: Surround, count: usize) -> Self {
        Self::found_in(None, surround, |_| (), count)
    }

    /// Each on a machine of its own; the calling thread is on another one.
    ///
    /// # Panics
    /// As [`Self::found`].
    #[must_use]
    pub fn found_apart(count: usize) -> Self {
        Self::found_in(Some(Networks::enter()), |_| Vec::new(), |_| (), count)
    }

    /// One on loopback, on a data directory that another version left: an archive of it.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn found_on(archive: &Path) -> Self {
        let mut replicas = Self::none(None, |_| Vec::new());
        let first = replicas.place("first");
        let unpacked = fs::create_dir(&first.data).map(|()| {
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(archive).arg("-C").arg(&first.data);
            Outcome::of(&mut tar).done()
        });
        drop(unpacked.unwrap_or_else(|error| panic!("{error}")));
        replicas.members.insert("r1".into(), first);
        replicas.start("r1");
        // It notes where it is now, and root on its machine is an administrator.
        eventually("an administrator comes in", SETTLING, || {
            let (context, data) = (replicas.context(), &replicas.member("r1").data);
            let mut admin = Program::Coordinator.command();
            Outcome::of(admin.arg("admin").arg("--data-dir").arg(data).arg("--out").arg(context)).done();
            let told = replicas.mainstay(&["cluster", "status"]);
            holds(told.code == 0, || told.stderr)
        });
        replicas
    }

    fn none(networks: Option<Networks>, surround: Surround) -> Self {
        let mut folder = tempfile::Builder::new();
        let folder = folder.prefix("mainstay-");
        let folder = networks.as_ref().map_or_else(|| folder.tempdir(), |there| folder.tempdir_in(there.folder()));
        let folder = folder.unwrap_or_else(|error| panic!("{error}"));
        Self { members: BTreeMap::new(), folder, surround, networks }
    }

    /// One on loopback, whose data directory was changed between `init` and its first start.
    ///
    /// # Panics
    /// As [`Self::found`].
    #[must_use]
    pub fn found_prepared(prepare: fn(&Path)) -> Self {
        Self::found_in(None, |_| Vec::new(), prepare, 1)
    }

    fn found_in(networks: Option<Networks>, surround: Surround, prepare: fn(&Path), count: usize) -> Self {
        let mut replicas = Self::none(networks, surround);
        let first = replicas.place("first");
        let mut init = Program::Coordinator.command();
        init.arg("init").arg("--data-dir").arg(&first.data).args(["--cluster", "lab", "--advertise", &first.listen]);
        Outcome::of(init.args(["--peer-advertise", &first.peers]).envs(&first.surroundings)).done();
        prepare(&first.data);
        let context = replicas.context();
        fs::copy(first.data.join("admin.context"), context).unwrap_or_else(|error| panic!("{error}"));
        replicas.members.insert("r1".into(), first);
        replicas.start("r1");
        for _ in 1..count {
            replicas.add();
        }
        replicas.settle();
        replicas
    }

    fn place(&mut self, name: &str) -> Member {
        let data = self.folder.path().join(name);
        // Each write that a story makes would be a line.
        let log = ("RUST_LOG", "info,mainstay_coordinator::api::admin=warn".into());
        let own = (self.surround)(&data).into_iter().chain([log]);
        let surroundings = own.map(|(name, value)| (name.into(), value)).collect();
        let Some(networks) = &mut self.networks else {
            let address = || format!("127.0.0.1:{}", free_port());
            let (listen, peers, http) = (address(), address(), address());
            return Member { daemon: None, data, listen, peers, http, machine: None, surroundings };
        };
        let machine = networks.add();
        let address = |port| format!("{}:{port}", machine.address);
        let (listen, peers, http) = (address(7443), address(7444), "127.0.0.1:7480".into());
        Member { daemon: None, data, listen, peers, http, machine: Some(machine), surroundings }
    }

    /// Where a replica runs.
    ///
    /// # Panics
    /// Where there is none, or all are on loopback.
    #[must_use]
    pub fn machine(&self, id: &str) -> &Machine {
        let machine = self.members.get(id).and_then(|member| member.machine.as_ref());
        machine.unwrap_or_else(|| panic!("{id} has no machine of its own"))
    }

    /// Parts a replica from all others, both ways; operators and agents still reach it.
    ///
    /// # Panics
    /// As [`Self::machine`].
    pub fn part(&self, id: &str) {
        self.deafen(id);
        self.mute(id);
    }

    /// A replica hears no other one; they hear it.
    ///
    /// # Panics
    /// As [`Self::machine`].
    pub fn deafen(&self, id: &str) {
        self.others(id).iter().for_each(|other| self.machine(id).hears_no_more(self.machine(other)));
    }

    /// No other replica hears that one; it hears them.
    ///
    /// # Panics
    /// As [`Self::machine`].
    pub fn mute(&self, id: &str) {
        self.others(id).iter().for_each(|other| self.machine(other).hears_no_more(self.machine(id)));
    }

    /// Two replicas do not hear each other; the others hear both.
    ///
    /// # Panics
    /// As [`Self::machine`].
    pub fn sever(&self, one: &str, other: &str) {
        self.machine(one).hears_no_more(self.machine(other));
        self.machine(other).hears_no_more(self.machine(one));
    }

    /// All hear each other again.
    ///
    /// # Panics
    /// As [`Self::machine`].
    pub fn heal(&self) {
        self.ids().iter().for_each(|id| self.machine(id).hears_all());
    }

    /// Waits until a replica ends by itself, and takes it out; its exit code and what it said.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn ends(&mut self, id: &str, limit: Duration) -> (i32, String) {
        let mut daemon = self.take(id);
        let code = daemon.ends(limit);
        (code, daemon.said())
    }

    /// Every other id.
    #[must_use]
    pub fn others(&self, id: &str) -> Vec<String> {
        self.members.keys().filter(|other| *other != id).cloned().collect()
    }

    /// The administrator's context, which learns every address in use.
    #[must_use]
    pub fn context(&self) -> PathBuf {
        self.folder.path().join("admin.context")
    }

    /// A place for whatever belongs to the story.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `cluster add`, `join` and `run`; the new replica's id. It need not decide yet.
    ///
    /// # Panics
    /// Where any of it fails.
    pub fn add(&mut self) -> String {
        let id = self.join();
        self.daemon(&id).is_ready();
        id
    }

    /// The same, without waiting until it serves.
    ///
    /// # Panics
    /// Where any of it fails.
    pub fn join(&mut self) -> String {
        let first = self.ids().remove(0);
        self.join_by(&first)
    }

    /// The same; that replica is asked first.
    ///
    /// # Panics
    /// As [`Self::join`].
    pub fn join_by(&mut self, by: &str) -> String {
        let member = self.place(&format!("joined-{}", free_port()));
        let made = self.mainstay(&["cluster", "add", "-o", "json"]).json();
        let token = self.folder.path().join("replica.token");
        let written = fs::write(&token, made["token"].as_str().unwrap_or_default());
        written.unwrap_or_else(|error| panic!("{error}"));
        let told = self.joins(&member, &token, by);
        let id = told.split_whitespace().nth(1).unwrap_or_default().to_owned();
        self.members.insert(id.clone(), member);
        self.begin(&id);
        id
    }

    /// `join` by any that runs; where that one dies meanwhile, by the next: the same call again is safe.
    fn joins(&mut self, member: &Member, token: &Path, by: &str) -> String {
        let mut turn = self.members.keys().position(|id| id == by).unwrap_or(0);
        eventually("somebody takes it in", SETTLING, || {
            let runs = |other: &mut Member| {
                let runs = other.daemon.as_mut().is_some_and(|daemon| daemon.ended().is_none());
                runs.then(|| other.listen.clone())
            };
            let running: Vec<String> = self.members.values_mut().filter_map(runs).collect();
            let by = running.get(turn % running.len().max(1)).ok_or("nobody runs")?;
            turn += 1;
            let mut join = Program::Coordinator.command();
            join.arg("join").arg("--data-dir").arg(&member.data).arg("--token-file").arg(token);
            join.args(["--coordinator", by, "--advertise", &member.listen, "--peer-advertise", &member.peers]);
            let joined = Outcome::of(join.envs(&member.surroundings));
            let is_lost = [3, 6].contains(&joined.code);
            if is_lost { Err(joined.stderr) } else { Ok(joined.done()) }
        })
    }

    /// Starts one that does not run, and waits until it serves.
    ///
    /// # Panics
    /// Where it does not.
    pub fn start(&mut self, id: &str) {
        self.begin(id);
        self.daemon(id).is_ready();
    }

    /// Starts one, and does not wait.
    ///
    /// # Panics
    /// Where there is none.
    pub fn begin(&mut self, id: &str) {
        self.begin_with(id, &[]);
    }

    /// The same, with these variables in its surroundings.
    ///
    /// # Panics
    /// Where there is none.
    pub fn begin_with(&mut self, id: &str, surroundings: &[(&str, &str)]) {
        let member = self.member(id);
        let mut run = Program::Coordinator.command();
        run.envs(surroundings.iter().copied());
        run.arg("run").arg("--data-dir").arg(&member.data).args(["--listen", &member.listen]);
        run.args(["--peer-listen", &member.peers, "--http", &member.http]);
        run.args(["--advertise", &member.listen, "--peer-advertise", &member.peers]);
        run.envs(&member.surroundings);
        if let Some(machine) = &member.machine {
            run = machine.command(&run);
        }
        member.daemon = Some(Daemon::start(id, &mut run));
    }

    /// `restore --from-replica` in place of one that does not run. Where that worked it is known by its new id from then on.
    ///
    /// # Panics
    /// Where there is none.
    pub fn restore_in_place(&mut self, id: &str, flags: &[&str]) -> Outcome {
        let mut restore = Program::Coordinator.command();
        restore
            .arg("restore")
            .arg("--data-dir")
            .arg(&self.member(id).data)
            .arg("--from-replica")
            .arg(&self.member(id).data)
            .args(flags);
        let told = Outcome::of(&mut restore);
        if let Some(new) = restored(&told)
            && let Some(member) = self.members.remove(id)
        {
            self.members.insert(new, member);
        }
        told
    }

    /// `restore --from` a backup at the addresses of one that does not run, in a data directory of its own. Where that
    /// worked the other one is forgotten.
    ///
    /// # Panics
    /// Where there is none.
    pub fn restore_from(&mut self, file: &Path, instead_of: &str, flags: &[&str]) -> Outcome {
        let data = self.folder.path().join("restored");
        let member = self.member(instead_of);
        let mut restore = Program::Coordinator.command();
        restore.arg("restore").arg("--data-dir").arg(&data).arg("--from").arg(file).args(flags);
        restore.args(["--advertise", &member.listen, "--peer-advertise", &member.peers]);
        let told = Outcome::of(&mut restore);
        if let Some(new) = restored(&told)
            && let Some(member) = self.members.remove(instead_of)
        {
            self.members.insert(new, Member { data, ..member });
        }
        told
    }

    /// Gives one another place for other replicas: those that know the one of before do not find it.
    ///
    /// # Panics
    /// Where there is none.
    pub fn hide_from_peers(&mut self, id: &str) -> String {
        let peers = format!("127.0.0.1:{}", free_port());
        self.member(id).peers.clone_from(&peers);
        peers
    }

    /// A replica.
    ///
    /// # Panics
    /// Where there is none.
    pub fn member(&mut self, id: &str) -> &mut Member {
        self.members.get_mut(id).unwrap_or_else(|| panic!("there is no replica {id}"))
    }

    /// A running replica.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn daemon(&mut self, id: &str) -> &mut Daemon {
        self.member(id).daemon.as_mut().unwrap_or_else(|| panic!("{id} does not run"))
    }

    /// Gives one that does not run other addresses.
    ///
    /// # Panics
    /// Where there is none.
    pub fn move_away(&mut self, id: &str) {
        let address = || format!("127.0.0.1:{}", free_port());
        let (listen, peers) = (address(), address());
        let member = self.member(id);
        (member.listen, member.peers) = (listen, peers);
    }

    /// Takes a replica's process out, to stop or to kill it.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn take(&mut self, id: &str) -> Daemon {
        self.member(id).daemon.take().unwrap_or_else(|| panic!("{id} does not run"))
    }

    /// Whether it was started, and not taken out since.
    #[must_use]
    pub fn runs(&self, id: &str) -> bool {
        self.members.get(id).is_some_and(|member| member.daemon.is_some())
    }

    /// Every id, also of those that do not run.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// Every address that agents and operators dial.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.members.values().map(|member| member.listen.clone()).collect()
    }

    /// The command line as the administrator, not started yet.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Program::Mainstay.command();
        command.env("MAINSTAY_HOME", self.folder.path().join("home"));
        command.arg("--context").arg(self.context()).args(words);
        command
    }

    /// The command line as the administrator.
    #[must_use]
    pub fn mainstay(&self, words: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(words))
    }

    /// `cluster status`.
    ///
    /// # Panics
    /// Where nobody leads in time.
    #[must_use]
    pub fn status(&self) -> Vec<Value> {
        eventually("the leader tells how the replicas stand", SETTLING, || {
            let told = self.mainstay(&["cluster", "status", "-o", "json"]);
            if told.code == 0 { Ok(told.rows()) } else { Err(told.stderr) }
        })
    }

    /// Who leads.
    ///
    /// # Panics
    /// Where nobody does.
    #[must_use]
    pub fn leader(&self) -> String {
        let rows = self.status();
        let leader = rows.iter().find(|row| row["role"] == "leader").unwrap_or_else(|| panic!("no leader: {rows:?}"));
        leader["replica"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until all decide, answer and have what is committed.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn settle(&self) {
        eventually("all replicas decide", SETTLING, || {
            let rows = self.status();
            let is_well = |row: &Value| row["role"] != "learner" && row["healthy"] == true && row["lag_entries"] == 0;
            holds(rows.len() == self.members.len() && rows.iter().all(is_well), || format!("{rows:?}"))
        });
    }

    /// Forgets one that was removed.
    pub fn forget(&mut self, id: &str) {
        self.members.remove(id);
    }

    /// Asks until a write is answered; how long that took.
    ///
    /// # Panics
    /// When none is in time.
    #[must_use]
    pub fn until_written(&self) -> Duration {
        let begun = Instant::now();
        eventually("a write succeeds", SETTLING, || {
            let made = self.mainstay(&["token", "create"]);
            if made.code == 0 { Ok(()) } else { Err(made.stderr) }
        });
        begun.elapsed()
    }
}

/// The id that a restore gave.
fn restored(told: &Outcome) -> Option<String> {
    let is_done = told.code == 0 && told.stdout.contains("restored as generation");
    let mut words = told.stdout.split_whitespace().skip_while(|word| *word != "replica");
    is_done.then(|| words.nth(1).unwrap_or_default().to_owned())
}
