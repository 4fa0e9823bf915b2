//! What the files of a control group and `/proc/PID/net/dev` say. Pure.

use mainstay_common::metric::{Readings, catalogue as m};

use super::cgroup::{Controller, Version};

/// One file of a container's control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// CPU time; with version 2 the time held back, too.
    Cpu,
    /// The time held back, with version 1.
    Throttled,
    /// Memory, page cache included.
    Memory,
    /// Of what the memory consists.
    MemoryStat,
    /// Bytes of block devices.
    Io,
    /// The memory limit.
    Limit,
    /// Processes killed for lack of memory.
    Oom,
    /// Processes and threads.
    Pids,
}

impl File {
    /// Those that are read every time: a container that changes in neither did nothing.
    pub(super) const TELLING: &[Self] = &[Self::Cpu, Self::Memory];
    /// Those that change only with what the container does. The kernel takes long to write `memory.stat`.
    pub(super) const DEPENDENT: &[Self] = &[Self::MemoryStat, Self::Io];
    /// Those that are read once a minute.
    pub(super) const SLOW: &[Self] = &[Self::Throttled, Self::Limit, Self::Oom, Self::Pids];

    /// Who keeps it.
    pub(super) fn controller(self) -> Controller {
        match self {
            Self::Cpu => Controller::Cpuacct,
            Self::Throttled => Controller::Cpu,
            Self::Memory | Self::MemoryStat | Self::Limit | Self::Oom => Controller::Memory,
            Self::Io => Controller::Io,
            Self::Pids => Controller::Pids,
        }
    }

    /// Its name; `None` where this version has it elsewhere.
    pub(super) fn name(self, version: Version) -> Option<&'static str> {
        Some(match (version, self) {
            (Version::V1, Self::Cpu) => "cpuacct.usage",
            (Version::V1, Self::Throttled) | (Version::V2, Self::Cpu) => "cpu.stat",
            (Version::V2, Self::Throttled) => return None,
            (Version::V1, Self::Memory) => "memory.usage_in_bytes",
            (Version::V2, Self::Memory) => "memory.current",
            (_, Self::MemoryStat) => "memory.stat",
            (Version::V1, Self::Io) => "blkio.throttle.io_service_bytes",
            (Version::V2, Self::Io) => "io.stat",
            (Version::V1, Self::Limit) => "memory.limit_in_bytes",
            (Version::V2, Self::Limit) => "memory.max",
            (Version::V1, Self::Oom) => "memory.oom_control",
            (Version::V2, Self::Oom) => "memory.events",
            (_, Self::Pids) => "pids.current",
        })
    }
}

/// What was read of one container; what was not is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    cpu_seconds: Option<f64>,
    throttled_seconds: Option<f64>,
    memory_bytes: Option<u64>,
    inactive_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    pub(super) oom_kills: Option<u64>,
    block_read_bytes: Option<u64>,
    block_written_bytes: Option<u64>,
    pids: Option<u64>,
    received_bytes: Option<u64>,
    transmitted_bytes: Option<u64>,
}

/// Version 1 says "no limit" with the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

impl Usage {
    /// Takes over what a file says.
    pub(super) fn take(&mut self, file: File, version: Version, text: &[u8]) {
        match (version, file) {
            (Version::V1, File::Cpu) => self.cpu_seconds = number(text).map(|nanos| seconds(nanos, 1e9)),
            (Version::V2, File::Cpu) => {
                self.cpu_seconds = value(text, "usage_usec").map(|micros| seconds(micros, 1e6));
                self.throttled_seconds = value(text, "throttled_usec").map(|micros| seconds(micros, 1e6));
            }
            (Version::V1, File::Throttled) => {
                self.throttled_seconds = value(text, "throttled_time").map(|nanos| seconds(nanos, 1e9));
            }
            (Version::V2, File::Throttled) => {}
            (_, File::Memory) => self.memory_bytes = number(text),
            (Version::V1, File::MemoryStat) => self.inactive_bytes = value(text, "total_inactive_file"),
            (Version::V2, File::MemoryStat) => self.inactive_bytes = value(text, "inactive_file"),
            (Version::V1, File::Io) => {
                (self.block_read_bytes, self.block_written_bytes) = (v1_io(text, "Read"), v1_io(text, "Write"));
            }
            (Version::V2, File::Io) => {
                (self.block_read_bytes, self.block_written_bytes) = (v2_io(text, "rbytes="), v2_io(text, "wbytes="));
            }
            // "max" is no number, and no limit.
            (_, File::Limit) => self.limit_bytes = number(text).filter(|limit| *limit < NO_LIMIT),
            (_, File::Oom) => self.oom_kills = value(text, "oom_kill"),
            (_, File::Pids) => self.pids = number(text),
        }
    }

    /// Takes over `/proc/PID/net/dev`, loopback aside.
    pub(super) fn take_network(&mut self, net_dev: &[u8]) {
        let (mut received, mut transmitted) = (0_u64, 0_u64);
        for line in text(net_dev).lines() {
            let Some((name, counters)) = line.split_once(':') else { continue };
            let mut counters = counters.split_ascii_whitespace().map_while(|field| field.parse::<u64>().ok());
            if let (false, Some(bytes_in), Some(bytes_out)) = (name.trim() == "lo", counters.next(), counters.nth(7)) {
                received = received.saturating_add(bytes_in);
                transmitted = transmitted.saturating_add(bytes_out);
            }
        }
        (self.received_bytes, self.transmitted_bytes) = (Some(received), Some(transmitted));
    }

    /// True where both say that the container did nothing between them.
    pub(super) fn is_idle_since(&self, before: &Self) -> bool {
        let telling = |usage: &Self| usage.cpu_seconds.zip(usage.memory_bytes);
        telling(self).is_some() && telling(self) == telling(before)
    }

    /// Takes over from `before` what only a container that does something changes.
    pub(super) fn with_dependent(self, before: &Self) -> Self {
        Self {
            inactive_bytes: before.inactive_bytes,
            block_read_bytes: before.block_read_bytes,
            block_written_bytes: before.block_written_bytes,
            ..self
        }
    }

    /// Takes over from `slow` what is read more rarely.
    pub(super) fn with_slow(self, slow: &Self) -> Self {
        Self {
            throttled_seconds: self.throttled_seconds.or(slow.throttled_seconds),
            limit_bytes: slow.limit_bytes,
            oom_kills: slow.oom_kills,
            pids: slow.pids,
            ..self
        }
    }

    /// As readings; kills are counted elsewhere, over all lives of the container.
    pub(super) fn readings(&self) -> Readings {
        let mut readings = Readings::new();
        // As `docker stats` counts: what the kernel can take back at once is not in use.
        let used = self.memory_bytes.zip(self.inactive_bytes).map(|(all, inactive)| all.saturating_sub(inactive));
        readings.set(&m::CONTAINER_CPU_SECONDS_TOTAL, self.cpu_seconds);
        readings.set(&m::CONTAINER_THROTTLED_SECONDS_TOTAL, self.throttled_seconds);
        readings.set_count(&m::CONTAINER_MEMORY_USED_BYTES, used);
        readings.set_count(&m::CONTAINER_MEMORY_LIMIT_BYTES, self.limit_bytes);
        readings.set_count(&m::CONTAINER_BLOCK_READ_BYTES_TOTAL, self.block_read_bytes);
        readings.set_count(&m::CONTAINER_BLOCK_WRITTEN_BYTES_TOTAL, self.block_written_bytes);
        readings.set_count(&m::CONTAINER_NETWORK_RECEIVE_BYTES_TOTAL, self.received_bytes);
        readings.set_count(&m::CONTAINER_NETWORK_TRANSMIT_BYTES_TOTAL, self.transmitted_bytes);
        readings.set_count(&m::CONTAINER_PIDS, self.pids);
        readings
    }
}

/// The kernel writes ASCII here; anything else is no number.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn number(bytes: &[u8]) -> Option<u64> {
    text(bytes).trim().parse().ok()
}

/// The number on the line of that name.
fn value(bytes: &[u8], name: &str) -> Option<u64> {
    text(bytes).lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `8:0 Read 4096` for each device; nothing was read where there is no line.
fn v1_io(bytes: &[u8], operation: &str) -> Option<u64> {
    let of = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        (fields.next()? == operation).then(|| fields.next()?.parse::<u64>().ok())?
    };
    (!bytes.is_empty()).then(|| text(bytes).lines().filter_map(of).fold(0, u64::saturating_add))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 ...` for each device. The file is empty before the first byte.
fn v2_io(bytes: &[u8], key: &str) -> Option<u64> {
    let values = text(bytes).split_ascii_whitespace().filter_map(|field| field.strip_prefix(key)?.parse::<u64>().ok());
    Some(values.fold(0, u64::saturating_add))
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days of CPU time; beyond, a few ns are lost")]
fn seconds(count: u64, per_second: f64) -> f64 {
    count as f64 / per_second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1() {
        let usage = read(
            Version::V1,
            &[
                (File::Cpu, "1500000000\n"),
                (File::Throttled, "nr_periods 10\nnr_throttled 2\nthrottled_time 250000000\n"),
                (File::Memory, "10485760\n"),
                (File::MemoryStat, "cache 4194304\ninactive_file 1\ntotal_inactive_file 4194304\n"),
                (File::Limit, "9223372036854771712\n"),
                (File::Oom, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                (File::Io, "8:0 Read 4096\n8:0 Write 512\n8:0 Total 4608\n8:16 Read 1\n8:16 Write 0\nTotal 4609\n"),
                (File::Pids, "7\n"),
            ],
        );
        assert_eq!((usage.cpu_seconds, usage.throttled_seconds), (Some(1.5), Some(0.25)));
        assert_eq!((usage.limit_bytes, usage.oom_kills, usage.pids), (None, Some(3), Some(7)));
        assert_eq!((usage.block_read_bytes, usage.block_written_bytes), (Some(4_097), Some(512)));
        assert_eq!(usage.readings().count(&m::CONTAINER_MEMORY_USED_BYTES), Some(6_291_456));
    }

    #[test]
    fn version_2() {
        let usage = read(
            Version::V2,
            &[
                (
                    File::Cpu,
                    "usage_usec 2500000\nuser_usec 1\nsystem_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 500000\n",
                ),
                (File::Memory, "8388608\n"),
                (File::MemoryStat, "anon 1\nfile 3\ninactive_anon 5\nactive_file 2\ninactive_file 4194304\n"),
                (File::Limit, "536870912\n"),
                (File::Oom, "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"),
                (
                    File::Io,
                    "259:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n",
                ),
                (File::Pids, "max\n"),
            ],
        );
        assert_eq!((usage.cpu_seconds, usage.throttled_seconds), (Some(2.5), Some(0.5)));
        assert_eq!((usage.limit_bytes, usage.oom_kills, usage.pids), (Some(536_870_912), Some(1), None));
        assert_eq!((usage.block_read_bytes, usage.block_written_bytes), (Some(8_193), Some(4_098)));
        assert_eq!(usage.readings().count(&m::CONTAINER_MEMORY_USED_BYTES), Some(4_194_304));
    }

    #[test]
    fn no_limit_and_half_a_reading_are_unknown() {
        let usage = read(Version::V2, &[(File::Limit, "max\n"), (File::Memory, "5\n"), (File::Cpu, "usage_usec x\n")]);
        let readings = usage.readings();
        assert_eq!(readings.get(&m::CONTAINER_MEMORY_LIMIT_BYTES), None);
        assert_eq!(readings.get(&m::CONTAINER_MEMORY_USED_BYTES), None, "the page cache is not known");
        assert!(readings.is_empty());
    }

    #[test]
    fn nothing_read_from_disk_yet_is_zero_bytes() {
        assert_eq!(read(Version::V2, &[(File::Io, "")]).block_read_bytes, Some(0));
        assert_eq!(read(Version::V1, &[(File::Io, "Total 0\n")]).block_read_bytes, Some(0));
        assert_eq!(read(Version::V1, &[(File::Io, "")]).block_read_bytes, None);
    }

    #[test]
    fn loopback_does_not_count() {
        let mut usage = Usage::default();
        usage.take_network(b"Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    9999      10    0    0    0     0          0         0     9999      10    0    0    0     0       0          0
  eth0:    1296      16    0    0    0     0          0         0      100       2    0    0    0     0       0          0
  eth1:4 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0
");
        assert_eq!((usage.received_bytes, usage.transmitted_bytes), (Some(1_300), Some(105)));
    }

    fn read(version: Version, files: &[(File, &str)]) -> Usage {
        let mut usage = Usage::default();
        files.iter().for_each(|(file, text)| usage.take(*file, version, text.as_bytes()));
        usage
    }
}
