//! The process behind a FUSE mount: which it is, and how it fares. Nothing here touches the mount.

use std::{fs, path::Path, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::life::Event;
use crate::{
    collect::{mountinfo::Mounted, rclone},
    probe::{Outcome, Owner, Stat, Told},
};

/// A process that was not found is looked for again.
const SEARCH_AGAIN: Duration = Duration::from_secs(30);
/// Requests that wait in so many looks in a row are more than a busy moment.
const WAITED_LOOKS: u32 = 3;

/// A process, by what tells it from a later one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    started_ticks: u64,
}

/// What is known of what stands behind one mount.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) owner: Option<Owner>,
    pub(super) searched_at: Option<Instant>,
    pub(super) rclone: Option<rclone::Known>,
    pub(super) rclone_task: Option<Task>,
    /// Requests that wait for the process; `None` where the kernel does not tell.
    pub(super) waiting: Option<u64>,
    waited_looks: u32,
}

/// A task that ends when nobody holds it any longer.
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watched {
    /// True where a process serves it that is not known yet.
    pub(super) fn wants_search(&self, mounted: &Mounted) -> bool {
        let due = self.searched_at.is_none_or(|at| at.elapsed() >= SEARCH_AGAIN);
        mounted.entry.fs.starts_with("fuse.") && !mounted.shadowed && self.owner.is_none() && due
    }

    pub(super) fn process(&self) -> Option<Process> {
        self.owner.as_ref().map(|owner| Process { pid: owner.pid, started_ticks: owner.started_ticks })
    }

    /// Takes over a look; gives what it means for the mount.
    pub(super) fn learn(&mut self, behind: Behind) -> Vec<Event> {
        let mut events = Vec::new();
        match behind.fares {
            Some(Fares::Stopped) => events.push(Event::Stopped),
            Some(Fares::Runs) => events.push(Event::Runs),
            Some(Fares::Ended) => {
                // Another one may serve it already, or soon.
                (self.owner, self.searched_at) = (None, None);
                events.push(Event::OwnerEnded);
            }
            None => {}
        }
        self.waiting = behind.waiting;
        match behind.waiting {
            Some(0) if self.waited_looks >= WAITED_LOOKS => {
                self.waited_looks = 0;
                events.push(Event::NoneWaits);
            }
            Some(0) | None => self.waited_looks = 0,
            Some(_) => self.waited_looks = self.waited_looks.saturating_add(1),
        }
        events
    }
}

/// How a process fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fares {
    Runs,
    /// By a signal or a debugger: it answers nobody.
    Stopped,
    Ended,
}

/// One look at what stands behind a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    fares: Option<Fares>,
    waiting: Option<u64>,
}

impl Behind {
    /// Reads procfs and sysfs. `minor`: of the mount's device, which names its FUSE connection.
    pub(super) fn read(proc_root: &Path, sys_root: &Path, process: Option<Process>, minor: u32) -> Self {
        let fares = process.map(|process| {
            let stat = fs::read(proc_root.join(process.pid.to_string()).join("stat")).ok();
            fares(process, stat.as_deref().and_then(Stat::parse))
        });
        let waiting = fs::read_to_string(sys_root.join(format!("fs/fuse/connections/{minor}/waiting")));
        Self { fares, waiting: waiting.ok().and_then(|text| text.trim().parse().ok()) }
    }
}

fn fares(process: Process, stat: Option<Stat>) -> Fares {
    match stat.filter(|stat| stat.started_ticks == process.started_ticks).map(|stat| stat.state) {
        None | Some(b'Z' | b'X') => Fares::Ended,
        Some(b'T' | b't') => Fares::Stopped,
        Some(_) => Fares::Runs,
    }
}

/// What to look for: the mountpoint, and what the program's name must hold.
pub(super) fn wish(mounted: &Mounted) -> (Vec<u8>, String) {
    let program = mounted.entry.fs.strip_prefix("fuse.").unwrap_or_default();
    (mounted.entry.path.clone(), program.to_owned())
}

/// True where this process serves that mount. Anyone may start a program with such arguments: only the mounting user's
/// is believed.
pub(super) fn is_its(owner: &Owner, mounted: &Mounted) -> bool {
    owner.mountpoint == mounted.entry.path && mounted.entry.fuse_user.is_none_or(|user| user == owner.uid)
}

/// What came of a search.
pub(super) struct Search {
    pub(super) wanted: Vec<(Vec<u8>, String)>,
    pub(super) outcome: Outcome,
}

impl Search {
    pub(super) fn is_for(&self, mounted: &Mounted) -> bool {
        self.wanted.iter().any(|(path, _)| *path == mounted.entry.path)
    }

    pub(super) fn found(&self) -> Vec<Owner> {
        match &self.outcome {
            Outcome::Answered(answer) => match &answer.told {
                Ok(Told::Owners(owners)) => owners.clone(),
                Ok(Told::Space(_) | Told::Names(..) | Told::Content(..)) | Err(_) => Vec::new(),
            },
            // What is late is looked for again.
            Outcome::Hung(_) | Outcome::Busy(_) | Outcome::Limit | Outcome::Lost(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCESS: Process = Process { pid: 7, started_ticks: 99 };

    #[test]
    fn a_later_process_of_the_same_id_is_another_one() {
        let stat = |state, started_ticks| Some(Stat { state, parent: 1, started_ticks });
        assert_eq!(fares(PROCESS, stat(b'S', 99)), Fares::Runs);
        assert_eq!(fares(PROCESS, stat(b'T', 99)), Fares::Stopped);
        assert_eq!(fares(PROCESS, stat(b'S', 100)), Fares::Ended);
        assert_eq!(fares(PROCESS, stat(b'Z', 99)), Fares::Ended);
        assert_eq!(fares(PROCESS, None), Fares::Ended);
    }

    #[test]
    fn requests_that_waited_long_and_wait_no_more_are_news() {
        let mut watched = Watched::default();
        let mut learn = |waiting| watched.learn(Behind { fares: None, waiting });
        for waiting in [Some(2), Some(1), Some(0), None, Some(1), Some(1)] {
            assert_eq!(learn(waiting), []);
        }
        assert_eq!(learn(Some(4)), []);
        assert_eq!(learn(Some(0)), [Event::NoneWaits]);
        assert_eq!(learn(Some(0)), []);
    }

    #[test]
    fn a_process_that_ended_is_looked_for_anew() {
        let mounted = Mounted {
            entry: crate::collect::mountinfo::parse(b"61 28 0:56 / /mnt/m rw - fuse.rclone r: rw,user_id=0").unwrap(),
            aliases: Vec::new(),
            shadowed: false,
            automounted: false,
        };
        let owner = Owner { pid: 7, started_ticks: 99, ..Owner::default() };
        let mut watched = Watched { owner: Some(owner), searched_at: Some(Instant::now()), ..Watched::default() };
        assert!(!watched.wants_search(&mounted));
        assert_eq!(watched.learn(Behind { fares: Some(Fares::Ended), waiting: None }), [Event::OwnerEnded]);
        assert!(watched.wants_search(&mounted));
    }
}
