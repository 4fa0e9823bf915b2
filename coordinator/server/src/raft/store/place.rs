//! A new file: there whole and durably, or not at all.

use std::io;

use super::disk::{Disk, DiskFile as _, is_no_room};

/// What a file is called until it is whole.
pub(super) const UNFINISHED: &str = ".tmp";

/// Why a file is not there.
#[derive(Debug)]
pub(super) enum PlaceError {
    /// The disk is full; nothing is left of the file.
    NoRoom,
    /// The disk failed.
    Disk(io::Error),
}

/// Makes a file: `write` fills it under another name, it is synced and renamed, and the folder is synced.
pub(super) fn place<D: Disk>(
    disk: &D,
    name: &str,
    write: impl FnOnce(&D::File) -> io::Result<()>,
) -> Result<D::File, PlaceError> {
    let unfinished = format!("{name}{UNFINISHED}");
    let made = (|| {
        let file = disk.create(&unfinished)?;
        write(&file)?;
        // A full disk may show at the sync only. The file is thrown away then, so nothing relies on a second try.
        file.sync()?;
        disk.rename(&unfinished, name)?;
        Ok(file)
    })();
    match made {
        Ok(file) => disk.sync_dir().map(|()| file).map_err(PlaceError::Disk),
        Err(error) if is_no_room(&error) => match disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PlaceError::Disk(error)),
            _ => Err(PlaceError::NoRoom),
        },
        Err(error) => Err(PlaceError::Disk(error)),
    }
}

/// Fills a file with zeros that take room on the disk.
///
/// In pages of 4 KiB: greater writes make large folios, which the kernel writes back whole for every small change
/// (measured, ext4). Not by `fallocate`: unwritten extents cost a journal commit at every first write.
pub(super) fn fill<D: Disk>(file: &D::File, bytes: u64) -> io::Result<()> {
    const PAGE: usize = 4096;
    for start in (0..bytes).step_by(PAGE) {
        let left = usize::try_from(bytes - start).map_err(io::Error::other)?;
        file.write_at(start, &[0; PAGE][..left.min(PAGE)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::disk::{faulty::FaultyDisk, read_whole};

    #[test]
    fn whatever_happens_there_is_the_old_file_or_the_new_one() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..500 {
            let disk = FaultyDisk::new(seed);
            let put = |byte| place(&disk, "a", |file| file.write_at(0, &[byte; 2000]));
            put(1).unwrap();
            disk.die_after(Some(usize::try_from(seed).unwrap() % 5));
            put(2).unwrap_err();
            disk.power_loss();
            match read_whole(&disk, "a").unwrap() {
                bytes if bytes == [1; 2000] => old += 1,
                bytes if bytes == [2; 2000] => new += 1,
                bytes => panic!("seed {seed}: {} bytes", bytes.len()),
            }
        }
        assert!(old > 100 && new > 20, "{old} {new}");
    }

    #[test]
    fn a_full_disk_is_left_as_it_was() {
        let disk = FaultyDisk::new(1);
        disk.set_room(Some(6000));
        assert!(matches!(place(&disk, "a", |file| fill::<FaultyDisk>(file, 8192)), Err(PlaceError::NoRoom)));
        assert_eq!(disk.used_bytes(), 0);
        place(&disk, "a", |file| fill::<FaultyDisk>(file, 5000)).unwrap();
        assert_eq!(disk.used_bytes(), 5000);
    }
}
