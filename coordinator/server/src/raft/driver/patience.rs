//! How long a replica waits for a leader before it asks for votes.

/// Ticks of an election timeout: a replica waits at least so long, and less than twice that.
pub(super) const ELECTION_TICKS: usize = 7;

/// Draws that follow from a seed. The `raft` crate draws from the thread's dice whenever its role or term changes; what
/// it drew is replaced by this, so that the same inputs have the same effects.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    seed: u64,
    drawn: u64,
}

impl Patience {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// The next timeout, in ticks. SplitMix64 (Steele et al. 2014), by number.
    pub(super) fn draw(&mut self) -> usize {
        self.drawn += 1;
        let mut mixed = self.seed.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ELECTION_TICKS + usize::try_from((mixed ^ (mixed >> 31)) % ELECTION_TICKS as u64).unwrap_or(0)
    }
}
