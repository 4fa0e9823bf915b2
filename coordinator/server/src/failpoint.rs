//! What tests ask of a replica. Only in builds with debug assertions; elsewhere nothing of it is compiled.
//!
//! Named points at which the process ends, as a power cut would end it: `MAINSTAY_FAILPOINT=NAME` kills it at that point
//! the first time, `NAME:3` the third; with `@FILE` it dies at the point that the file names at that moment.
//! `MAINSTAY_CHECKPOINT_ENTRIES=N` makes a checkpoint after so many entries, and keeps a quarter of that behind it.

/// Kills this process here if a test asked for it.
#[cfg(debug_assertions)]
pub(crate) fn reach(name: &str) {
    use std::{
        path::PathBuf,
        sync::{
            OnceLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    enum Wanted {
        Times(String, AtomicU32),
        Noted(PathBuf),
    }

    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("MAINSTAY_FAILPOINT").ok()?;
        if let Some(file) = text.strip_prefix('@') {
            return Some(Wanted::Noted(file.into()));
        }
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Wanted::Times(name.to_owned(), AtomicU32::new(times.parse().ok()?)))
    });
    let dies = match wanted {
        None => false,
        Some(Wanted::Times(point, left)) => point == name && left.fetch_sub(1, Ordering::SeqCst) == 1,
        Some(Wanted::Noted(file)) => std::fs::read_to_string(file).is_ok_and(|point| point.trim() == name),
    };
    if dies {
        // Nothing is flushed, nothing is closed.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap_or(());
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn reach(_name: &str) {}

/// After how many entries a test wants a checkpoint.
#[cfg(debug_assertions)]
pub(crate) fn checkpoint_entries() -> Option<u64> {
    std::env::var("MAINSTAY_CHECKPOINT_ENTRIES").ok()?.parse().ok()
}

/// None.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn checkpoint_entries() -> Option<u64> {
    None
}
