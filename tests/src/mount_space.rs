//! A story's own mounts: a mount namespace and a folder, so that nobody else meets a mount that hangs, and nothing stays
//! mounted after it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    mount::{MountPropagationFlags, UnmountFlags},
    thread::UnshareFlags,
};
use tempfile::TempDir;

use crate::shell::sh;

/// What this thread mounts, and every program that it starts from now on, is seen by nobody else.
#[derive(Debug)]
pub struct MountSpace {
    folder: TempDir,
}

/// One line of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mounted {
    /// Where.
    pub path: PathBuf,
    /// Filesystem type.
    pub fs: String,
}

impl MountSpace {
    /// A namespace for the calling thread. Programs that ran before stay outside.
    ///
    /// # Panics
    /// Where this is not root's machine.
    #[must_use]
    #[expect(unsafe_code, reason = "rustix marks unshare unsafe for the sake of descriptor tables")]
    pub fn enter() -> Self {
        // SAFETY: descriptors stay shared; only mounts, root and working directory become the thread's own.
        let entered = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
        entered.unwrap_or_else(|error| panic!("no mount namespace: {error}"));
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap_or_else(|error| panic!("mounts stay shared: {error}"));
        let folder = tempfile::Builder::new().prefix("mainstay-mounts-").tempdir().unwrap_or_else(|e| panic!("{e}"));
        Self { folder }
    }

    /// The folder in which everything is mounted.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder in it, made where it is not there.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn place(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let place = self.folder().join(name.as_ref());
        fs::create_dir_all(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        place
    }

    /// What is mounted below the folder, in the order in which it was mounted.
    #[must_use]
    pub fn mounted(&self) -> Vec<Mounted> {
        mounted().into_iter().filter(|mounted| mounted.path.starts_with(self.folder())).collect()
    }

    /// Where `findmnt` sees something mounted below the folder, sorted: the system's own word.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn findmnt(&self, types: &str) -> Vec<PathBuf> {
        let told = sh(&format!("findmnt -rn -t {types} -o TARGET || true"));
        let paths = told.lines().map(|line| PathBuf::from(OsStr::from_bytes(&unescape(line.as_bytes(), 16))));
        let mut below: Vec<_> = paths.filter(|path| path.starts_with(self.folder())).collect();
        below.sort();
        below
    }
}

impl Drop for MountSpace {
    fn drop(&mut self) {
        for mounted in self.mounted().iter().rev() {
            unmount(&mounted.path);
        }
    }
}

/// Takes a mount away, also where whoever serves it does not answer or somebody uses it.
pub fn unmount(path: &Path) {
    // It may have gone by itself.
    rustix::mount::unmount(path, UnmountFlags::DETACH).unwrap_or(());
}

/// Everything that this thread sees mounted.
fn mounted() -> Vec<Mounted> {
    let list = fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    list.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// A line of `mountinfo`.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = unescape(fields.nth(4)?, 8);
    let fs = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mounted { path: OsStr::from_bytes(&path).into(), fs: String::from_utf8_lossy(fs).into_owned() })
}

/// Undoes `\040`, as the kernel writes odd bytes, or `\x20`, as util-linux does.
fn unescape(text: &[u8], radix: u32) -> Vec<u8> {
    let mut whole = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\').map(|code| code.strip_prefix(b"x").unwrap_or(code));
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, radix).ok());
        whole.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    whole
}
