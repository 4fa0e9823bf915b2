//! One writer at a time for the context files of a folder.

use std::{fs::File, io, path::Path};

use rustix::fs::{FlockOperation, flock};

/// Held as long as the value lives. It is the folder's own lock: nothing is left behind.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it opens the lock")] File);

impl Lock {
    /// Waits for the lock: whoever holds it writes one small file.
    ///
    /// # Errors
    /// Where the folder cannot be opened.
    pub(crate) fn wait(folder: &Path) -> io::Result<Self> {
        let file = File::open(folder)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self(file))
    }

    /// The lock if it is free.
    pub(crate) fn try_take(folder: &Path) -> Option<Self> {
        let file = File::open(folder).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_does_not_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::try_take(folder.path()).unwrap();
        assert!(Lock::try_take(folder.path()).is_none());
        drop(first);
        assert!(Lock::try_take(folder.path()).is_some());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
