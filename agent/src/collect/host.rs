//! The machine: CPU, memory, pressure, network, clock, and what it is. Procfs only, which cannot hang.

mod clock;
mod facts;
mod procfs;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mainstay_common::{
    Timestamp,
    metric::{Readings, catalogue as metric},
    process::now,
};
use mainstay_proto::v1 as pb;
use tokio::time::MissedTickBehavior;

use super::{Eyes, Once, readings, within};
use crate::board::Collector;

pub use facts::boot_id;

/// A reading takes a tenth of a millisecond; later than this, something is very wrong.
const DEADLINE: Duration = Duration::from_secs(2);

/// Reads the machine every interval until the eyes stop.
pub async fn run(eyes: Eyes) {
    let once = Once::default();
    let mut ticks = tokio::time::interval(eyes.config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reader = Some(Reader::new(&eyes.config.proc_root));
    loop {
        tokio::select! {
            () = eyes.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let began = Instant::now();
        // A reader that is still at work comes back with nobody; a new one takes over once it is free.
        let mut at_work = reader.take().unwrap_or_else(|| Reader::new(&eyes.config.proc_root));
        let read = within(&once, DEADLINE, move || {
            let (host, missing) = at_work.read(now());
            (at_work, host, missing)
        });
        let error = match read.await {
            Ok((back, host, missing)) => {
                reader = Some(back);
                eyes.board.put(|snapshot| snapshot.host = Some(host.into()));
                (!missing.is_empty()).then(|| format!("cannot read {}", missing.join(", ")))
            }
            Err(late) => Some(late.to_string()),
        };
        eyes.board.fared(Collector::Host, began.elapsed(), error, now());
    }
}

/// Reads all files with one buffer, and remembers what must not run backwards.
struct Reader {
    proc_root: PathBuf,
    buffer: Vec<u8>,
    facts: facts::Facts,
    /// Seconds per mode: the kernel lets iowait, and with it idle, run backwards.
    cpu: BTreeMap<&'static str, f64>,
}

impl Reader {
    fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            buffer: Vec::with_capacity(4_096),
            facts: facts::Facts::read(),
            cpu: BTreeMap::new(),
        }
    }

    /// Everything that can be read, and the names of what should be there but cannot.
    fn read(&mut self, at: Timestamp) -> (pb::Host, Vec<&'static str>) {
        let mut known = Readings::new();
        let mut missing = Vec::new();
        let mut links = Vec::new();
        for name in ["stat", "loadavg", "meminfo", "vmstat", "uptime", "net/dev"] {
            let Some(text) = self.text(name) else {
                missing.push(name);
                continue;
            };
            match name {
                "stat" => {
                    let stat = procfs::stat(text, clock::ticks_per_second());
                    stat.readings(&mut known);
                    self.keep_cpu(&stat.cpu);
                }
                "loadavg" => procfs::loadavg(text, &mut known),
                "meminfo" => procfs::meminfo(text, &mut known),
                "vmstat" => procfs::vmstat(text, &mut known),
                "uptime" => known.set(&metric::UPTIME_SECONDS, procfs::uptime(text)),
                _ => links = procfs::net_dev(text),
            }
        }
        // A kernel without pressure accounting has none of these files: absent, and nothing to complain of.
        for (name, waiting, stalled) in PRESSURE {
            if let Some(text) = self.text(name) {
                procfs::pressure(text, waiting, *stalled, &mut known);
            }
        }
        let clock = clock::read();
        known.set(&metric::CLOCK_OFFSET_SECONDS, clock.and_then(|clock| clock.offset_seconds));
        known.set_count(&metric::CLOCK_SYNCHRONIZED, clock.map(|clock| u64::from(clock.synchronized)));
        let reboot_required = self.facts.reboot_required();
        known.set_count(&metric::REBOOT_REQUIRED, reboot_required.map(u64::from));
        let host = pb::Host {
            read_at_ms: at.0,
            hostname: facts::hostname(),
            kernel: self.facts.kernel.clone(),
            os: self.facts.os.clone(),
            architecture: self.facts.architecture.clone(),
            reboot_required,
            clock_synchronized: clock.map(|clock| clock.synchronized),
            readings: readings(&known),
            links: links.into_iter().map(|(name, counters)| pb::Link { name, readings: readings(&counters) }).collect(),
            cpu: procfs::MODES
                .iter()
                .filter_map(|mode| {
                    let seconds_total = *self.cpu.get(mode)?;
                    Some(pb::CpuMode { mode: (*mode).to_owned(), seconds_total })
                })
                .collect(),
        };
        (host, missing)
    }

    fn keep_cpu(&mut self, read: &[(&'static str, f64)]) {
        for (mode, seconds) in read {
            let kept = self.cpu.entry(mode).or_insert(*seconds);
            *kept = kept.max(*seconds);
        }
    }

    fn text(&mut self, name: &str) -> Option<&[u8]> {
        self.buffer.clear();
        File::open(self.proc_root.join(name)).ok()?.read_to_end(&mut self.buffer).ok()?;
        Some(&self.buffer)
    }
}

type Pressure =
    (&'static str, &'static mainstay_common::metric::Metric, Option<&'static mainstay_common::metric::Metric>);

/// File, `some`, `full`. The kernel counts no `full` for CPUs of a whole machine.
static PRESSURE: &[Pressure] = &[
    ("pressure/cpu", &metric::PRESSURE_CPU_WAITING_SECONDS_TOTAL, None),
    (
        "pressure/memory",
        &metric::PRESSURE_MEMORY_WAITING_SECONDS_TOTAL,
        Some(&metric::PRESSURE_MEMORY_STALLED_SECONDS_TOTAL),
    ),
    ("pressure/io", &metric::PRESSURE_IO_WAITING_SECONDS_TOTAL, Some(&metric::PRESSURE_IO_STALLED_SECONDS_TOTAL)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read_whole() {
        let (host, missing) = Reader::new(Path::new("/proc")).read(Timestamp(5));
        assert_eq!(missing, Vec::<&str>::new());
        let lists = host.readings.unwrap();
        let known = Readings::from_lists(&lists.metric, &lists.value);
        for metric in [&metric::MEMORY_TOTAL_BYTES, &metric::LOAD1, &metric::UPTIME_SECONDS, &metric::CPUS] {
            assert!(known.get(metric).is_some(), "{}", metric.name);
        }
        assert!(!host.hostname.is_empty() && !host.kernel.is_empty() && !host.architecture.is_empty());
        assert_eq!(host.cpu.len(), 8);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_stays() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("uptime"), "12.5 3.0\n").unwrap();
        let (host, missing) = Reader::new(place.path()).read(Timestamp(5));
        assert_eq!(missing, ["stat", "loadavg", "meminfo", "vmstat", "net/dev"]);
        let lists = host.readings.unwrap();
        assert_eq!(Readings::from_lists(&lists.metric, &lists.value).get(&metric::UPTIME_SECONDS), Some(12.5));
    }

    #[test]
    fn iowait_that_runs_backwards_stands_still() {
        let mut reader = Reader::new(Path::new("/proc"));
        reader.keep_cpu(&[("iowait", 10.0), ("user", 5.0)]);
        reader.keep_cpu(&[("iowait", 9.5), ("user", 6.0)]);
        assert_eq!(reader.cpu, BTreeMap::from([("iowait", 10.0), ("user", 6.0)]));
    }
}
