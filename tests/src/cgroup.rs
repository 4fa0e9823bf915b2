//! Control groups that count what a set of processes costs, those that ended included.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{caretaker::Caretaker, eventually, wait::holds};

/// Ends whoever is left in the groups, and removes them.
const CLEAN: &str = r#"for round in $(seq 200); do
    found=$(cat "$1"/*/cgroup.procs)
    [ -n "$found" ] && kill -KILL $found
    rmdir "$1"/* "$1"
    [ -d "$1" ] || break
    sleep 0.05
done"#;

/// The groups of one run. Whoever is in them ends with this value, or with the death of this program.
#[derive(Debug)]
pub struct Groups {
    folder: PathBuf,
    _caretaker: Caretaker,
}

/// Processes whose cost is counted together.
#[derive(Clone, Debug)]
pub struct Group {
    folder: PathBuf,
}

impl Groups {
    /// Room for groups, by the kernel's newer interface where that is the only one.
    ///
    /// # Panics
    /// Where this user may not make groups.
    #[must_use]
    pub fn make(name: &str) -> Self {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = if unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/cpuacct" };
        let folder = Path::new(root).join(format!("{name}-{}", std::process::id()));
        let caretaker = Caretaker::hire(CLEAN, &[&folder.to_string_lossy()]);
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Self { folder, _caretaker: caretaker }
    }

    /// A group of that name.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn group(&self, name: &str) -> Group {
        let folder = self.folder.join(name);
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Group { folder }
    }
}

impl Group {
    /// Takes a process in, with all that it starts from now on.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// The same command, in the group from its first instruction on.
    #[must_use]
    pub fn command(&self, inner: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.folder.join("cgroup.procs"));
        command.arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    }

    /// CPU time of all who are or were in it.
    ///
    /// # Panics
    /// Where the kernel does not tell.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let file = |name: &str| fs::read_to_string(self.folder.join(name)).ok();
        let old = || Some(Duration::from_nanos(file("cpuacct.usage")?.trim().parse().ok()?));
        let new = || {
            let stat = file("cpu.stat")?;
            let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            Some(Duration::from_micros(micros.parse().ok()?))
        };
        old().or_else(new).unwrap_or_else(|| panic!("{} tells no CPU time", self.folder.display()))
    }

    /// Who is in it.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Proportional memory of all who are in it, in bytes.
    #[must_use]
    pub fn pss_bytes(&self) -> u64 {
        let of = |pid: u32| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1_024)
        };
        self.pids().into_iter().filter_map(of).sum()
    }

    /// Ends all who are in it.
    ///
    /// # Panics
    /// Where they do not end.
    pub fn end(&self) {
        eventually("a group is empty", Duration::from_secs(30), || {
            for pid in self.pids().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                let Some(pid) = rustix::process::Pid::from_raw(pid) else { continue };
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
            holds(self.pids().is_empty(), || format!("{:?}", self.pids()))
        });
    }
}

/// Processes whose command line contains these bytes.
#[must_use]
pub fn processes_naming(words: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.windows(words.len()).any(|part| part == words.as_bytes())
    });
    named.filter_map(|process| std::str::from_utf8(process.file_name().as_bytes()).ok()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Daemon, Outcome, docker_lab, machine::has};

    #[test]
    fn a_group_counts_whoever_ended_and_leaves_nobody_behind() {
        // Where an engine can be started, groups can be made.
        if !has(&docker_lab::NEEDS) {
            return;
        }
        let groups = Groups::make("mainstay-groups");
        let (folder, group) = (groups.folder.clone(), groups.group("one"));
        assert_eq!(group.cpu(), Duration::ZERO);
        let mut work = Command::new("/bin/sh");
        work.args(["-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"]);
        drop(Outcome::of(&mut group.command(&work)).done());
        assert!(group.cpu() > Duration::from_millis(2), "{:?}", group.cpu());

        let mut sleeper = Command::new("/bin/sleep");
        let _sleeper = Daemon::start("sleep", &mut group.command(sleeper.arg("600")));
        eventually("it is in the group", Duration::from_secs(10), || {
            holds(group.pids().len() == 1 && group.pss_bytes() > 0, || format!("{:?}", group.pids()))
        });
        drop(groups);
        assert!(!folder.exists());
    }
}
