//! A container engine of a story's own: a private dockerd in a network namespace, with one image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    Daemon, Outcome,
    caretaker::Caretaker,
    eventually,
    machine::Need,
    program::clean,
    shell::{sh, try_sh},
    wait::holds,
};

/// The image that every lab has: busybox, which sleeps for ever unless told otherwise.
pub const IMAGE: &str = "bb:1";
/// What the machine must have.
pub const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Tool("dockerd"),
    Need::Tool("docker"),
    Need::Tool("ip"),
    Need::Tool("nsenter"),
    Need::Tool("busybox"),
];

/// How long an engine may take to come and to go. A second is usual; machines are shared.
const LIMIT: Duration = Duration::from_secs(60);
/// Applets in the image.
const APPLETS: &str = "sh sleep true false tail head cat echo dd tr test rm touch mkdir ls kill httpd wget env";

/// Starts the engine in its network, under its hostname, with mounts of its own: its shims keep their sockets in `/run`,
/// wherever the engine is told to keep the rest. It looks for images of a Swarm in the world, too: names are refused at
/// once, since nobody answers on the lab's loopback.
const START: &str = r#"hostname "$2" && mkdir -p "$1/run" && echo nameserver 127.0.0.1 > "$1/resolv.conf" &&
mount --bind "$1/resolv.conf" /etc/resolv.conf && mount --bind "$1/run" /run && exec dockerd \
 --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/dockerd.pid" -H "unix://$1/docker.sock" \
 --cgroup-parent "/$3" --iptables=false --ip6tables=false --shutdown-timeout 3 --log-level warn >> "$1/log" 2>&1"#;

/// Ends everything: the engine and its helpers name the lab's folder, containers are in the lab's control groups, and
/// what else there is lives in the lab's network. What the engine mounted goes with the last of them.
const CLEAN: &str = r#"name=$1 folder=$2
pids() {
    # The brackets keep the search from finding itself.
    grep -lsE "[/]$name/exec" /proc/[0-9]*/cmdline | cut -d/ -f3
    find /sys/fs/cgroup/*/"$name" -name cgroup.procs -exec cat {} + 2>/dev/null
    ip netns pids "$name" 2>/dev/null
}
for round in $(seq 200); do
    found=$(pids)
    [ -z "$found" ] && break
    kill -KILL $found
    # What is paused cannot die.
    for state in $(find /sys/fs/cgroup/*/"$name" -name freezer.state); do echo THAWED > "$state"; done
    for state in $(find /sys/fs/cgroup/*/"$name" -name cgroup.freeze); do echo 0 > "$state"; done
    sleep 0.05
done
ip netns delete "$name"
for round in $(seq 100); do
    find /sys/fs/cgroup/*/"$name" -depth -type d -exec rmdir {} + 2>/dev/null
    rm -rf "$folder" && ! ls -d /sys/fs/cgroup/*/"$name" && break
    sleep 0.05
done"#;

/// An engine and its containers; everything ends with this value.
#[derive(Debug)]
pub struct DockerLab {
    daemon: Option<Daemon>,
    hostname: String,
    name: String,
    folder: PathBuf,
    // Fields are dropped in their order: the engine goes before its house.
    _caretaker: Caretaker,
}

impl DockerLab {
    /// An engine with its image, ready.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_as("lab")
    }

    /// An engine on a machine of that name.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn start_as(hostname: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("ms-").tempdir().unwrap_or_else(|error| panic!("{error}")).keep();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let caretaker = Caretaker::hire(CLEAN, &[&name, &folder.to_string_lossy()]);
        drop(sh(&format!("ip netns add {name} && ip -n {name} link set lo up")));
        let mut lab = Self { daemon: None, hostname: hostname.to_owned(), name, folder, _caretaker: caretaker };
        lab.start_engine();
        lab.import();
        lab
    }

    fn import(&self) {
        let root = self.folder.join("image");
        let (root, socket) = (root.display(), self.socket());
        drop(sh(&format!(
            "mkdir -p {root}/bin {root}/tmp {root}/proc {root}/etc && cp $(command -v busybox) {root}/bin/busybox &&
             for applet in {APPLETS}; do ln -s busybox {root}/bin/$applet; done &&
             tar -c -C {root} . | docker -H unix://{} import --change 'CMD [\"sleep\", \"2147483647\"]' - {IMAGE}",
            socket.display()
        )));
    }

    /// Starts the engine again, and waits until it answers.
    ///
    /// # Panics
    /// Where it runs already, or does not answer in time.
    pub fn start_engine(&mut self) {
        assert!(self.daemon.is_none(), "the engine runs already");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/var/run/netns/{}", self.name)).args(["unshare", "--uts", "--mount"]);
        command.args(["sh", "-c", START, "dockerd"]).arg(&self.folder).args([&self.hostname, &self.name]);
        let mut daemon = Daemon::start("dockerd", &mut command);
        eventually("the engine answers", LIMIT, || {
            assert_eq!(daemon.ended(), None, "the engine ended: {}", self.log());
            let answer = self.docker(&["version"]);
            holds(answer.code == 0, || answer.stderr)
        });
        self.daemon = Some(daemon);
    }

    /// Stops the engine as a service manager does; its containers stop with it.
    ///
    /// # Panics
    /// Where it does not run, or does not end.
    pub fn stop_engine(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { panic!("the engine does not run") };
        daemon.signal(Signal::TERM);
        daemon.ends(LIMIT);
    }

    /// Kills the engine, as the death of its machine would; containers go on until the end of the lab.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill_engine(&mut self) {
        let Some(daemon) = self.daemon.take() else { panic!("the engine does not run") };
        daemon.kill();
    }

    /// Keeps the engine from doing anything: its socket takes connections, and nobody answers.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn freeze(&self) {
        self.engine().signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn thaw(&self) {
        self.engine().signal(Signal::CONT);
    }

    fn engine(&self) -> &Daemon {
        self.daemon.as_ref().unwrap_or_else(|| panic!("the engine does not run"))
    }

    /// The engine's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// The engine's socket, for a command line.
    #[must_use]
    pub fn socket_text(&self) -> String {
        self.socket().display().to_string()
    }

    /// What the engine wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A folder that goes with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The network namespace's name.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.name
    }

    /// Docker's own command line.
    #[must_use]
    pub fn docker(&self, words: &[&str]) -> Outcome {
        let mut docker = clean(Path::new("docker"));
        // It looks for plugins and a configuration there.
        docker.env("HOME", &self.folder).arg("-H").arg(format!("unix://{}", self.socket().display())).args(words);
        Outcome::of(&mut docker)
    }

    /// Runs a container in the background; its id. It ends at once when it is told to.
    ///
    /// # Panics
    /// Where Docker refuses.
    pub fn run(&self, name: &str, flags: &[&str], command: &[&str]) -> String {
        let words = [&["run", "-d", "--stop-signal", "KILL", "--name", name], flags, &[IMAGE], command].concat();
        self.docker(&words).done().trim().to_owned()
    }

    /// The lines that Docker's command line prints.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        self.docker(words).done().lines().map(str::to_owned).collect()
    }
}

/// What is left of a lab: nothing, once it is dropped.
#[must_use]
pub fn remains(name: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    if fs::symlink_metadata(folder).is_ok() {
        found.push(folder.display().to_string());
    }
    let places = format!("ls -d /var/run/netns/{name} /sys/fs/cgroup/*/{name}; grep -F /{name}/ /proc/self/mountinfo");
    // The brackets keep the search from finding itself.
    let processes = format!("grep -lsE '[/]{name}/exec' /proc/[0-9]*/cmdline");
    for line in [places, processes] {
        found.extend(try_sh(&line).stdout.lines().map(str::to_owned));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::machine::has;

    #[test]
    fn a_lab_leaves_nothing_behind_even_after_a_panic() {
        if !has(&NEEDS) {
            return;
        }
        let mut lab = DockerLab::start();
        let (name, folder) = (lab.network().to_owned(), lab.folder().to_owned());
        let broken = catch_unwind(AssertUnwindSafe(|| {
            lab.run("one", &["--restart", "always"], &[]);
            assert!(remains(&name, &folder).len() > 4, "a lab leaves traces while it stands");
            lab.stop_engine();
            lab.start_engine();
            assert_eq!(lab.lines(&["ps", "--format", "{{.Names}}"]), ["one"], "it starts again with its containers");
            drop(lab.docker(&["pause", "one"]).done());
            lab.freeze();
            let _lab = lab;
            panic!("a story that fails");
        }));
        assert_eq!(broken.unwrap_err().downcast_ref(), Some(&"a story that fails"));
        assert_eq!(remains(&name, &folder), Vec::<String>::new());
    }
}
