//! What a process holds: threads, children, descriptors.

use std::{
    fmt, fs, thread,
    time::{Duration, Instant},
};

use crate::wait::LOOK_EVERY;

/// Counts that must not grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Threads of the process itself.
    pub threads: usize,
    /// Children of all its threads.
    pub children: usize,
    /// Open descriptors of the process itself.
    pub descriptors: usize,
}

impl Held {
    /// What it holds now.
    #[must_use]
    pub fn by(pid: u32) -> Self {
        let process = format!("/proc/{pid}");
        let entries = |folder: &str| fs::read_dir(format!("{process}/{folder}")).map_or(0, Iterator::count);
        let threads = fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children = children.map(|list| list.split_whitespace().count()).sum();
        Self { threads: entries("task"), children, descriptors: entries("fd") }
    }

    /// The most of each that it holds within a span: threads and children come and go.
    #[must_use]
    pub fn most_within(pid: u32, span: Duration) -> Self {
        let end = Instant::now() + span;
        let mut most = Self::by(pid);
        while Instant::now() < end {
            most = most.max(Self::by(pid));
            thread::park_timeout(LOOK_EVERY);
        }
        most
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            threads: self.threads.max(other.threads),
            children: self.children.max(other.children),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads, {} children, {} descriptors", self.threads, self.children, self.descriptors)
    }
}
