//! How much memory a process has, as the kernel counts.

use std::fs;

/// A process's memory from now on: what it has, and the most that it had.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pid: u32,
    /// KiB at the beginning.
    pub before: u64,
}

impl Memory {
    /// Begins to watch.
    ///
    /// # Panics
    /// Where the process is gone.
    #[must_use]
    pub fn watch(pid: u32) -> Self {
        // Sets the kernel's mark of the most it ever had back to what it has now.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap_or_else(|error| panic!("{pid}: {error}"));
        Self { pid, before: field(pid, "VmRSS:") }
    }

    /// KiB now.
    ///
    /// # Panics
    /// Where the process is gone.
    #[must_use]
    pub fn now(&self) -> u64 {
        field(self.pid, "VmRSS:")
    }

    /// The most KiB since the beginning.
    ///
    /// # Panics
    /// Where the process is gone.
    #[must_use]
    pub fn peak(&self) -> u64 {
        field(self.pid, "VmHWM:")
    }
}

fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|error| panic!("{pid}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.split_whitespace().next()).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("process {pid} tells no {name}"))
}
