//! What the files of `/proc` say. Text in, readings out; a line that is missing leaves its reading unknown.

use mainstay_common::metric::{Metric, Readings, catalogue as metric};

/// Modes of a CPU, in the kernel's order. Guests are part of user and nice.
pub(super) const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// `/proc/stat`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stat {
    pub(super) cpu: Vec<(&'static str, f64)>,
    cpus: u64,
    boot_time: Option<u64>,
    running: Option<u64>,
    blocked: Option<u64>,
}

impl Stat {
    pub(super) fn readings(&self, known: &mut Readings) {
        known.set_count(&metric::CPUS, (self.cpus > 0).then_some(self.cpus));
        known.set_count(&metric::BOOT_TIME_SECONDS, self.boot_time);
        known.set_count(&metric::PROCS_RUNNING, self.running);
        known.set_count(&metric::PROCS_BLOCKED, self.blocked);
    }
}

pub(super) fn stat(text: &[u8], ticks_per_second: f64) -> Stat {
    let mut stat = Stat::default();
    for line in lines(text) {
        let mut fields = line.split_ascii_whitespace();
        match fields.next() {
            Some("cpu") => {
                let seconds = fields.map_while(|ticks| ticks.parse::<f64>().ok()).map(|ticks| ticks / ticks_per_second);
                stat.cpu = MODES.iter().copied().zip(seconds).collect();
            }
            Some("btime") => stat.boot_time = count(fields.next()),
            Some("procs_running") => stat.running = count(fields.next()),
            Some("procs_blocked") => stat.blocked = count(fields.next()),
            Some(name) if name.starts_with("cpu") => stat.cpus += 1,
            _ => {}
        }
    }
    stat
}

pub(super) fn loadavg(text: &[u8], known: &mut Readings) {
    let Some(line) = lines(text).next() else { return };
    let loads = line.split_ascii_whitespace().map(|load| load.parse::<f64>().ok());
    for (metric, load) in [&metric::LOAD1, &metric::LOAD5, &metric::LOAD15].into_iter().zip(loads) {
        known.set(metric, load);
    }
}

pub(super) fn meminfo(text: &[u8], known: &mut Readings) {
    let wanted: [(&str, &Metric); 6] = [
        ("MemTotal", &metric::MEMORY_TOTAL_BYTES),
        ("MemAvailable", &metric::MEMORY_AVAILABLE_BYTES),
        ("Cached", &metric::MEMORY_CACHED_BYTES),
        ("Dirty", &metric::MEMORY_DIRTY_BYTES),
        ("SwapTotal", &metric::SWAP_TOTAL_BYTES),
        ("SwapFree", &metric::SWAP_FREE_BYTES),
    ];
    for line in lines(text) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        if let Some((_, metric)) = wanted.iter().find(|(wanted, _)| *wanted == name) {
            let kibibytes = count(rest.split_ascii_whitespace().next());
            known.set_count(metric, kibibytes.and_then(|size| size.checked_mul(1_024)));
        }
    }
}

pub(super) fn vmstat(text: &[u8], known: &mut Readings) {
    for line in lines(text) {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let metric = match name {
            "pswpin" => &metric::SWAP_IN_PAGES_TOTAL,
            "pswpout" => &metric::SWAP_OUT_PAGES_TOTAL,
            "oom_kill" => &metric::OOM_KILLS_TOTAL,
            _ => continue,
        };
        known.set_count(metric, count(Some(value)));
    }
}

/// The totals of one pressure file, which are microseconds.
pub(super) fn pressure(text: &[u8], waiting: &Metric, stalled: Option<&Metric>, known: &mut Readings) {
    for line in lines(text) {
        let total = line.rsplit_once("total=").and_then(|(_, total)| total.trim().parse::<f64>().ok());
        let seconds = total.map(|microseconds| microseconds / 1e6);
        match (line.split(' ').next(), stalled) {
            (Some("some"), _) => known.set(waiting, seconds),
            (Some("full"), Some(stalled)) => known.set(stalled, seconds),
            _ => {}
        }
    }
}

pub(super) fn uptime(text: &[u8]) -> Option<f64> {
    lines(text).next()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Links of their own: containers' ends, bridges of Docker and loopback are left out.
pub(super) fn net_dev(text: &[u8]) -> Vec<(String, Readings)> {
    lines(text).filter_map(link).collect()
}

fn link(line: &str) -> Option<(String, Readings)> {
    let (name, counters) = line.rsplit_once(':')?;
    let name = name.trim();
    if name == "lo" || name == "docker0" || name.starts_with("veth") || name.starts_with("br-") {
        return None;
    }
    let counters: Vec<Option<u64>> = counters.split_ascii_whitespace().map(|value| count(Some(value))).collect();
    let mut known = Readings::new();
    for (at, metric) in [
        (0, &metric::NETWORK_RECEIVE_BYTES_TOTAL),
        (2, &metric::NETWORK_RECEIVE_ERRORS_TOTAL),
        (3, &metric::NETWORK_RECEIVE_DROPS_TOTAL),
        (8, &metric::NETWORK_TRANSMIT_BYTES_TOTAL),
        (10, &metric::NETWORK_TRANSMIT_ERRORS_TOTAL),
        (11, &metric::NETWORK_TRANSMIT_DROPS_TOTAL),
    ] {
        known.set_count(metric, counters.get(at).copied().flatten());
    }
    (!known.is_empty()).then(|| (name.to_owned(), known))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

fn count(text: Option<&str>) -> Option<u64> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_told_by_mode_and_cpus_are_counted() {
        let text = b"cpu  100 0 50 4000 7 0 1 2 9 9\ncpu0 50 0 25 2000 3 0 0 1 0 0\ncpu1 50 0 25 2000 4 0 1 1 0 0\nintr 5 0 0\nbtime 1795461998\nprocs_running 4\nprocs_blocked 1\n";
        let stat = stat(text, 100.0);
        assert_eq!(stat.cpu.len(), 8);
        assert_eq!((stat.cpu[0], stat.cpu[7]), (("user", 1.0), ("steal", 0.02)));
        let mut known = Readings::new();
        stat.readings(&mut known);
        assert_eq!(known.count(&metric::CPUS), Some(2));
        assert_eq!(known.count(&metric::BOOT_TIME_SECONDS), Some(1_795_461_998));
        assert_eq!(known.count(&metric::PROCS_BLOCKED), Some(1));
    }

    #[test]
    fn memory_is_bytes_and_an_old_kernel_leaves_available_unknown() {
        let mut known = Readings::new();
        meminfo(b"MemTotal:       24684092 kB\nMemFree: 5 kB\nCached:  10 kB\nSwapCached: 99 kB\n", &mut known);
        assert_eq!(known.count(&metric::MEMORY_TOTAL_BYTES), Some(25_276_510_208));
        assert_eq!(known.count(&metric::MEMORY_CACHED_BYTES), Some(10_240));
        assert_eq!(known.get(&metric::MEMORY_AVAILABLE_BYTES), None);
    }

    #[test]
    fn links_of_containers_are_left_out() {
        let text = b"Inter-|   Receive |  Transmit\n face |bytes packets errs drop\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0:164627062    5699    1    2    0     0          0         0   431004    3506    3    4    0     0       0          0\nveth12: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\nbr-abc: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        let links = net_dev(text);
        assert_eq!(links.len(), 1);
        let (name, known) = &links[0];
        assert_eq!(name, "eth0");
        let told = [
            &metric::NETWORK_RECEIVE_BYTES_TOTAL,
            &metric::NETWORK_RECEIVE_DROPS_TOTAL,
            &metric::NETWORK_TRANSMIT_BYTES_TOTAL,
            &metric::NETWORK_TRANSMIT_DROPS_TOTAL,
        ];
        assert_eq!(told.map(|metric| known.count(metric)), [Some(164_627_062), Some(2), Some(431_004), Some(4)]);
    }

    #[test]
    fn pressure_and_the_small_files() {
        let mut known = Readings::new();
        let text = b"some avg10=3.60 avg60=1.32 avg300=0.53 total=8196643\nfull avg10=3.15 avg60=1.13 avg300=0.47 total=7493937\n";
        let (waiting, stalled) =
            (&metric::PRESSURE_IO_WAITING_SECONDS_TOTAL, &metric::PRESSURE_IO_STALLED_SECONDS_TOTAL);
        pressure(text, waiting, Some(stalled), &mut known);
        assert_eq!((known.get(waiting), known.get(stalled)), (Some(8.196_643), Some(7.493_937)));
        loadavg(b"0.42 1.00 2.50 3/120 999\n", &mut known);
        assert_eq!((known.get(&metric::LOAD1), known.get(&metric::LOAD15)), (Some(0.42), Some(2.5)));
        vmstat(b"nr_free_pages 5\npswpin 1\npswpout 2\noom_kill 3\n", &mut known);
        assert_eq!(known.count(&metric::OOM_KILLS_TOTAL), Some(3));
        assert_eq!(uptime(b"12345.67 999.00\n"), Some(12_345.67));
    }
}
