//! Real rclone mounts: of a folder, or of a WebDAV server that can be frozen.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    Daemon, Outcome, eventually,
    machine::{Need, free_port},
    mount_space::{MountSpace, unmount},
    program::clean,
};

/// How long rclone may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A place for rclone mounts that nobody else sees.
#[derive(Debug)]
pub struct RcloneLab {
    space: MountSpace,
}

impl RcloneLab {
    /// What it needs of the machine.
    pub const NEEDS: [Need; 4] = [Need::Root, Need::Fuse, Need::Tool("rclone"), Need::Tool("fusermount3")];

    /// A lab for the calling thread and the programs that it starts from now on.
    ///
    /// # Panics
    /// Where the machine lacks what it needs.
    #[must_use]
    pub fn open() -> Self {
        Self { space: MountSpace::enter() }
    }

    /// Where everything is mounted.
    #[must_use]
    pub fn space(&self) -> &MountSpace {
        &self.space
    }

    /// Mounts a folder of its own at the folder of that name, and waits until it is mounted.
    ///
    /// # Panics
    /// Where it is not.
    #[must_use]
    pub fn mount(&self, name: impl AsRef<OsStr>, flags: &[&str]) -> RcloneMount {
        let mut source = OsStr::new("source-").to_owned();
        source.push(&name);
        let mut remote = OsStr::new(":local:").to_owned();
        remote.push(self.space.place(source));
        self.mount_remote(name, &remote, flags)
    }

    /// Mounts a remote, `:webdav,url="http://…":`.
    ///
    /// # Panics
    /// Where it is not mounted in time.
    #[must_use]
    pub fn mount_remote(&self, name: impl AsRef<OsStr>, remote: &OsStr, flags: &[&str]) -> RcloneMount {
        let at = self.space.place(name);
        // Somebody else may take the port before rclone does.
        let tried = (0..5).find_map(|_| self.try_mount(&at, remote, flags));
        tried.unwrap_or_else(|| panic!("{} cannot be mounted", at.display()))
    }

    fn try_mount(&self, at: &Path, remote: &OsStr, flags: &[&str]) -> Option<RcloneMount> {
        let rc = format!("127.0.0.1:{}", free_port());
        let mut command = self.rclone();
        command.arg("mount").arg(remote).arg(at).args(["--rc", "--rc-no-auth", "--rc-addr", &rc]).args(flags);
        let mut daemon = Daemon::start("rclone mount", &mut command);
        let mounted = eventually("rclone mounts", START_LIMIT, || {
            let stands = self.space.mounted().iter().any(|mounted| mounted.path == at);
            match (stands, daemon.ended()) {
                (true, _) => Ok(true),
                (false, Some(_)) if daemon.said().contains("address already in use") => Ok(false),
                (false, Some(code)) => panic!("rclone ended with {code}: {}", daemon.said()),
                (false, None) => Err(daemon.said()),
            }
        });
        mounted.then(|| RcloneMount { daemon, rc, at: at.to_owned() })
    }

    /// `rclone serve webdav` of a folder of its own, on a port that it chooses.
    ///
    /// # Panics
    /// Where it does not serve in time.
    #[must_use]
    pub fn serve(&self, name: &str) -> WebDav {
        let folder = self.space.place(name);
        let mut command = self.rclone();
        command.args(["serve", "webdav", "--addr", "127.0.0.1:0"]).arg(&folder);
        let mut daemon = Daemon::start("rclone serve webdav", &mut command);
        let line = daemon.says("WebDav Server started on", START_LIMIT);
        let at = line.find("http://").unwrap_or_else(|| panic!("no address: {line}"));
        let url = line[at..].trim_end_matches(['/', ']']).to_owned();
        WebDav { daemon, url, folder }
    }

    /// Nothing of this machine's own configuration; the cache lies in the lab.
    fn rclone(&self) -> Command {
        let mut command = clean(Path::new("rclone"));
        command.args(["--config", "/dev/null", "--cache-dir"]).arg(self.space.place("cache"));
        command
    }
}

/// A mounted remote and the rclone that serves it; both go with this value.
#[derive(Debug)]
pub struct RcloneMount {
    daemon: Daemon,
    rc: String,
    /// Where it is mounted.
    pub at: PathBuf,
}

impl RcloneMount {
    /// The process that serves it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The path as JSON has it.
    #[must_use]
    pub fn path(&self) -> String {
        mainstay_common::text::exact(self.at.as_os_str().as_bytes())
    }

    /// SIGSTOP: whoever looks at the mount waits.
    pub fn freeze(&self) {
        self.daemon.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.daemon.signal(Signal::CONT);
    }

    /// SIGKILL: the mount stays, with nobody behind it.
    pub fn kill(&mut self) {
        self.daemon.signal(Signal::KILL);
        self.daemon.ends(Duration::from_secs(10));
    }

    /// Takes the mount away.
    pub fn unmount(&self) {
        unmount(&self.at);
    }

    /// What rclone's own client gets from its remote control.
    ///
    /// # Panics
    /// Where it does not answer.
    #[must_use]
    pub fn ask(&self, call: &str) -> Value {
        let mut command = clean(Path::new("rclone"));
        Outcome::of(command.args(["--config", "/dev/null", "rc", "--rc-addr", &self.rc, call])).json()
    }

    /// Writes a file of that many bytes into the mount.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn write(&self, name: &str, bytes: usize) {
        fs::write(self.at.join(name), vec![7; bytes]).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

impl Drop for RcloneMount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A WebDAV server.
#[derive(Debug)]
pub struct WebDav {
    daemon: Daemon,
    url: String,
    /// What it serves.
    pub folder: PathBuf,
}

impl WebDav {
    /// The remote as rclone names it.
    #[must_use]
    pub fn remote(&self) -> String {
        format!(":webdav,url=\"{}\":", self.url)
    }

    /// SIGSTOP: connections stand, and nobody answers.
    pub fn freeze(&self) {
        self.daemon.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.daemon.signal(Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::machine::has;

    #[test]
    fn nothing_stays_mounted_even_after_a_panic_with_a_frozen_mount() {
        if !has(&RcloneLab::NEEDS) {
            return;
        }
        let lab = RcloneLab::open();
        let folder = lab.space().folder().to_owned();
        let mut pids = Vec::new();
        let broken = catch_unwind(AssertUnwindSafe(|| {
            let mounts = ["one", "two\nlines"].map(|name| lab.mount(name, &[]));
            pids.extend(mounts.iter().map(RcloneMount::pid));
            assert_eq!(lab.space().findmnt("fuse.rclone"), mounts.each_ref().map(|mount| mount.at.clone()));
            mounts[0].freeze();
            panic!("a story that fails");
        }));
        assert_eq!(broken.unwrap_err().downcast_ref(), Some(&"a story that fails"));
        assert_eq!(lab.space().mounted(), []);
        assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{pids:?}");
        drop(lab);
        assert!(!folder.exists());
    }
}
