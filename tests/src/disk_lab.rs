//! Real disks: tmpfs, and ext4 on a file behind a loop device.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Outcome,
    machine::Need,
    mount_space::{MountSpace, unmount},
};

/// A place for disks that nobody else sees.
#[derive(Debug)]
pub struct DiskLab {
    space: MountSpace,
}

impl DiskLab {
    /// What it needs of the machine.
    pub const NEEDS: [Need; 3] = [Need::Root, Need::Tool("mkfs.ext4"), Need::File("/dev/loop-control")];

    /// A lab for the calling thread and the programs that it starts from now on.
    ///
    /// # Panics
    /// Where the machine lacks what it needs.
    #[must_use]
    pub fn open() -> Self {
        Self { space: MountSpace::enter() }
    }

    /// A tmpfs of that many MiB.
    ///
    /// # Panics
    /// Where it cannot be mounted.
    #[must_use]
    pub fn tmpfs(&self, name: impl AsRef<OsStr>, mib: u32) -> LabDisk {
        let at = self.space.place(name);
        mount(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "lab"]).arg(&at));
        LabDisk { at }
    }

    /// An ext4 of that many MiB. Its loop device goes by itself with the mount.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn ext4(&self, name: impl AsRef<OsStr>, mib: u64) -> LabDisk {
        let at = self.space.place(&name);
        let mut image = self.space.place("images").join(name.as_ref());
        image.as_mut_os_string().push(".img");
        let file = fs::File::create(&image).and_then(|file| file.set_len(mib << 20));
        file.unwrap_or_else(|error| panic!("{}: {error}", image.display()));
        mount(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        mount(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        LabDisk { at }
    }

    /// Shows a disk at another place, too.
    ///
    /// # Panics
    /// Where it cannot.
    #[must_use]
    pub fn bind(&self, disk: &LabDisk, name: impl AsRef<OsStr>) -> LabDisk {
        let at = self.space.place(name);
        mount(Command::new("mount").arg("--bind").arg(&disk.at).arg(&at));
        LabDisk { at }
    }
}

/// A disk; it is unmounted with this value.
#[derive(Debug)]
pub struct LabDisk {
    /// Where it is mounted.
    pub at: PathBuf,
}

/// What `df` says of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Df {
    /// Size in bytes.
    pub size: u64,
    /// Used bytes.
    pub used: u64,
    /// Bytes that users can still fill.
    pub avail: u64,
    /// All inodes.
    pub inodes: u64,
    /// Inodes in use.
    pub inodes_used: u64,
}

impl LabDisk {
    /// The mountpoint as JSON has it.
    #[must_use]
    pub fn path(&self) -> String {
        mainstay_common::text::exact(self.at.as_os_str().as_bytes())
    }

    /// What `df` says.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn df(&self) -> Df {
        df(&self.at)
    }

    /// Remounts with these options: `ro`, `rw`.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn remount(&self, options: &str) {
        mount(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.at));
    }

    /// Writes until no byte fits any longer.
    ///
    /// # Panics
    /// Where it cannot be written at all.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.at.join("ballast")).unwrap_or_else(|error| panic!("{error}"));
        for piece in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![7; piece]).is_ok() {}
        }
        // Full on the disk, not only in memory.
        file.sync_all().unwrap_or(());
    }

    /// Takes it away.
    pub fn unmount(&self) {
        unmount(&self.at);
    }
}

impl Drop for LabDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn df(at: &Path) -> Df {
    let columns = "--output=size,used,avail,itotal,iused";
    let told = Outcome::of(Command::new("df").args(["-B1", columns]).arg(at)).done();
    let numbers: Vec<u64> = told.lines().nth(1).unwrap_or_default().split_whitespace().map_while(number).collect();
    match numbers[..] {
        [size, used, avail, inodes, inodes_used] => Df { size, used, avail, inodes, inodes_used },
        _ => panic!("df says {told}"),
    }
}

fn number(word: &str) -> Option<u64> {
    word.parse().ok()
}

fn mount(command: &mut Command) {
    drop(Outcome::of(command).done());
}
