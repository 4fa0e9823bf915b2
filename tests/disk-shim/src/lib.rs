//! A disk that fails as a story wants: preloaded into a program, it stands before the C library's calls that write.
//!
//! `DISK_SHIM_FOLDER` is the folder that it is about. What happens there is what the file `DISK_SHIM_ORDER` says at that
//! moment: `slow MS` (every sync takes so much longer), `hang` (no sync comes back), `broken` (a sync fails with EIO),
//! `full` (no file grows: ENOSPC), `tear` (of the next write of several sectors to the log only the first is done, and
//! then the power is gone). Anything else, and no file: all is well.

#![expect(unsafe_code, reason = "it takes the place of the C library's functions")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::Duration,
};

use libc::{c_int, c_long, c_void, off64_t, size_t, ssize_t};

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

struct Lab {
    folder: PathBuf,
    order: PathBuf,
}

/// What is ordered for the file behind this descriptor, and the file.
fn order(fd: c_int) -> Option<(String, PathBuf)> {
    static LAB: OnceLock<Option<Lab>> = OnceLock::new();
    let path = |name| env::var_os(name).map(PathBuf::from);
    let lab = LAB.get_or_init(|| Some(Lab { folder: path("DISK_SHIM_FOLDER")?, order: path("DISK_SHIM_ORDER")? }));
    let lab = lab.as_ref()?;
    let file = fs::read_link(format!("/proc/self/fd/{fd}")).ok().filter(|file| file.starts_with(&lab.folder))?;
    Some((fs::read_to_string(&lab.order).ok()?, file))
}

fn fails(error: c_int) -> c_int {
    // SAFETY: the thread's own errno is always there.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// What becomes of a sync before the kernel is asked; the error that it fails with.
#[expect(clippy::disallowed_methods, reason = "a slow disk keeps its caller waiting")]
fn before_sync(fd: c_int) -> Result<(), c_int> {
    let Some((order, _)) = order(fd) else { return Ok(()) };
    match order.split_once(' ').unwrap_or((order.trim(), "")) {
        ("slow", millis) => thread::sleep(Duration::from_millis(millis.trim().parse().unwrap_or(0))),
        ("hang", _) => loop {
            thread::park();
        },
        ("broken", _) => return Err(libc::EIO),
        _ => {}
    }
    Ok(())
}

/// What becomes of a write of so many bytes that ends there.
fn before_write(fd: c_int, count: usize, end: impl FnOnce() -> u64) -> Result<Writes, c_int> {
    let Some((order, file)) = order(fd) else { return Ok(Writes::All) };
    let length = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
    match order.trim() {
        // What is there already has its room.
        "full" if end() > length() => Err(libc::ENOSPC),
        "tear" if count > SECTOR && is_segment(&file) => Ok(Writes::FirstSector),
        _ => Ok(Writes::All),
    }
}

enum Writes {
    All,
    FirstSector,
}

fn is_segment(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"segment-"))
}

fn power_cut() -> ! {
    // SAFETY: no memory is involved; it does not come back from this.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        thread::park();
    }
}

/// The C library's `fsync`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    match before_sync(fd) {
        // SAFETY: the kernel checks the descriptor.
        Ok(()) => i32::try_from(unsafe { libc::syscall(libc::SYS_fsync, fd) }).unwrap_or(-1),
        Err(error) => fails(error),
    }
}

/// The C library's `fdatasync`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    match before_sync(fd) {
        // SAFETY: the kernel checks the descriptor.
        Ok(()) => i32::try_from(unsafe { libc::syscall(libc::SYS_fdatasync, fd) }).unwrap_or(-1),
        Err(error) => fails(error),
    }
}

/// The C library's `write`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    // Files that are written so grow at their end.
    match before_write(fd, count, || u64::MAX) {
        // SAFETY: the caller vouches for the bytes, the kernel checks the descriptor.
        Ok(Writes::All | Writes::FirstSector) => done(unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) }),
        Err(error) => done(fails(error).into()),
    }
}

/// The C library's `pwrite64`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, offset: off64_t) -> ssize_t {
    let end = || u64::try_from(offset).unwrap_or(0) + count as u64;
    let (count, then) = match before_write(fd, count, end) {
        Ok(Writes::All) => (count, None),
        Ok(Writes::FirstSector) => (SECTOR, Some(power_cut)),
        Err(error) => return done(fails(error).into()),
    };
    // SAFETY: the caller vouches for the bytes, of which there are at least so many; the kernel checks the descriptor.
    let written = unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, offset) };
    match then {
        Some(then) => then(),
        None => done(written),
    }
}

fn done(written: c_long) -> ssize_t {
    isize::try_from(written).unwrap_or(-1)
}
