//! Where a container's control groups are: from the list of mounts and `/proc/PID/cgroup`. Pure.
//!
//! The path is read, never built: it depends on the engine's driver (`/docker/ID`, `/system.slice/docker-ID.scope`),
//! on `--cgroup-parent`, and on whoever runs the engine.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::collect::mountinfo;

/// The two shapes of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// What the kernel accounts for separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    /// Limits of CPU time.
    Cpu,
    /// CPU time used.
    Cpuacct,
    /// Memory.
    Memory,
    /// Block devices.
    Io,
    /// Processes and threads.
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 5] = [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Io, Self::Pids];

    /// As version 1 calls it.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Cpu => b"cpu",
            Self::Cpuacct => b"cpuacct",
            Self::Memory => b"memory",
            Self::Io => b"blkio",
            Self::Pids => b"pids",
        }
    }
}

/// Where one hierarchy is mounted, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    root: Vec<u8>,
}

/// All hierarchies of this machine. A controller is in one of version 1, or else in the unified one; many machines
/// have both kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    own: BTreeMap<Controller, Place>,
    unified: Option<Place>,
}

impl Hierarchies {
    /// Finds them in a `mountinfo`. Paths below `/sys` are read below `sys_root`.
    pub(super) fn of(mountinfo: &[u8], sys_root: &Path) -> Self {
        let mut found = Self::default();
        for line in mountinfo.split(|b| *b == b'\n') {
            let Some(entry) = mountinfo::parse(line) else { continue };
            let place = || {
                let below = entry.path.strip_prefix(b"/sys/");
                let path = below.map_or_else(|| path(&entry.path), |below| sys_root.join(path(below)));
                Place { path, root: entry.root.clone() }
            };
            match entry.fs.as_str() {
                // A bind of a part may be mounted somewhere else, too: the first is the whole.
                "cgroup2" if found.unified.is_none() => found.unified = Some(place()),
                "cgroup" => {
                    // The controllers are named among the options of the filesystem, the last field.
                    let options = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
                    for controller in Controller::ALL {
                        if options.split(|b| *b == b',').any(|option| option == controller.name()) {
                            found.own.entry(controller).or_insert_with(place);
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The folder of each controller for the container of this id, from the `/proc/PID/cgroup` of its first process.
    /// Nothing where that names another container: the process ended, and its number is another's.
    pub(super) fn folders(&self, cgroup: &[u8], id: &str) -> BTreeMap<Controller, (Version, PathBuf)> {
        let mut folders = BTreeMap::new();
        if id.is_empty() {
            return folders;
        }
        for line in cgroup.split(|b| *b == b'\n') {
            // hierarchy-ID:controller-list:path
            let mut fields = line.splitn(3, |b| *b == b':');
            let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let Some(path) = up_to(path, id.as_bytes()) else { continue };
            for controller in Controller::ALL {
                let own = self.own.get(&controller);
                let found = if number == b"0" && controllers.is_empty() {
                    self.unified.as_ref().filter(|_| own.is_none()).map(|place| (Version::V2, place))
                } else {
                    let listed = controllers.split(|b| *b == b',').any(|name| name == controller.name());
                    own.filter(|_| listed).map(|place| (Version::V1, place))
                };
                if let Some((version, folder)) = found.and_then(|(version, place)| Some((version, place.folder(path)?)))
                {
                    folders.insert(controller, (version, folder));
                }
            }
        }
        folders
    }
}

impl Place {
    fn folder(&self, path_in_hierarchy: &[u8]) -> Option<PathBuf> {
        let below = match self.root.as_slice() {
            b"/" => path_in_hierarchy,
            root => path_in_hierarchy.strip_prefix(root)?,
        };
        Some(self.path.join(path(below.strip_prefix(b"/").unwrap_or(below))))
    }
}

/// The path as far as the component with the container's id: a process manager in the container makes groups below.
/// Nothing where no component names it, or where the path leaves our own view of the hierarchy.
fn up_to<'a>(path: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    if path.split(|b| *b == b'/').any(|part| part == b"..") {
        return None;
    }
    let at = path.windows(id.len()).position(|window| window == id)?;
    let end = path[at..].iter().position(|b| *b == b'/').map_or(path.len(), |slash| at + slash);
    Some(&path[..end])
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8a46603be72b26403f7b1f220323ffb18ccafb7127c9a473ed864caa30859591";
    const V1: &[u8] = b"29 28 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
30 28 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
31 28 0:27 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio
32 28 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 28 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";
    const V2: &[u8] = b"29 28 0:25 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const UNIFIED: &[u8] = b"34 28 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_1_has_a_folder_for_each_controller() {
        let text = format!(
            "12:pids:/docker/{ID}\n9:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n3:blkio:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"
        );
        let folders = folders(V1, &text);
        assert_eq!(folders.len(), 5);
        assert_eq!(
            folders[&Controller::Cpuacct],
            (Version::V1, format!("/sys/fs/cgroup/cpu,cpuacct/docker/{ID}").into())
        );
        assert_eq!(folders[&Controller::Memory], (Version::V1, format!("/sys/fs/cgroup/memory/docker/{ID}").into()));
    }

    #[test]
    fn version_2_has_one_folder_whatever_the_driver() {
        for (text, folder) in [
            (format!("0::/system.slice/docker-{ID}.scope\n"), format!("/sys/fs/cgroup/system.slice/docker-{ID}.scope")),
            (format!("0::/docker/{ID}\n"), format!("/sys/fs/cgroup/docker/{ID}")),
            (format!("0::/machine.slice/mine/{ID}/init.scope\n"), format!("/sys/fs/cgroup/machine.slice/mine/{ID}")),
            (
                format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope\n"),
                format!("/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"),
            ),
        ] {
            let folders = folders(V2, &text);
            assert_eq!(folders.len(), 5, "{text}");
            assert!(folders.values().all(|found| *found == (Version::V2, folder.clone().into())), "{folders:?}");
        }
    }

    #[test]
    fn with_both_a_controller_of_version_1_wins() {
        let both = without_pids(&[V1, UNIFIED].concat());
        let text = format!("9:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n");
        let folders = folders(&both, &text);
        assert_eq!(folders[&Controller::Memory].0, Version::V1);
        assert_eq!(folders[&Controller::Pids], (Version::V2, format!("/sys/fs/cgroup/unified/docker/{ID}").into()));
        // In its hierarchy the process is not listed: unknown, not the root's numbers.
        assert_eq!(folders.get(&Controller::Io), None);
    }

    #[test]
    fn another_process_of_that_number_is_not_measured() {
        for text in ["0::/system.slice/ssh.service\n", "0::/\n", "0::/../../docker/8a46\n", "", "nonsense"] {
            assert!(folders(V2, text).is_empty(), "{text}");
        }
        assert!(Hierarchies::of(V2, Path::new("/sys")).folders(b"0::/docker/x\n", "").is_empty());
    }

    #[test]
    fn a_part_of_a_hierarchy_is_mounted() {
        let mounts = b"29 28 0:25 /lxc/guest /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let inside = format!("0::/lxc/guest/docker/{ID}\n");
        assert_eq!(folders(mounts, &inside)[&Controller::Cpu].1, PathBuf::from(format!("/sys/fs/cgroup/docker/{ID}")));
        assert!(folders(mounts, &format!("0::/docker/{ID}\n")).is_empty());
    }

    fn folders(mounts: &[u8], cgroup: &str) -> BTreeMap<Controller, (Version, PathBuf)> {
        Hierarchies::of(mounts, Path::new("/sys")).folders(cgroup.as_bytes(), ID)
    }

    fn without_pids(mounts: &[u8]) -> Vec<u8> {
        let lines = mounts.split(|b| *b == b'\n').filter(|line| !line.ends_with(b"rw,pids"));
        lines.collect::<Vec<_>>().join(&b'\n')
    }
}
