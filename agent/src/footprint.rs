//! What the agent itself costs: CPU, memory, threads, descriptors, children.

use std::{fs, path::Path, time::Duration};

use mainstay_common::{
    metric::{Readings, catalogue as m},
    process::shutdown::CancellationToken,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    collect::{Once, within},
    session::Stands,
};

/// The kernel walks all pages for it: not more often than this.
const MEMORY_EVERY: Duration = Duration::from_secs(60);
/// These files answer at once; a machine in trouble may not.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads the footprint every `every`, until `stop`.
pub async fn follow(told: watch::Sender<Readings>, stands: Stands, every: Duration, stop: CancellationToken) {
    let once = Once::default();
    let mut turns = interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut memory: Option<(Instant, Option<u64>)> = None;
    let mut cpu_before = 0.0;
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = stop.cancelled() => return,
        }
        let with_memory = memory.is_none_or(|(at, _)| at.elapsed() >= MEMORY_EVERY);
        let Ok(read) = within(&once, LIMIT, move || read(Path::new("/proc"), with_memory)).await else { continue };
        if with_memory {
            memory = Some((Instant::now(), read.pss_bytes));
        }
        let mut readings = Readings::new();
        // A child that ends is in nobody's account for a moment: a counter must not go down.
        cpu_before = read.cpu_seconds.unwrap_or(0.0).max(cpu_before);
        readings.set(&m::AGENT_CPU_SECONDS_TOTAL, read.cpu_seconds.map(|_| cpu_before));
        readings.set_count(&m::AGENT_PSS_BYTES, memory.and_then(|(_, bytes)| bytes));
        readings.set_count(&m::AGENT_PROBE_CHILDREN, read.children);
        readings.set_count(&m::AGENT_THREADS, read.threads);
        readings.set_count(&m::AGENT_OPEN_FILES, read.open_files);
        readings.set_count(&m::AGENT_STREAM_BYTES_TOTAL, stands.bytes());
        readings.set_count(&m::AGENT_STREAM_DROPPED_TOTAL, stands.dropped());
        told.send_replace(readings);
    }
}

/// One look at ourselves; what could not be read is unknown.
#[derive(Debug, Default)]
struct Footprint {
    cpu_seconds: Option<f64>,
    pss_bytes: Option<u64>,
    children: Option<u64>,
    threads: Option<u64>,
    open_files: Option<u64>,
}

fn read(proc: &Path, with_memory: bool) -> Footprint {
    let ticks = rustix::param::clock_ticks_per_second();
    let own = proc.join("self");
    let children = children(&own);
    let everyone = || children.iter().flatten().map(|pid| proc.join(pid.to_string())).chain([own.clone()]);
    let cpu = |folder: &Path| parse_ticks(&fs::read_to_string(folder.join("stat")).ok()?);
    let own_ticks = cpu(&own);
    let child_ticks: u64 = children.iter().flatten().filter_map(|pid| cpu(&proc.join(pid.to_string()))).sum();
    #[expect(clippy::cast_precision_loss, reason = "CPU time of a process is far below 2^53 ticks")]
    let seconds = |own: u64| own.saturating_add(child_ticks) as f64 / ticks as f64;
    Footprint {
        cpu_seconds: own_ticks.map(seconds),
        pss_bytes: with_memory
            .then(|| everyone().filter_map(|folder| pss(&folder)).reduce(u64::saturating_add))
            .flatten(),
        children: children.as_ref().map(|pids| count(pids.len())),
        threads: entries(&own.join("task")),
        open_files: entries(&own.join("fd")),
    }
}

fn pss(folder: &Path) -> Option<u64> {
    parse_pss(&fs::read_to_string(folder.join("smaps_rollup")).ok()?)
}

fn entries(folder: &Path) -> Option<u64> {
    fs::read_dir(folder).ok().map(|entries| count(entries.count()))
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The children of every thread; `None` where the kernel does not tell.
fn children(own: &Path) -> Option<Vec<u32>> {
    let mut pids = Vec::new();
    for thread in fs::read_dir(own.join("task")).ok()?.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => pids.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // The thread ended since; without the file at all there is no answer.
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(pids)
}

/// User and system time of `/proc/PID/stat` in ticks, with that of children that were waited for.
fn parse_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything; after it comes field 3.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    (ticks.len() == 4).then(|| ticks.iter().sum())
}

/// `Pss` of `/proc/PID/smaps_rollup`, in bytes.
fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_includes_children_that_ended() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 3 1 20 0 1 0 100 1000 10 18446744073709551615";
        assert_eq!(parse_ticks(stat), Some(16));
        assert_eq!(parse_ticks("42 (x) S 1"), None);
    }

    #[test]
    fn pss_is_in_bytes() {
        assert_eq!(parse_pss("5581 - 7ffd [rollup]\nRss: 99 kB\nPss:                3051 kB\n"), Some(3_124_224));
        assert_eq!(parse_pss("Rss: 99 kB\n"), None);
    }

    #[test]
    fn this_process_has_a_footprint() {
        let read = read(Path::new("/proc"), true);
        assert!(read.threads.unwrap() >= 1 && read.open_files.unwrap() >= 3);
        assert!(read.pss_bytes.unwrap() > 100_000 && read.cpu_seconds.is_some());
    }
}
