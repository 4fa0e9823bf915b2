//! Somebody who swaps a folder for a link to elsewhere while it is measured.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::tree::measure;

/// Walks, each into every one of [`FOLDERS`].
const WALKS: u64 = 6_000;
const FOLDERS: usize = 32;
/// Length of the one file that is elsewhere.
const SECRET: u64 = 1 << 40;

#[test]
fn a_walk_never_follows_who_swaps_folders_for_links() {
    let lair = Lair::new();
    let mut seen = 0;
    let mut escapes = 0;
    for _ in 0..WALKS {
        let measured = measure(lair.folder.as_os_str().as_bytes(), &BTreeSet::new(), || Ok(())).unwrap();
        escapes += u64::from(measured.apparent_bytes >= SECRET);
        seen += u64::from(measured.approximate);
    }
    // The same walk by names is led astray: the swapper is quick enough to prove something.
    let begun = Instant::now();
    let mut astray = 0;
    while astray < 10 && begun.elapsed() < Duration::from_secs(60) {
        astray += by_names(&lair.folder);
    }
    let swaps = lair.swaps.load(Ordering::Relaxed);
    println!(
        "{WALKS} walks into {FOLDERS} folders against {swaps} swaps: {escapes} escapes, {seen} walks met a swap; \
         by names {astray} escapes in {:.1?}",
        begun.elapsed()
    );
    assert_eq!(escapes, 0);
    assert!(seen > 0 && astray > 0, "the swapper never got between a look and an open");
}

/// Folders, beside each a link to elsewhere that takes its place and gives it back, as fast as can be.
struct Lair {
    folder: PathBuf,
    swaps: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    swapper: Option<thread::JoinHandle<()>>,
    _place: tempfile::TempDir,
}

impl Lair {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (folder, elsewhere) = (place.path().join("volume"), place.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::File::create(elsewhere.join("secret")).unwrap().set_len(SECRET).unwrap();
        let pairs: Vec<_> =
            (0..FOLDERS).map(|n| (folder.join(format!("a{n}")), folder.join(format!("b{n}")))).collect();
        for (real, link) in &pairs {
            fs::create_dir_all(real).unwrap();
            fs::write(real.join("file"), b"x").unwrap();
            symlink(&elsewhere, link).unwrap();
        }
        let (swaps, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&swaps), Arc::clone(&stop));
        let swapper = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for (real, link) in &pairs {
                    renameat_with(CWD, real, CWD, link, RenameFlags::EXCHANGE).unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { folder, swaps, stop, swapper: Some(swapper), _place: place }
    }
}

impl Drop for Lair {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(swapper) = self.swapper.take() {
            swapper.join().unwrap();
        }
    }
}

/// What a walk does that looks first and then opens by name: how often it found what is elsewhere.
fn by_names(folder: &Path) -> u64 {
    let mut astray = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let is_folder = fs::symlink_metadata(entry.path()).is_ok_and(|about| about.is_dir());
        if is_folder && let Ok(within) = fs::read_dir(entry.path()) {
            astray += u64::from(within.flatten().any(|inner| inner.file_name() == "secret"));
        }
    }
    astray
}
