//! Children that an earlier life of the agent left behind, because what they were asked still hangs.
//!
//! Such a child cannot be ended and cannot be heard, but its name tells what it waits for: nobody else is sent there
//! until it is gone.

use std::path::Path;

use super::{CHILD, Stat};

/// A child of an earlier life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pid: u32,
    started_ticks: u64,
    /// What it calls itself, see `Key::title`.
    pub(super) title: String,
}

impl Leftover {
    /// True while it is still there.
    pub(super) fn is_there(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started_ticks == self.started_ticks && stat.state != b'Z')
    }
}

/// Searches all processes for orphans of an agent.
pub(super) fn find() -> Vec<Leftover> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            // The name first: a process whose memory is locked lets nobody read its arguments.
            let title = std::fs::read_to_string(file(pid, "comm")).ok()?.trim_end().to_owned();
            let arguments = title.strip_prefix("probe-").and_then(|_| std::fs::read(file(pid, "cmdline")).ok())?;
            let stat = stat(pid)?;
            let parent = std::fs::read(file(stat.parent, "status")).unwrap_or_default();
            let orphan = is_orphan(&arguments, stat.parent, &parent);
            orphan.then_some(Leftover { pid, started_ticks: stat.started_ticks, title })
        })
        .collect()
}

/// A child's second argument is the agent that started it; an orphan has another parent. An agent in a container calls
/// itself by another number than we do: `parent_status` lists all of them.
fn is_orphan(arguments: &[u8], parent: u32, parent_status: &[u8]) -> bool {
    let mut arguments = arguments.split(|b| *b == 0).skip(1);
    arguments.next() == Some(CHILD.as_bytes())
        && arguments
            .next()
            .and_then(number)
            .is_some_and(|agent| agent != parent && !numbers(parent_status).any(|number| number == agent))
}

/// The numbers of a process in all the namespaces that it is in.
fn numbers(status: &[u8]) -> impl Iterator<Item = u32> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"NSpid:")).unwrap_or_default();
    line.split(u8::is_ascii_whitespace).filter_map(number)
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn stat(pid: u32) -> Option<Stat> {
    Stat::parse(&std::fs::read(file(pid, "stat")).ok()?)
}

fn file(pid: u32, name: &str) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_a_living_agent_is_no_orphan() {
        let child = b"mainstay-agent\0probe-child\x004711\0";
        assert!(is_orphan(child, 1, b"Name:\tinit\nNSpid:\t1\n"));
        assert!(is_orphan(child, 1, b""));
        assert!(!is_orphan(child, 4_711, b""));
        assert!(!is_orphan(b"vi\0probe-child.rs\0", 1, b""));
        let in_a_container = b"Name:\tmainstay-agent\nNSpid:\t90210\t4711\n";
        assert!(!is_orphan(child, 90_210, in_a_container));
    }
}
