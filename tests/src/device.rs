//! What a disk was given to write, as the kernel counts.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Bytes that the block device under that path has written since the machine started, whoever wanted it.
///
/// # Panics
/// Where it lies on no block device.
#[must_use]
pub fn written(path: &Path) -> u64 {
    let device = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).dev();
    let file = format!("/sys/dev/block/{}:{}/stat", rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    // The seventh field counts sectors of 512 bytes, whatever the device's own are.
    let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    sectors.unwrap_or_else(|| panic!("{file}: {stat}")) * 512
}

/// Bytes that a process made the kernel write: whole pages, as it dirtied them.
///
/// # Panics
/// Where it is gone.
#[must_use]
pub fn written_by(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_else(|error| panic!("{pid}: {error}"));
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    field("write_bytes:").unwrap_or_else(|| panic!("{io}"))
}
