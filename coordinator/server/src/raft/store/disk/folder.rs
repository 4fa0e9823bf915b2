//! A real folder, through std only: whoever wants to inject faults from outside finds plain libc calls.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Disk, DiskFile, Listed};

/// A folder on a filesystem. Whoever opens it holds the data directory's lock.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, which is made (0700, and durably) where it is missing; its parent must be there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn at(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()?
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Disk for Folder {
    type File = File;

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is no UTF-8 is none of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let bytes = match entry.metadata() {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            listed.push(Listed { name, bytes });
        }
        Ok(listed)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::disk::read_whole;

    #[test]
    fn a_folder_keeps_what_it_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(parent.path().join("log")).unwrap();
        let file = folder.create("a").unwrap();
        assert_eq!(folder.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        DiskFile::write_at(&file, 3, b"xyz").unwrap();
        file.sync().unwrap();
        folder.rename("a", "b").unwrap();
        folder.sync_dir().unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        assert_eq!(folder.list().unwrap(), [Listed { name: "b".into(), bytes: 6 }]);
        assert_eq!(read_whole(&Folder::at(folder.path()).unwrap(), "b").unwrap(), b"\0\0\0xyz");
        folder.remove("b").unwrap();
        assert_eq!(folder.list().unwrap(), []);
    }

    #[test]
    fn a_file_in_the_way_is_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("log"), "x").unwrap();
        assert_eq!(Folder::at(parent.path().join("log")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
