//! The devices below a filesystem, and what they and it say of their health: sysfs only, which asks no disk.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::super::mountinfo::Entry;

/// Devices stand on each other: a partition of a RAID of encrypted partitions is four deep.
const DEPTH: usize = 8;

/// What a filesystem stands on. Empty where it has no block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Below {
    /// Kernel names of the devices that hold it: one, or all members of a btrfs.
    pub(super) devices: BTreeSet<String>,
    /// The whole disks at the bottom.
    disks: BTreeSet<String>,
    /// Software RAIDs on the way.
    raids: BTreeSet<String>,
    /// Where the filesystem itself counts errors.
    errors: Option<Errors>,
}

/// Where a filesystem counts its errors.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Errors {
    /// A folder with `errors_count` and `last_error_time`.
    Ext4(PathBuf),
    /// A folder with one folder for every member.
    Btrfs(PathBuf),
}

/// What is known of the health of a filesystem and of what it stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Errors that the filesystem counted.
    pub(super) errors: Option<u64>,
    /// When it counted the last one, in seconds since 1970.
    pub(super) last_error: Option<u64>,
    /// Missing members of a RAID or btrfs; unknown where there is none.
    pub(super) degraded: Option<u64>,
    /// Disks that are offline: `sdb is offline`.
    pub(super) offline: Vec<String>,
    /// None is left that is not.
    pub(super) all_offline: bool,
}

impl Below {
    /// Looks up what a filesystem stands on.
    pub(super) fn of(sys: &Path, entry: &Entry) -> Self {
        let mut below = Self::default();
        if entry.device.0 != 0 {
            let (major, minor) = entry.device;
            let link = fs::read_link(sys.join(format!("dev/block/{major}:{minor}")));
            below.devices.extend(link.ok().and_then(|target| name(&target)));
        } else if entry.fs == "btrfs" {
            let source = kernel_name(sys, &entry.source);
            if let Some(folder) = source.as_deref().and_then(|source| btrfs(sys, source)) {
                below.devices.extend(names(&folder.join("devices")));
                below.errors = Some(Errors::Btrfs(folder.join("devinfo")));
            }
            below.devices.extend(source);
        }
        if entry.fs.starts_with("ext") {
            let folder = below.devices.first().map(|device| sys.join("fs/ext4").join(device));
            below.errors = folder.filter(|folder| folder.join("errors_count").exists()).map(Errors::Ext4);
        }
        for device in below.devices.clone() {
            below.descend(sys, &device, DEPTH);
        }
        below
    }

    fn descend(&mut self, sys: &Path, device: &str, depth: usize) {
        let class = sys.join("class/block");
        let folder = class.join(device);
        // A partition lies in the folder of its disk.
        let whole = if folder.join("partition").exists() {
            fs::canonicalize(&folder).ok().and_then(|place| name(place.parent()?))
        } else {
            None
        };
        let whole = whole.as_deref().unwrap_or(device);
        if class.join(whole).join("md").exists() {
            self.raids.insert(whole.to_owned());
        }
        let slaves = names(&class.join(whole).join("slaves"));
        if slaves.is_empty() {
            self.disks.insert(whole.to_owned());
        } else if depth > 0 {
            slaves.iter().for_each(|slave| self.descend(sys, slave, depth - 1));
        }
    }

    /// Reads how it fares now.
    pub(super) fn health(&self, sys: &Path) -> Health {
        let mut health = Health::default();
        match &self.errors {
            Some(Errors::Ext4(folder)) => {
                health.errors = number(&folder.join("errors_count"));
                health.last_error = number(&folder.join("last_error_time")).filter(|seconds| *seconds > 0);
            }
            Some(Errors::Btrfs(members)) => {
                for member in names(members) {
                    let member = members.join(member);
                    let counted = fs::read_to_string(member.join("error_stats")).ok();
                    add(&mut health.errors, counted.as_deref().and_then(btrfs_errors));
                    add(&mut health.degraded, number(&member.join("missing")));
                }
            }
            None => {}
        }
        let block = sys.join("class/block");
        for raid in &self.raids {
            add(&mut health.degraded, number(&block.join(raid).join("md/degraded")));
        }
        for disk in &self.disks {
            let state = fs::read_to_string(block.join(disk).join("device/state")).unwrap_or_default();
            if let Some(state) = trouble(state.trim()) {
                health.offline.push(format!("{disk} is {state}"));
            }
        }
        health.all_offline = !health.offline.is_empty() && health.offline.len() == self.disks.len();
        health
    }
}

/// A SCSI disk is `running`, an NVMe controller `live`. Either may say for a while that it recovers (`blocked`,
/// `resetting`): that is no trouble yet.
fn trouble(state: &str) -> Option<&str> {
    matches!(state, "offline" | "transport-offline" | "cancel" | "deleted" | "dead").then_some(state)
}

/// The sum of the five counters of a btrfs member.
fn btrfs_errors(text: &str) -> Option<u64> {
    let counts = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    counts.reduce(u64::saturating_add)
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    *sum = more.map(|more| sum.unwrap_or(0).saturating_add(more)).or(*sum);
}

/// The kernel's name of a device by its path: `/dev/mapper/vg-root` is `dm-0`.
fn kernel_name(sys: &Path, device: &[u8]) -> Option<String> {
    let device = std::str::from_utf8(device).ok()?;
    let block = sys.join("class/block");
    let Some(mapped) = device.strip_prefix("/dev/mapper/") else {
        let name = device.strip_prefix("/dev/")?;
        return block.join(name).exists().then(|| name.to_owned());
    };
    let is_it = |name: &String| {
        fs::read_to_string(block.join(name).join("dm/name")).is_ok_and(|told| told.trim_end() == mapped)
    };
    names(&block).into_iter().filter(|name| name.starts_with("dm-")).find(is_it)
}

/// The folder of the btrfs that this device is a member of.
fn btrfs(sys: &Path, device: &str) -> Option<PathBuf> {
    let all = sys.join("fs/btrfs");
    names(&all).into_iter().map(|id| all.join(id)).find(|folder| folder.join("devices").join(device).exists())
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::collect::mountinfo::parse;

    #[test]
    fn a_volume_on_a_raid_of_partitions_is_followed_to_its_disks() {
        let sys = Sys::new();
        for disk in ["sda", "sdb"] {
            sys.device(disk, &[]);
            sys.partition(disk, &format!("{disk}1"));
            sys.file(&format!("devices/{disk}/device/state"), "running\n");
        }
        sys.device("md0", &["sda1", "sdb1"]);
        sys.file("devices/md0/md/degraded", "1\n");
        sys.device("dm-0", &["md0"]);
        sys.file("fs/ext4/dm-0/errors_count", "0\n");
        sys.file("fs/ext4/dm-0/last_error_time", "0\n");
        symlink("../../devices/dm-0", sys.0.path().join("dev/block/253:0")).unwrap();
        let entry = parse(b"28 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw").unwrap();
        let below = Below::of(sys.0.path(), &entry);
        assert_eq!(below.devices, BTreeSet::from(["dm-0".to_owned()]));
        assert_eq!(below.disks, BTreeSet::from(["sda".to_owned(), "sdb".to_owned()]));
        let health = below.health(sys.0.path());
        assert_eq!(health, Health { errors: Some(0), degraded: Some(1), ..Health::default() });

        sys.file("fs/ext4/dm-0/errors_count", "3\n");
        sys.file("fs/ext4/dm-0/last_error_time", "1700000000\n");
        sys.file("devices/sdb/device/state", "transport-offline\n");
        let health = below.health(sys.0.path());
        assert_eq!((health.errors, health.last_error), (Some(3), Some(1_700_000_000)));
        assert_eq!((health.offline, health.all_offline), (vec!["sdb is transport-offline".to_owned()], false));
        sys.file("devices/sda/device/state", "offline\n");
        assert!(below.health(sys.0.path()).all_offline);
    }

    #[test]
    fn a_btrfs_adds_up_its_members() {
        let sys = Sys::new();
        sys.device("sdc", &[]);
        sys.device("dm-3", &[]);
        sys.file("devices/dm-3/dm/name", "crypt\n");
        for (number, member) in ["sdc", "dm-3"].into_iter().enumerate() {
            sys.file(&format!("fs/btrfs/77-88/devices/{member}"), "");
            let text = "write_errs 1\nread_errs 2\nflush_errs 0\ncorruption_errs 0\ngeneration_errs 0\n";
            sys.file(&format!("fs/btrfs/77-88/devinfo/{number}/error_stats"), text);
            sys.file(&format!("fs/btrfs/77-88/devinfo/{number}/missing"), "0\n");
        }
        let entry = parse(b"51 28 0:45 /@ /data rw - btrfs /dev/mapper/crypt rw").unwrap();
        let below = Below::of(sys.0.path(), &entry);
        assert_eq!(below.devices, BTreeSet::from(["sdc".to_owned(), "dm-3".to_owned()]));
        assert_eq!(below.health(sys.0.path()).errors, Some(6));
        sys.file("fs/btrfs/77-88/devinfo/1/missing", "1\n");
        assert_eq!(below.health(sys.0.path()).degraded, Some(1));
    }

    #[test]
    fn what_sysfs_does_not_know_is_unknown() {
        let sys = Sys::new();
        for line in [&b"51 28 0:45 / /data rw - tmpfs tmpfs rw"[..], b"51 28 8:1 / /data rw - ext4 /dev/sda1 rw"] {
            let below = Below::of(sys.0.path(), &parse(line).unwrap());
            assert_eq!((below.devices.len(), below.health(sys.0.path())), (0, Health::default()));
        }
    }

    /// A sysfs made by hand.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            let sys = Self(tempfile::tempdir().unwrap());
            for folder in ["dev/block", "class/block", "devices"] {
                fs::create_dir_all(sys.0.path().join(folder)).unwrap();
            }
            sys
        }

        fn file(&self, path: &str, content: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn device(&self, name: &str, slaves: &[&str]) {
            let folder = self.0.path().join("devices").join(name);
            fs::create_dir_all(folder.join("slaves")).unwrap();
            slaves.iter().for_each(|slave| fs::write(folder.join("slaves").join(slave), "").unwrap());
            symlink(folder, self.0.path().join("class/block").join(name)).unwrap();
        }

        fn partition(&self, disk: &str, name: &str) {
            let folder = self.0.path().join("devices").join(disk).join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("partition"), "1\n").unwrap();
            symlink(folder, self.0.path().join("class/block").join(name)).unwrap();
        }
    }
}
