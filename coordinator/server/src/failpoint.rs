//! Named points at which a test ends the process, as a power cut would: `MAINSTAY_FAILPOINT=NAME` kills it at that point
//! the first time, `NAME:3` the third. Only in builds with debug assertions; elsewhere nothing of it is compiled.

/// Kills this process here if a test asked for it.
#[cfg(debug_assertions)]
pub(crate) fn reach(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    static WANTED: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("MAINSTAY_FAILPOINT").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU32::new(times.parse().ok()?)))
    });
    if let Some((point, left)) = wanted
        && point == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // Nothing is flushed, nothing is closed.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap_or(());
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn reach(_name: &str) {}
