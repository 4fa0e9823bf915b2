//! How fast a walk may go: at most so many entries a second, and not while others wait for the disk.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Entries a second.
const ENTRIES_PER_SECOND: u32 = 2_000;
/// Entries between two looks at the clock.
const STEP: u32 = 100;
/// Percent of the last 10 s in which some task waited for IO, above which a walk waits.
const PRESSURE_LIMIT: f64 = 20.0;
/// How often pressure is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a walk has to do before its next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    /// Wait so long first.
    Rest(Duration),
}

/// Counts entries against time.
#[derive(Debug)]
pub(super) struct Pace {
    entries: u32,
    began: Instant,
    looked: Option<Instant>,
    pressed: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: 0, began: now, looked: None, pressed: false }
    }

    /// Call it for every entry.
    pub(super) fn next(&mut self, now: Instant, pressure: impl FnOnce() -> Option<f64>) -> Next {
        if self.looked.is_none_or(|looked| now - looked >= LOOK_EVERY) {
            self.looked = Some(now);
            // A kernel that does not account for pressure cannot ask for patience.
            self.pressed = pressure().is_some_and(|percent| percent > PRESSURE_LIMIT);
        }
        if self.pressed {
            (self.entries, self.began) = (0, now);
            return Next::Rest(LOOK_EVERY);
        }
        self.entries += 1;
        if !self.entries.is_multiple_of(STEP) {
            return Next::Go;
        }
        let earned = Duration::from_secs(1) * self.entries / ENTRIES_PER_SECOND;
        let used = now - self.began;
        if used > earned + LOOK_EVERY {
            // Time that was not used is not saved for a burst.
            (self.entries, self.began) = (0, now);
        }
        earned.checked_sub(used).filter(|wait| !wait.is_zero()).map_or(Next::Go, Next::Rest)
    }
}

/// `some avg10` of `/proc/pressure/io`.
pub(super) fn io_pressure() -> Option<f64> {
    parse(&fs::read_to_string("/proc/pressure/io").ok()?)
}

fn parse(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_two_thousand_entries() {
        let start = Instant::now();
        let (mut pace, mut now, mut entries) = (Pace::new(start), start, 0_u32);
        while now - start < Duration::from_secs(10) {
            match pace.next(now, || Some(0.0)) {
                Next::Go => {}
                Next::Rest(wait) => now += wait,
            }
            entries += 1;
        }
        assert!((19_000..=20_200).contains(&entries), "{entries}");
    }

    #[test]
    fn a_walk_waits_while_others_wait_for_the_disk() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.next(start, || Some(20.1)), Next::Rest(LOOK_EVERY));
        assert_eq!(pace.next(start + LOOK_EVERY, || Some(50.0)), Next::Rest(LOOK_EVERY));
        assert_eq!(pace.next(start + LOOK_EVERY * 2, || Some(3.0)), Next::Go);
        assert_eq!(pace.next(start + LOOK_EVERY * 4, || None), Next::Go, "a kernel that does not tell");
    }

    #[test]
    fn pressure_is_the_first_line() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse(text), Some(12.5));
        assert_eq!(parse(""), None);
    }
}
