//! `/proc/diskstats`: what every block device did since boot.

use std::{collections::HashMap, ops::AddAssign};

/// A sector of this file is 512 bytes, whatever the device's own are
/// (Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

/// Counters of one device, or of several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Io {
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) read_ms: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) write_ms: u64,
    pub(super) busy_ms: u64,
}

impl AddAssign for Io {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.read_bytes += other.read_bytes;
        self.read_ms += other.read_ms;
        self.writes += other.writes;
        self.written_bytes += other.written_bytes;
        self.write_ms += other.write_ms;
        self.busy_ms += other.busy_ms;
    }
}

/// Reads the counters of the devices that are `wanted`, by their kernel names.
pub(super) fn parse(text: &[u8], wanted: impl Fn(&str) -> bool) -> HashMap<&str, Io> {
    let lines = text.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(2);
            let name = fields.next().filter(|name| wanted(name))?;
            Some((name, io(fields)?))
        })
        .collect()
}

fn io<'a>(fields: impl Iterator<Item = &'a str>) -> Option<Io> {
    let mut values = [0; 10];
    let mut count = 0;
    for (value, field) in values.iter_mut().zip(fields) {
        *value = field.parse().ok()?;
        count += 1;
    }
    let [reads, _, read_sectors, read_ms, writes, _, written_sectors, write_ms, _, busy_ms] = values;
    (count == values.len()).then(|| Io {
        reads,
        read_bytes: read_sectors.saturating_mul(SECTOR_BYTES),
        read_ms,
        writes,
        written_bytes: written_sectors.saturating_mul(SECTOR_BYTES),
        write_ms,
        busy_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b" 254       0 vda 32671 6008 2650202 8078 15034 66856 30873288 113309 0 9716 122670 5992 40 388936 1247 908 35\n   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0\n   8       1 sda1 5 0 8 1\n";

    #[test]
    fn sectors_become_bytes_and_only_wanted_devices_are_read() {
        let all = parse(TEXT, |name| name == "vda");
        let expected = Io {
            reads: 32_671,
            read_bytes: 1_356_903_424,
            read_ms: 8_078,
            writes: 15_034,
            written_bytes: 15_807_123_456,
            write_ms: 113_309,
            busy_ms: 9_716,
        };
        assert_eq!(all, HashMap::from([("vda", expected)]));
    }

    #[test]
    fn a_line_of_another_shape_is_unknown() {
        let all = parse(TEXT, |_| true);
        assert_eq!(all.get("loop0"), Some(&Io::default()));
        assert_eq!(all.get("sda1"), None, "four fields are what partitions had before 2.6.25");
    }
}
