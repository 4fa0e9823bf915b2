//! A place for one story: a mount namespace of its own, so that stories see neither each other's mounts nor anybody
//! else's, and nothing stays mounted after them.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use mainstay_agent::{
    board::{Board, Snapshot},
    collect::{Eyes, disk, listing, mount},
    config::EyesConfig,
    probe::{Census, Probes},
};
use mainstay_common::{
    metric::{Metric, Readings},
    state::MountState,
};
use mainstay_proto::v1 as pb;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Set where the story is told in a namespace of its own.
const INSIDE: &str = "MAINSTAY_MOUNT_LAB";

/// Tells a story in a namespace of its own; `name` is the test's. Where this machine cannot, it says so and why.
pub(crate) fn story<F: Future<Output = ()>>(name: &str, tell: impl FnOnce() -> F) {
    if let Some(reason) = missing() {
        // Past the test harness, which keeps what a passing test prints.
        let line = format!("skipped {name}: {reason}\n");
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    if env::var_os(INSIDE).is_none() {
        let told = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let text = [told.stdout, told.stderr].concat();
        assert!(told.status.success(), "{name}:\n{}", String::from_utf8_lossy(&text));
        return;
    }
    unmount_fuse();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(tell());
}

fn missing() -> Option<&'static str> {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|told| told.status.success());
    if !rustix::process::geteuid().is_root() {
        Some("only root may mount")
    } else if !Path::new("/dev/fuse").exists() {
        Some("there is no /dev/fuse")
    } else if !runs("unshare") || !runs("fusermount3") {
        Some("unshare (util-linux) or fusermount3 (fuse3) is not installed")
    } else if !runs("rclone") {
        Some("rclone is not installed")
    } else {
        None
    }
}

/// The eyes for disks and mounts, and a folder.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) board: Board,
    probes: Probes,
    stop: CancellationToken,
    _eyes: JoinSet<()>,
}

impl Lab {
    pub(crate) fn open(config: EyesConfig) -> Self {
        let board = Board::default();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_mainstay-agent"));
        let probes = Probes::start_program(&program);
        let stop = CancellationToken::new();
        let config = Arc::new(EyesConfig { program, ..config });
        let eyes = Eyes { config, board: board.clone(), probes: probes.clone(), stop: stop.clone() };
        let mut tasks = JoinSet::new();
        let listing = listing::follow(&eyes, &mut tasks);
        tasks.spawn(disk::run(eyes.clone(), listing.clone()));
        tasks.spawn(mount::run(eyes, listing));
        Self { folder: TempDir::new().unwrap(), board, probes, stop, _eyes: tasks }
    }

    /// A folder in the lab.
    pub(crate) fn place(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let place = self.folder.path().join(name.as_ref());
        fs::create_dir_all(&place).unwrap();
        place
    }

    /// Waits until the board says so.
    pub(crate) async fn eventually(&self, what: &str, limit: Duration, is: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let mut watch = self.board.watch();
        let told = timeout(limit, watch.wait_for(is)).await;
        match told {
            Ok(snapshot) => snapshot.unwrap().clone(),
            Err(_) => panic!("not within {limit:?}: {what}; the board says {:#?}", self.board.read().mounts),
        }
    }

    /// Waits until the mount at this place is in that state, and `is` so.
    pub(crate) async fn becomes(
        &self,
        path: &Path,
        state: MountState,
        limit: Duration,
        is: impl Fn(&pb::Mount) -> bool,
    ) -> pb::Mount {
        let is = |row: &pb::Mount| row.state == state.number() && is(row);
        let what = format!("{} is {state}", path.display());
        let seen = self.eventually(&what, limit, |seen| row(seen, path).is_some_and(&is)).await;
        row(&seen, path).unwrap().clone()
    }

    /// As [`Lab::becomes`], within fifteen seconds: what operators are promised.
    pub(crate) async fn soon(&self, path: &Path, state: MountState) -> pb::Mount {
        self.becomes(path, state, Duration::from_secs(15), |_| true).await
    }

    /// Waits for a table of disks that is newer by `count` readings.
    pub(crate) async fn newer_disks(&self, count: usize) {
        for _ in 0..count {
            let before = read_at(&self.board.read());
            self.eventually("disks are read", Duration::from_secs(30), |seen| read_at(seen) > before).await;
        }
    }

    pub(crate) async fn census(&self) -> Census {
        self.probes.census().await
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
        // Whatever is mounted keeps its folder from being removed.
        unmount_fuse();
    }
}

/// Takes all FUSE mounts of this namespace away.
fn unmount_fuse() {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.split(|b| *b == b'\n').filter_map(mainstay_agent::collect::mountinfo::parse);
    for mount in mounts.filter(|mount| mount.fs.starts_with("fuse")) {
        unmount(Path::new(OsStr::from_bytes(&mount.path)));
    }
}

fn read_at(seen: &Snapshot) -> Option<i64> {
    seen.disks.as_ref().map(|disks| disks.read_at.0)
}

pub(crate) fn row<'a>(seen: &'a Snapshot, path: &Path) -> Option<&'a pb::Mount> {
    seen.mounts.as_ref()?.rows.get(path.as_os_str().as_bytes())
}

pub(crate) fn count(row: &pb::Mount, metric: &Metric) -> Option<u64> {
    value(row, metric)?;
    readings(row).count(metric)
}

pub(crate) fn value(row: &pb::Mount, metric: &Metric) -> Option<f64> {
    readings(row).get(metric)
}

fn readings(row: &pb::Mount) -> Readings {
    row.readings.as_ref().map(|lists| Readings::from_lists(&lists.metric, &lists.value)).unwrap_or_default()
}

/// Takes a mount away, also where whoever serves it does not answer.
pub(crate) fn unmount(path: &Path) {
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap_or(());
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program that runs until the story ends.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().unwrap_or(());
        self.0.wait().map(|_| ()).unwrap_or(());
    }
}

/// `rclone` with nothing of this machine's own configuration; its cache lies in the lab.
pub(crate) fn rclone(lab: &Lab, arguments: &[&OsStr]) -> Command {
    let mut command = Command::new("rclone");
    command.args(arguments).args(["--config", "/dev/null", "--cache-dir"]).arg(lab.place("cache"));
    command
}

/// `rclone mount` of a folder.
pub(crate) fn mount_folder(lab: &Lab, source: &Path, at: &Path, more: &[&str]) -> Program {
    let mut remote = OsString::from(":local:");
    remote.push(source);
    Program::start(rclone(lab, &["mount".as_ref(), &remote, at.as_os_str()]).args(more))
}
