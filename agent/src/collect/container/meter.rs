//! Reads what containers use, all of them in one go on a blocking thread.
//!
//! Looking up a path in cgroupfs costs ten times what reading the file does (5 us against 0.5), so the files that are
//! read often stay open, and the others are read once a minute. A container whose CPU time and memory did not change did
//! nothing: of it, no more is read.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    cgroup::{Hierarchies, Version},
    files::{File, Usage},
};

/// The most files that stay open; beyond them they are opened for every reading.
const HELD_LIMIT: usize = 256;
/// Time between two readings of limits, kills and processes.
const SLOW_EVERY: Duration = Duration::from_secs(60);
/// Where no hierarchy is found, they are searched anew, but not more often.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// A file that is larger is read in a larger buffer.
const BUFFER: usize = 8 * 1_024;

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its id.
    pub(super) id: Arc<str>,
    /// Its first process.
    pub(super) pid: u32,
    /// It has a network of its own, so that what goes through it is its own.
    pub(super) own_network: bool,
}

/// What one round found.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// What each container uses.
    pub(super) read: Vec<(Arc<str>, Usage)>,
    /// Containers without groups: they ended, or their groups cannot be seen from here.
    pub(super) lost: Vec<Arc<str>>,
}

/// All meters.
#[derive(Debug)]
pub(super) struct Meters {
    proc_root: PathBuf,
    sys_root: PathBuf,
    hierarchies: Hierarchies,
    searched: Option<Instant>,
    meters: BTreeMap<Arc<str>, Meter>,
    held: usize,
    buffer: Vec<u8>,
}

/// The files of one container.
#[derive(Debug)]
struct Meter {
    pid: u32,
    telling: Vec<Source>,
    dependent: Vec<Source>,
    slow: Vec<Source>,
    slow_read: Option<Instant>,
    slow_usage: Usage,
    /// The last reading, without what is read once a minute.
    before: Usage,
}

#[derive(Debug)]
struct Source {
    file: File,
    version: Version,
    path: PathBuf,
    held: Option<fs::File>,
}

impl Meters {
    pub(super) fn new(proc_root: &Path, sys_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            sys_root: sys_root.to_owned(),
            hierarchies: Hierarchies::default(),
            searched: None,
            meters: BTreeMap::new(),
            held: 0,
            buffer: vec![0; BUFFER],
        }
    }

    /// Reads all containers that run; files of others are closed.
    pub(super) fn round(&mut self, targets: &[Target], now: Instant) -> Round {
        let running: BTreeMap<&str, u32> = targets.iter().map(|target| (&*target.id, target.pid)).collect();
        let held = &mut self.held;
        self.meters.retain(|id, meter| {
            let stays = running.get(&**id) == Some(&meter.pid);
            if !stays {
                *held -= meter.held();
            }
            stays
        });
        let mut round = Round::default();
        for target in targets {
            match self.measure(target, now) {
                Some(usage) => round.read.push((Arc::clone(&target.id), usage)),
                None => {
                    if let Some(meter) = self.meters.remove(&target.id) {
                        self.held -= meter.held();
                    }
                    round.lost.push(Arc::clone(&target.id));
                }
            }
        }
        round
    }

    fn measure(&mut self, target: &Target, now: Instant) -> Option<Usage> {
        if !self.meters.contains_key(&target.id) {
            let meter = self.find(target, now)?;
            self.meters.insert(Arc::clone(&target.id), meter);
        }
        let meter = self.meters.get_mut(&target.id)?;
        let (buffer, held) = (&mut self.buffer, &mut self.held);
        let mut usage = Usage::default();
        let mut any = meter.read(Part::Telling, &mut usage, buffer, held)?;
        let is_due = meter.slow_read.is_none_or(|at| now.duration_since(at) >= SLOW_EVERY);
        if is_due || !usage.is_idle_since(&meter.before) {
            any |= meter.read(Part::Dependent, &mut usage, buffer, held)?;
        } else {
            usage = usage.with_dependent(&meter.before);
        }
        meter.before = usage;
        if is_due {
            meter.slow_usage = Usage::default();
            let mut slow = Usage::default();
            any |= meter.read(Part::Slow, &mut slow, buffer, held)?;
            (meter.slow_usage, meter.slow_read) = (slow, Some(now));
        }
        if target.own_network {
            // Opened every time: an open one would keep the network alive after the container's end.
            let net_dev = self.proc_root.join(format!("{}/net/dev", target.pid));
            if let Some(text) = read_whole(&net_dev, &mut self.buffer) {
                usage.take_network(text);
            }
        }
        any.then(|| usage.with_slow(&meter.slow_usage))
    }

    fn find(&mut self, target: &Target, now: Instant) -> Option<Meter> {
        let cgroup = fs::read(self.proc_root.join(format!("{}/cgroup", target.pid))).ok()?;
        let mut folders = self.hierarchies.folders(&cgroup, &target.id);
        if folders.is_empty() && self.searched.is_none_or(|at| now.duration_since(at) >= SEARCH_EVERY) {
            self.searched = Some(now);
            let mounts = fs::read(self.proc_root.join("self/mountinfo")).ok()?;
            self.hierarchies = Hierarchies::of(&mounts, &self.sys_root);
            folders = self.hierarchies.folders(&cgroup, &target.id);
        }
        if folders.is_empty() {
            return None;
        }
        let sources = |files: &[File]| {
            let source = |file: &File| {
                let file = *file;
                let (version, folder) = folders.get(&file.controller())?;
                Some(Source { file, version: *version, path: folder.join(file.name(*version)?), held: None })
            };
            files.iter().filter_map(source).collect()
        };
        Some(Meter {
            pid: target.pid,
            telling: sources(File::TELLING),
            dependent: sources(File::DEPENDENT),
            slow: sources(File::SLOW),
            slow_read: None,
            slow_usage: Usage::default(),
            before: Usage::default(),
        })
    }
}

enum Part {
    Telling,
    Dependent,
    Slow,
}

impl Meter {
    fn held(&self) -> usize {
        self.telling.iter().chain(&self.dependent).filter(|source| source.held.is_some()).count()
    }

    /// Reads one part; whether there was anything, `None` where the group is gone. A file that was never there is one
    /// that this kernel or this controller does not have.
    fn read(&mut self, part: Part, usage: &mut Usage, buffer: &mut Vec<u8>, held: &mut usize) -> Option<bool> {
        let (sources, hold) = match part {
            Part::Telling => (&mut self.telling, true),
            Part::Dependent => (&mut self.dependent, true),
            Part::Slow => (&mut self.slow, false),
        };
        let mut any = false;
        for source in sources {
            if source.held.is_none() {
                let Ok(opened) = fs::File::open(&source.path) else { continue };
                let Ok(text) = read_from_start(&opened, buffer) else { continue };
                usage.take(source.file, source.version, text);
                if hold && *held < HELD_LIMIT {
                    *held += 1;
                    source.held = Some(opened);
                }
            } else if let Some(open) = &source.held {
                // What was there once is gone together with the group.
                let text = read_from_start(open, buffer).ok()?;
                usage.take(source.file, source.version, text);
            }
            any = true;
        }
        Some(any)
    }
}

/// The content of a file that the kernel writes in one piece.
fn read_from_start<'a>(file: &fs::File, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    loop {
        let length = file.read_at(buffer, 0)?;
        if length < buffer.len() || length > 1 << 20 {
            return Ok(&buffer[..length]);
        }
        buffer.resize(buffer.len() * 2, 0);
    }
}

/// The content of a file that the kernel writes line by line.
fn read_whole<'a>(path: &Path, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let mut file = fs::File::open(path).ok()?;
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        match file.read(&mut buffer[length..]) {
            Ok(0) => return Some(&buffer[..length]),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if length > 1 << 20 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
