//! The latest moment that a replica vouched for: a machine without a clock of its own wakes up in the past, where no
//! certificate counts yet.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use mainstay_common::{
    Timestamp,
    process::{data_dir::replace, now},
};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// The file in the data directory: milliseconds since 1970.
const CLOCK_FILE: &str = "clock";
/// It is written this often at most.
const WRITTEN_EVERY: Duration = Duration::from_secs(3_600);

/// The floor under this machine's clock, for certificates only.
#[derive(Debug)]
pub struct Floor {
    path: PathBuf,
    latest: AtomicI64,
    written: AtomicI64,
}

impl Floor {
    /// Reads what was kept; nothing where it is missing or damaged.
    #[must_use]
    pub fn load(folder: &Path) -> Self {
        let path = folder.join(CLOCK_FILE);
        let kept = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { path, latest: AtomicI64::new(kept), written: AtomicI64::new(kept) }
    }

    /// Takes a moment that a replica vouched for. One that lies behind the end of our own certificate is no news but a
    /// mistake: with such a floor nobody's certificate would count any more.
    pub fn heard(&self, moment: Timestamp, not_after: Timestamp) {
        if moment > not_after || self.latest.fetch_max(moment.0, Ordering::Relaxed) >= moment.0 {
            return;
        }
        let written = Timestamp(self.written.load(Ordering::Relaxed));
        if moment.since(written) >= WRITTEN_EVERY {
            self.written.store(moment.0, Ordering::Relaxed);
            if let Err(error) = replace(&self.path, format!("{}\n", moment.0).as_bytes(), 0o600) {
                tracing::debug!(%error, "the time is forgotten at the next start");
            }
        }
    }

    /// What certificates are checked against.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        now().max(Timestamp(self.latest.load(Ordering::Relaxed)))
    }
}

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.time().0 / 1_000).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn time_does_not_fall_behind_what_was_heard_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let floor = Floor::load(folder.path());
        assert!(floor.time().since(now()) < DAY);
        let tomorrow = now().plus(DAY);
        floor.heard(tomorrow, now().plus(7 * DAY));
        assert_eq!(floor.time(), tomorrow);
        assert_eq!(Floor::load(folder.path()).time(), tomorrow);
        floor.heard(now(), now().plus(7 * DAY));
        assert_eq!(floor.time(), tomorrow);
    }

    #[test]
    fn a_moment_behind_our_own_certificates_end_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let floor = Floor::load(folder.path());
        floor.heard(now().plus(8 * DAY), now().plus(7 * DAY));
        assert!(floor.time().since(now()) < DAY);
        std::fs::write(folder.path().join(CLOCK_FILE), "garbage").unwrap();
        assert!(Floor::load(folder.path()).time().since(now()) < DAY);
    }
}
