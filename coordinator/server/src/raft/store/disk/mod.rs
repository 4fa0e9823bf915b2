//! What the store asks of a disk, and nothing more: so that every call of it can be made to fail.

pub mod faulty;
mod folder;

use std::{fmt, io};

pub use folder::Folder;

/// A file as the folder lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name within the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// One folder of files. Nothing in it is durable before [`DiskFile::sync`] (content) or [`Disk::sync_dir`] (names)
/// returned without an error; an error of either is final, since the kernel may have dropped what it could not write.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Every file in the folder, in any order.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// Makes a file that was not there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where it was, [`io::ErrorKind::StorageFull`] where there is no room, and
    /// whatever else the disk says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name; a file that had it is gone.
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every name given, changed or removed so far durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_dir(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Reads from `offset` on; may give less than there is. 0 is the end.
    ///
    /// # Errors
    /// What the disk says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the disk says; any part may have been written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable, and the length with it (`fdatasync`).
    ///
    /// # Errors
    /// What the disk says. Calling it again proves nothing: a failed page counts as written from then on.
    fn sync(&self) -> io::Result<()>;
}

/// Reads a file to its end.
pub(super) fn read_whole<D: Disk>(disk: &D, name: &str) -> io::Result<Vec<u8>> {
    const STEP: usize = 256 << 10;
    let file = disk.open(name)?;
    let (mut bytes, mut part) = (Vec::new(), vec![0; STEP]);
    loop {
        match file.read_at(bytes.len() as u64, &mut part) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// A file from its beginning on.
pub(super) struct Reader<'a, F> {
    file: &'a F,
    offset: u64,
}

impl<'a, F: DiskFile> Reader<'a, F> {
    pub(super) fn of(file: &'a F) -> Self {
        Self { file, offset: 0 }
    }
}

impl<F: DiskFile> io::Read for Reader<'_, F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, into)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// True where the disk has no room, or no room left for this user.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
