//! What stands behind a mount, a FUSE process or an NFS server, and how it fares: read from the kernel's own files,
//! which touch no mount.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    life::Event,
    mountstats::{self, Requests},
};
use crate::{
    collect::mountinfo::Mounted,
    probe::{Owner, Stat},
};

/// Requests that wait in so many looks in a row are more than a busy moment.
const WAITED_LOOKS: u32 = 3;

/// What is to be looked at for one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The mount's key.
    pub(super) key: Vec<u8>,
    path: Vec<u8>,
    /// The process: its id, and when it started.
    process: Option<(u32, u64)>,
    /// The FUSE connection: the minor number of the mount's device.
    connection: Option<u32>,
    nfs: bool,
}

impl Wanted {
    /// `None` where the kernel tells nothing of such a mount.
    pub(super) fn of(mounted: &Mounted, owner: Option<&Owner>) -> Option<Self> {
        let nfs = mounted.entry.fs.starts_with("nfs");
        (!mounted.shadowed && (nfs || mounted.is_fuse())).then(|| Self {
            key: mounted.key(),
            path: mounted.entry.path.clone(),
            process: owner.map(|owner| (owner.pid, owner.started_ticks)),
            connection: mounted.is_fuse().then_some(mounted.entry.device.1),
            nfs,
        })
    }
}

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) proc_root: PathBuf,
    pub(super) sys_root: PathBuf,
}

/// How a process fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fares {
    Runs,
    /// By a signal: it answers nobody.
    Stopped,
    Ended,
}

/// One look at what stands behind one mount; what the kernel does not tell is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    fares: Option<Fares>,
    /// Requests that wait for the FUSE process.
    waiting: Option<u64>,
    /// Requests to the NFS server.
    requests: Option<Requests>,
}

impl Kernel {
    /// Looks at everything that is wanted; by the keys of the mounts.
    pub(super) fn look(&self, wanted: Vec<Wanted>) -> Vec<(Vec<u8>, Behind)> {
        let all_requests = if wanted.iter().any(|wanted| wanted.nfs) { self.requests() } else { BTreeMap::new() };
        let behind = |wanted: &Wanted| Behind {
            fares: wanted.process.map(|(pid, started_ticks)| self.fares(pid, started_ticks)),
            waiting: wanted.connection.and_then(|minor| self.waiting(minor)),
            requests: all_requests.get(&wanted.path).copied(),
        };
        let looked = |wanted: Wanted| {
            let behind = behind(&wanted);
            (wanted.key, behind)
        };
        wanted.into_iter().map(looked).collect()
    }

    fn fares(&self, pid: u32, started_ticks: u64) -> Fares {
        let stat = fs::read(self.proc_root.join(pid.to_string()).join("stat")).ok();
        fares(stat.as_deref().and_then(Stat::parse), started_ticks)
    }

    fn waiting(&self, minor: u32) -> Option<u64> {
        let file = self.sys_root.join(format!("fs/fuse/connections/{minor}/waiting"));
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    fn requests(&self) -> BTreeMap<Vec<u8>, Requests> {
        fs::read(self.proc_root.join("self/mountstats")).map(|text| mountstats::parse(&text)).unwrap_or_default()
    }
}

/// A later process of the same id started at another time.
fn fares(stat: Option<Stat>, started_ticks: u64) -> Fares {
    match stat.filter(|stat| stat.started_ticks == started_ticks).map(|stat| stat.state) {
        None | Some(b'Z' | b'X') => Fares::Ended,
        // Not `t`: a process that is traced stops for a moment with every system call.
        Some(b'T') => Fares::Stopped,
        Some(_) => Fares::Runs,
    }
}

/// What was seen behind one mount so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs {
    /// Requests that wait for the process; `None` where the kernel does not tell.
    pub(super) waiting: Option<u64>,
    waited_looks: u32,
    requests: Option<Requests>,
}

impl Signs {
    /// True where something seems wrong: worth another look soon.
    pub(super) fn are_bad(&self) -> bool {
        self.waited_looks > 0
    }

    /// Takes over a look; gives what it means for the mount.
    pub(super) fn learn(&mut self, behind: Behind) -> Vec<Event> {
        let mut events = Vec::new();
        events.extend(behind.fares.map(|fares| match fares {
            Fares::Stopped => Event::Stopped,
            Fares::Runs => Event::Runs,
            Fares::Ended => Event::OwnerEnded,
        }));
        self.waiting = behind.waiting;
        if behind.waiting.is_none_or(|waiting| waiting == 0) {
            if self.waited_looks >= WAITED_LOOKS && behind.waiting.is_some() {
                events.push(Event::OthersGoOn);
            }
            self.waited_looks = 0;
        } else {
            self.waited_looks = self.waited_looks.saturating_add(1);
            if self.waited_looks == WAITED_LOOKS {
                events.push(Event::OthersWait);
            }
        }
        if let Some((before, now)) = std::mem::replace(&mut self.requests, behind.requests).zip(behind.requests) {
            if now.timed_out > before.timed_out {
                events.push(Event::OthersWait);
            } else if now.ended > before.ended {
                events.push(Event::OthersGoOn);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mountinfo::parse;

    #[test]
    fn a_later_process_of_the_same_id_is_another_one() {
        let stat = |state, started_ticks| Some(Stat { state, parent: 1, started_ticks });
        assert_eq!(fares(stat(b'S', 99), 99), Fares::Runs);
        assert_eq!(fares(stat(b't', 99), 99), Fares::Runs);
        assert_eq!(fares(stat(b'T', 99), 99), Fares::Stopped);
        assert_eq!(fares(stat(b'S', 100), 99), Fares::Ended);
        assert_eq!(fares(stat(b'Z', 99), 99), Fares::Ended);
        assert_eq!(fares(None, 99), Fares::Ended);
    }

    #[test]
    fn requests_that_waited_long_and_wait_no_more_are_signs() {
        let mut signs = Signs::default();
        let mut learn = |waiting| signs.learn(Behind { waiting, ..Behind::default() });
        for waiting in [Some(2), Some(1), Some(0), None, Some(1), Some(1)] {
            assert_eq!(learn(waiting), []);
        }
        assert_eq!(learn(Some(4)), [Event::OthersWait]);
        assert_eq!(learn(Some(4)), [], "that is no news");
        assert_eq!(learn(Some(0)), [Event::OthersGoOn]);
        assert_eq!(learn(Some(0)), []);
    }

    #[test]
    fn an_nfs_server_that_answers_others_is_a_sign() {
        let mut signs = Signs::default();
        let mut learn = |ended, timed_out| {
            signs.learn(Behind { requests: Some(Requests { ended, timed_out }), ..Behind::default() })
        };
        assert_eq!(learn(10, 1), [], "there is nothing to compare with");
        assert_eq!(learn(10, 1), []);
        assert_eq!(learn(10, 2), [Event::OthersWait]);
        assert_eq!(learn(15, 2), [Event::OthersGoOn]);
    }

    #[test]
    fn the_kernels_files_are_found() {
        let place = tempfile::tempdir().unwrap();
        let kernel = Kernel { proc_root: place.path().join("proc"), sys_root: place.path().join("sys") };
        let write = |path: PathBuf, text: &[u8]| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(kernel.sys_root.join("fs/fuse/connections/56/waiting"), b"3\n");
        write(kernel.proc_root.join("77/stat"), b"77 (rclone) T 5 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 4321 9\n");
        write(kernel.proc_root.join("self/mountstats"), include_bytes!("../../../testdata/mountstats.txt"));
        let mounted = |line: &[u8]| Mounted {
            entry: parse(line).unwrap(),
            aliases: Vec::new(),
            shadowed: false,
            automounted: false,
        };
        let owner = Owner { pid: 77, started_ticks: 4_321, ..Owner::default() };
        let fuse = mounted(b"61 28 0:56 / /mnt/m rw - fuse.rclone r: rw,user_id=0");
        let nfs = mounted(br"62 28 0:57 / /mnt/my\040nfs rw - nfs4 nas:/x rw");
        let cifs = mounted(b"63 28 0:58 / /mnt/c rw - cifs //nas/x rw");
        assert_eq!(Wanted::of(&cifs, None), None);
        let looked = kernel.look(vec![Wanted::of(&fuse, Some(&owner)).unwrap(), Wanted::of(&nfs, None).unwrap()]);
        assert_eq!(looked[0].1, Behind { fares: Some(Fares::Stopped), waiting: Some(3), requests: None });
        assert_eq!(looked[1].1.requests.map(|requests| requests.timed_out), Some(17));
        assert_eq!(looked[1].0, nfs.key());
    }
}
