//! What an episode put to the test.

use std::ops::AddAssign;

/// What happened, so that nobody believes in an episode where nothing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    pub(super) refused_full: u64,
    pub(super) broken: u64,
    pub(super) power_losses: u64,
    pub(super) cut: u64,
    pub(super) unacknowledged_but_there: u64,
    pub(super) checkpoints: u64,
    pub(super) resets: u64,
    pub(super) flips_refused: u64,
    pub(super) flips_harmless: u64,
    pub(super) flips_set_aside: u64,
    pub(super) deaths_at_start: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.refused_full += other.refused_full;
        self.broken += other.broken;
        self.power_losses += other.power_losses;
        self.cut += other.cut;
        self.unacknowledged_but_there += other.unacknowledged_but_there;
        self.checkpoints += other.checkpoints;
        self.resets += other.resets;
        self.flips_refused += other.flips_refused;
        self.flips_harmless += other.flips_harmless;
        self.flips_set_aside += other.flips_set_aside;
        self.deaths_at_start += other.deaths_at_start;
    }
}
