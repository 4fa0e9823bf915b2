//! A program's data directory: one process at a time, files replaced whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{ExitCode, Failure};

/// A directory that this process alone uses, for as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) where it is missing, and takes its lock.
    ///
    /// # Errors
    /// A conflict when another process uses it; else a failure that says why it cannot be used.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unusable(path, &error))?;
        Self::take_existing(path)
    }

    /// Takes the directory's lock; makes nothing but the lock's file.
    ///
    /// # Errors
    /// As for [`DataDir::take`]; a directory that is missing is a conflict.
    pub fn take_existing(path: &Path) -> Result<Self, Failure> {
        if !path.exists() {
            let why = "there is no such directory";
            return Err(Failure::new(
                ExitCode::Conflict,
                format!("{} is missing", path.display()),
                why,
                "check --data-dir",
            ));
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(|error| unusable(path, &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Failure::new(
                ExitCode::Conflict,
                format!("{} is in use", path.display()),
                "another process holds its lock",
                "stop that process, or give another --data-dir",
            )),
            Err(error) => Err(unusable(path, &error.into())),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Replaces a file whole: after a crash there is either the old one or the new one.
///
/// # Errors
/// What the disk says; the old file is untouched then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
    // A name of its own for every writer: two at once must not write into one file.
    name.push(format!(".{}.{:08x}.new", std::process::id(), u32::from_ne_bytes(super::random())));
    let fresh = folder.join(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Best effort: what matters is the error that is returned.
        fs::remove_file(&fresh).unwrap_or(());
    }
    written
}

/// Why a data directory or a file in it cannot be used, as a person needs to hear it.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind gets the general advice")]
pub fn unusable(path: &Path, error: &io::Error) -> Failure {
    let try_next = match error.kind() {
        ErrorKind::PermissionDenied => "run as the user that owns it, or give another --data-dir",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on that filesystem; nothing was lost",
        ErrorKind::ReadOnlyFilesystem => "remount it writable, or give another --data-dir",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "move the file that is in the way, or give another --data-dir"
        }
        _ => "check the disk, or give another --data-dir",
    };
    Failure::new(ExitCode::Failed, format!("cannot use {}", path.display()), error.to_string(), try_next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::take(&folder.path().join("a/b")).unwrap();
        let second = DataDir::take(first.path()).unwrap_err();
        assert_eq!(second.code, ExitCode::Conflict);
        drop(first);
        assert!(DataDir::take(&folder.path().join("a/b")).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let failure = DataDir::take(&folder.path().join("file")).unwrap_err();
        assert!(failure.try_next.contains("in the way"), "{failure}");
    }

    #[test]
    fn files_are_replaced_whole_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(&folder.path().join("missing/state"), b"x", 0o600).is_err());
    }
}
