//! The walk itself: by descriptors, never through a link, never into another filesystem or a mount.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, openat2, statx},
    io::Errno,
    path::Arg,
};

use super::wire::Measured;

/// Hard links that are remembered; beyond this they count more than once.
const LINKS_LIMIT: usize = 1_000_000;
/// Folders within folders: each of them is held open.
const DEPTH_LIMIT: usize = 2_000;

/// Never up, never through a link, never into a mount: whatever the folder's owner swaps while we walk.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Renames in our way before a folder is given up.
const RACES: usize = 100;

/// A folder that is being walked.
struct Level {
    folder: OwnedFd,
    /// Its path, for the list of mountpoints.
    path: Vec<u8>,
    /// Folders in it that are still to be walked.
    folders: Vec<CString>,
}

/// A walk. `each` is called before every entry.
pub(super) struct Tree<'a, F: FnMut() -> io::Result<()>> {
    mountpoints: &'a BTreeSet<Vec<u8>>,
    each: F,
    device: (u32, u32),
    links: HashSet<u64>,
    measured: Measured,
}

/// Measures a folder and everything in it.
///
/// # Errors
/// Where the folder itself cannot be read, or `each` fails.
pub(super) fn measure(
    folder: &[u8],
    mountpoints: &BTreeSet<Vec<u8>>,
    each: impl FnMut() -> io::Result<()>,
) -> io::Result<Measured> {
    // A kernel, or a filter of system calls, without openat2 fails here and measures nothing.
    let root = enter(CWD, folder, ResolveFlags::NO_MAGICLINKS)?;
    let about = look(&root, c"")?;
    let device = (about.stx_dev_major, about.stx_dev_minor);
    let mut tree = Tree { mountpoints, each, device, links: HashSet::new(), measured: Measured::default() };
    tree.count(&about);
    tree.walk(root, folder)?;
    Ok(tree.measured)
}

impl<F: FnMut() -> io::Result<()>> Tree<'_, F> {
    fn walk(&mut self, root: OwnedFd, path: &[u8]) -> io::Result<()> {
        let mut levels = Vec::new();
        levels.push(self.enter(root, path.to_vec())?);
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.folders.pop() else {
                levels.pop();
                continue;
            };
            let path = join(&level.path, name.to_bytes());
            let deeper = enter(level.folder.as_fd(), name.as_c_str(), WITHIN);
            // What was swapped since for another filesystem, by a link or a mount, is not walked.
            let same = deeper.ok().filter(|folder| look(folder, c"").is_ok_and(|about| self.is_ours(&about)));
            match same {
                Some(folder) if levels.len() < DEPTH_LIMIT => match self.enter(folder, path) {
                    Ok(level) => levels.push(level),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                    Err(_) => self.measured.approximate = true,
                },
                Some(_) | None => self.measured.approximate = true,
            }
        }
        Ok(())
    }

    /// Counts everything in a folder; folders in it are left for later.
    fn enter(&mut self, folder: OwnedFd, path: Vec<u8>) -> io::Result<Level> {
        let mut level = Level { path, folders: Vec::new(), folder };
        for entry in Dir::read_from(&level.folder)? {
            // A folder that cannot be read to its end is counted as far as it goes.
            let Ok(entry) = entry else {
                self.measured.approximate = true;
                break;
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || self.is_mountpoint(&level.path, name) {
                continue;
            }
            (self.each)().map_err(|error| io::Error::new(io::ErrorKind::Interrupted, error))?;
            // What is gone since is not there.
            let Ok(about) = look(&level.folder, name) else { continue };
            if !self.is_ours(&about) {
                continue;
            }
            self.count(&about);
            if FileType::from_raw_mode(about.stx_mode.into()) == FileType::Directory {
                level.folders.push(name.to_owned());
            }
        }
        Ok(level)
    }

    fn is_mountpoint(&self, folder: &[u8], name: &CStr) -> bool {
        !self.mountpoints.is_empty() && self.mountpoints.contains(&join(folder, name.to_bytes()))
    }

    fn is_ours(&self, about: &Statx) -> bool {
        (about.stx_dev_major, about.stx_dev_minor) == self.device
            && !about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    }

    fn count(&mut self, about: &Statx) {
        let is_folder = FileType::from_raw_mode(about.stx_mode.into()) == FileType::Directory;
        if !is_folder && about.stx_nlink > 1 {
            if self.links.len() < LINKS_LIMIT {
                if !self.links.insert(about.stx_ino) {
                    return;
                }
            } else if self.links.contains(&about.stx_ino) {
                return;
            } else {
                self.measured.approximate = true;
            }
        }
        self.measured.files += 1;
        self.measured.size_bytes += about.stx_blocks.saturating_mul(512);
        self.measured.apparent_bytes += about.stx_size;
    }
}

/// Opens a folder that is no link.
fn enter(from: BorrowedFd<'_>, name: impl Arg + Copy, how: ResolveFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..RACES {
        match openat2(from, name, flags, Mode::empty(), how) {
            // Something was renamed on the way: the kernel could not tell whether it stayed within.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return Ok(opened?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// What the kernel knows of it, without asking a server anew.
fn look(folder: &OwnedFd, name: &CStr) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC | AtFlags::EMPTY_PATH;
    Ok(statx(folder.as_fd(), name, flags, StatxFlags::BASIC_STATS)?)
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, name].join(&b'/')
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::ffi::OsStrExt as _, path::Path, process::Command};

    use super::*;

    #[test]
    fn sizes_are_those_of_du() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        for (name, bytes) in [("one", 1), ("a/two", 5_000), ("a/b/c/three", 70_000)] {
            fs::write(root.join(name), vec![b'x'; bytes]).unwrap();
        }
        fs::hard_link(root.join("a/two"), root.join("a/b/again")).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/elsewhere")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let measured = of(root, &BTreeSet::new());
        assert_eq!(measured.size_bytes, du(root, "--block-size=1"));
        assert!(!measured.approximate && measured.apparent_bytes > 1 << 30);
        assert_eq!(measured.files, 9, "four folders, four files of which one has two names, one link");
    }

    #[test]
    fn a_mountpoint_is_not_even_looked_at() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("mnt")).unwrap();
        fs::write(place.path().join("mnt/file"), vec![b'x'; 100_000]).unwrap();
        let mountpoint = join(place.path().as_os_str().as_bytes(), b"mnt");
        let measured = of(place.path(), &[mountpoint].into());
        assert_eq!(measured.files, 1);
    }

    #[test]
    fn another_filesystem_is_not_entered() {
        let about = |path: &str| look(&rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap(), c"").unwrap();
        assert!(about("/proc").stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        let (root, proc) = (about("/"), about("/proc"));
        let device = (root.stx_dev_major, root.stx_dev_minor);
        let (mountpoints, links) = (BTreeSet::new(), HashSet::new());
        let tree = Tree { mountpoints: &mountpoints, each: || Ok(()), device, links, measured: Measured::default() };
        assert!(!tree.is_ours(&proc));
    }

    #[test]
    fn a_walk_ends_when_it_is_told_to() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("a/b")).unwrap();
        let stopped =
            measure(place.path().as_os_str().as_bytes(), &BTreeSet::new(), || Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(measure(b"/nonexistent", &BTreeSet::new(), || Ok(())).is_err());
    }

    fn of(folder: &Path, mountpoints: &BTreeSet<Vec<u8>>) -> Measured {
        measure(folder.as_os_str().as_bytes(), mountpoints, || Ok(())).unwrap()
    }

    fn du(folder: &Path, unit: &str) -> u64 {
        let told = Command::new("du").args(["-sx", unit]).arg(folder).output().unwrap();
        String::from_utf8(told.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }
}
