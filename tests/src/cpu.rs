//! How much CPU time processes took, as the kernel counts: in ticks of 10 ms.

use std::{fs, time::Duration};

/// User and system time of these processes, all threads together.
///
/// # Panics
/// Where one is gone.
#[must_use]
pub fn taken(pids: &[u32]) -> Duration {
    let ticks: u64 = pids.iter().map(|pid| ticks(*pid)).sum();
    Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
}

fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|error| panic!("{pid}: {error}"));
    // The name in parentheses may hold anything; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().collect::<Vec<_>>());
    let field = |n: usize| fields.as_ref()?.get(n)?.parse::<u64>().ok();
    field(11).zip(field(12)).map(|(user, system)| user + system).unwrap_or_else(|| panic!("{stat}"))
}
