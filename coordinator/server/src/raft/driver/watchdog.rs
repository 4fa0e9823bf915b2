//! A disk that hangs: the leader gives way, and in the end the replica does.

use super::{Driver, Stop};

/// A leader whose oldest write takes longer than this gives way: 1 s.
const SLOW_TICKS: u64 = 20;
/// A replica whose oldest write takes longer than this ends: 10 s.
const HUNG_TICKS: u64 = 200;
/// Leadership is not given away for that reason more often: 60 s. Attempts that failed do not count.
const PAUSE_TICKS: u64 = 1_200;

/// When leadership was given away last.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// The tick of the last attempt, and the term in which it was made.
    tried: Option<(u64, u64)>,
    /// It is full, and waits by itself.
    is_full: bool,
}

impl Driver {
    /// What waited for room begins only when there is some: it did not hang before that.
    pub(super) fn disk_full(&mut self, is_full: bool) {
        self.watchdog.is_full = is_full;
        if !is_full {
            self.outstanding.begin_again(self.now);
        }
    }

    pub(super) fn watch_disk(&mut self) {
        let Some(age) = self.outstanding.oldest().map(|since| self.now.saturating_sub(since)) else { return };
        if age > HUNG_TICKS && !self.watchdog.is_full {
            self.stop(Stop::DiskHangs);
            return;
        }
        if age <= SLOW_TICKS || !self.leads() {
            return;
        }
        let term = self.node.raft.term;
        let may = self
            .watchdog
            .tried
            .is_none_or(|(at, tried_in)| self.now >= at + if tried_in == term { SLOW_TICKS } else { PAUSE_TICKS });
        if may {
            self.watchdog.tried = Some((self.now, term));
            self.transfer(None);
        }
    }
}
