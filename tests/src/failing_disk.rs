//! Disks of replicas that fail as a story orders: the shim of `tests/disk-shim`, preloaded.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// What happens on a disk from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    Well,
    /// Every sync takes so much longer.
    Slow(Duration),
    /// No sync comes back.
    Hang,
    /// Every sync fails with EIO.
    Broken,
    /// No file grows: ENOSPC.
    Full,
    /// Of the next write of several sectors to the log only the first one is done, and then the power is gone.
    Tear,
}

/// What a replica with that data directory finds in its surroundings.
///
/// # Panics
/// Where the workspace was not built.
#[must_use]
pub fn surround(data: &Path) -> Vec<(&'static str, OsString)> {
    let own = env::current_exe().unwrap_or_default();
    let mut libraries = own.ancestors().skip(1).take(3).map(|folder| folder.join("libmainstay_disk_shim.so"));
    let library = libraries.find(|file| file.is_file());
    let library = library.unwrap_or_else(|| panic!("the disk's shim is not built: cargo build --workspace"));
    vec![("LD_PRELOAD", library.into()), ("DISK_SHIM_FOLDER", data.into()), ("DISK_SHIM_ORDER", file(data).into())]
}

/// Orders it for that data directory.
///
/// # Panics
/// Where the order cannot be written.
pub fn order(data: &Path, order: Order) {
    let text = match order {
        Order::Well => "well".to_owned(),
        Order::Slow(by) => format!("slow {}", by.as_millis()),
        Order::Hang => "hang".to_owned(),
        Order::Broken => "broken".to_owned(),
        Order::Full => "full".to_owned(),
        Order::Tear => "tear".to_owned(),
    };
    let (unfinished, file) = (data.with_extension("order.tmp"), file(data));
    let given = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, &file));
    given.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn file(data: &Path) -> PathBuf {
    data.with_extension("order")
}
