//! What is known of one disk becomes its row. Pure.

use mainstay_common::{
    Timestamp,
    metric::{Readings, catalogue as m},
    state::DiskState,
};
use mainstay_proto::v1 as pb;

use super::{device::Health, diskstats::Io};
use crate::{
    collect::{mountinfo::Mounted, readings},
    probe::{Errno, Space},
};

/// What came of the last question about a disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Last {
    /// None was answered yet.
    #[default]
    Nothing,
    /// An answer.
    Told(Result<(), Errno>),
    /// No answer since then.
    Silent(Timestamp),
    /// No question could be asked.
    NotAsked(String),
}

/// What is known of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) last: Last,
    /// The last sizes, and when they were read.
    pub(super) space: Option<(Space, Timestamp)>,
    pub(super) latency_seconds: Option<f64>,
    pub(super) io: Option<Io>,
    pub(super) health: Health,
}

/// The row of a disk.
pub(super) fn row(disk: &Mounted, known: &Known) -> pb::Disk {
    let (state, reason) = state(disk, known);
    let mut values = Readings::new();
    values.set_count(&m::DISK_READONLY, u64::from(disk.entry.readonly));
    values.set(&m::DISK_LATENCY_SECONDS, known.latency_seconds);
    if let Some((space, _)) = &known.space {
        sizes(&mut values, space);
    }
    if let Some(io) = &known.io {
        counters(&mut values, io);
    }
    values.set_count(&m::DISK_ERRORS_TOTAL, known.health.errors);
    values.set_count(&m::DISK_LAST_ERROR_TIMESTAMP_SECONDS, known.health.last_error);
    values.set_count(&m::DISK_RAID_DEGRADED_DISKS, known.health.degraded);
    let fresh = known.last == Last::Told(Ok(()));
    pb::Disk {
        mount: disk.entry.path.clone(),
        device: disk.entry.source.clone(),
        fs: disk.entry.fs.clone(),
        state: state.number(),
        aliases: disk.aliases.clone(),
        readings: readings(&values),
        read_at_ms: known.space.filter(|_| !fresh).map(|(_, read_at)| read_at.0),
        reason,
    }
}

/// An error outweighs read-only: `errors=remount-ro` makes one of the other.
fn state(disk: &Mounted, known: &Known) -> (DiskState, String) {
    let health = &known.health;
    let offline = health.offline.join(", ");
    match &known.last {
        Last::Nothing => return (DiskState::Unknown, "not read yet".to_owned()),
        Last::Silent(since) => return (DiskState::Unknown, format!("no answer since {since}")),
        Last::NotAsked(why) => return (DiskState::Unknown, why.clone()),
        Last::Told(Err(errno)) => return (DiskState::Error, errno.name()),
        Last::Told(Ok(())) => {}
    }
    if health.all_offline {
        return (DiskState::Error, offline);
    }
    if let Some(errors) = health.errors.filter(|errors| *errors > 0) {
        let since = health.last_error.and_then(|seconds| i64::try_from(seconds.checked_mul(1_000)?).ok());
        let since = since.map(|at| format!(", the last at {}", Timestamp(at))).unwrap_or_default();
        let readonly = if disk.entry.readonly { "read-only; " } else { "" };
        return (DiskState::Error, format!("{readonly}{errors} errors counted{since}"));
    }
    if disk.entry.readonly {
        return (DiskState::Readonly, offline);
    }
    (DiskState::Ok, offline)
}

/// Exactly what `df` computes. btrfs and vfat count no inodes.
fn sizes(values: &mut Readings, space: &Space) {
    values.set_count(&m::DISK_TOTAL_BYTES, space.total_bytes());
    values.set_count(&m::DISK_USED_BYTES, space.used_bytes());
    values.set_count(&m::DISK_AVAILABLE_BYTES, space.available_bytes());
    values.set_count(&m::DISK_RESERVED_BYTES, space.reserved_bytes());
    let inodes = Some(space.inodes).filter(|inodes| *inodes > 0);
    values.set_count(&m::DISK_INODES_TOTAL, inodes);
    values.set_count(&m::DISK_INODES_USED, inodes.map(|inodes| inodes.saturating_sub(space.inodes_free)));
}

fn counters(values: &mut Readings, io: &Io) {
    values.set_count(&m::DISK_READS_TOTAL, io.reads);
    values.set_count(&m::DISK_WRITES_TOTAL, io.writes);
    values.set_count(&m::DISK_READ_BYTES_TOTAL, io.read_bytes);
    values.set_count(&m::DISK_WRITTEN_BYTES_TOTAL, io.written_bytes);
    values.set(&m::DISK_READ_SECONDS_TOTAL, seconds(io.read_ms));
    values.set(&m::DISK_WRITE_SECONDS_TOTAL, seconds(io.write_ms));
    values.set(&m::DISK_IO_SECONDS_TOTAL, seconds(io.busy_ms));
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of IO are far below 2^53")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mountinfo::{Entry, parse};

    #[test]
    fn sizes_are_those_of_df_and_missing_inodes_are_unknown() {
        let row = row(&disk("rw"), &told());
        let values = values(&row);
        assert_eq!(values.count(&m::DISK_TOTAL_BYTES), Some(4_096_000));
        assert_eq!(values.count(&m::DISK_USED_BYTES), Some(2_457_600));
        assert_eq!(values.count(&m::DISK_AVAILABLE_BYTES), Some(1_228_800));
        assert_eq!(values.count(&m::DISK_RESERVED_BYTES), Some(409_600));
        assert_eq!(values.get(&m::DISK_INODES_TOTAL), None);
        assert_eq!((row.state, row.read_at_ms), (DiskState::Ok.number(), None));
    }

    #[test]
    fn a_disk_that_does_not_answer_keeps_its_sizes_with_their_age() {
        let row = row(&disk("rw"), &Known { last: Last::Silent(Timestamp(20_000)), ..told() });
        assert_eq!((row.state, row.read_at_ms), (DiskState::Unknown.number(), Some(7)));
        assert_eq!(row.reason, "no answer since 1970-01-01T00:00:20.000Z");
        assert_eq!(values(&row).count(&m::DISK_USED_BYTES), Some(2_457_600));
    }

    #[test]
    fn read_only_after_errors_is_an_error() {
        let health = Health { errors: Some(3), last_error: Some(1_700_000_000), ..Health::default() };
        let failed = row(&disk("ro,errors=remount-ro"), &Known { health, ..told() });
        assert_eq!(failed.state, DiskState::Error.number());
        assert_eq!(failed.reason, "read-only; 3 errors counted, the last at 2023-11-14T22:13:20.000Z");
        assert_eq!(row(&disk("ro"), &told()).state, DiskState::Readonly.number());
        let eio = row(&disk("rw"), &Known { last: Last::Told(Err(Errno(libc::EIO))), ..told() });
        assert_eq!((eio.state, eio.reason.as_str(), eio.read_at_ms), (DiskState::Error.number(), "EIO", Some(7)));
    }

    #[test]
    fn one_disk_of_two_offline_is_told_and_no_failure() {
        let health = Health { offline: vec!["sdb is offline".into()], ..Health::default() };
        let half = row(&disk("rw"), &Known { health: health.clone(), ..told() });
        assert_eq!((half.state, half.reason.as_str()), (DiskState::Ok.number(), "sdb is offline"));
        let whole = row(&disk("rw"), &Known { health: Health { all_offline: true, ..health }, ..told() });
        assert_eq!(whole.state, DiskState::Error.number());
    }

    fn told() -> Known {
        let space =
            Space { fragment_bytes: 4_096, blocks: 1_000, blocks_free: 400, blocks_available: 300, ..Space::default() };
        Known { last: Last::Told(Ok(())), space: Some((space, Timestamp(7))), ..Known::default() }
    }

    fn disk(options: &str) -> Mounted {
        let entry: Entry = parse(format!("27 1 254:0 / /data rw - ext4 /dev/vda {options}").as_bytes()).unwrap();
        Mounted { entry, aliases: Vec::new(), shadowed: false, automounted: false }
    }

    fn values(row: &pb::Disk) -> Readings {
        row.readings.as_ref().map(|lists| Readings::from_lists(&lists.metric, &lists.value)).unwrap()
    }
}
