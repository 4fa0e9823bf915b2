//! Who was turned away and why: every refusal is counted, and the log hears of each address and reason once a minute.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mainstay_common::text::Shown;

use super::Block;

/// The log hears of one address and reason this often.
const QUIET: Duration = Duration::from_secs(60);
/// Addresses and reasons that are remembered; while there are more, the rest is only counted.
const REMEMBERED: usize = 1_024;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident $word:literal,)*) => {
        /// Why a connection or a call was refused, or ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

refusals! {
    /// TLS did not come about.
    Handshake "handshake",
    /// TLS took too long.
    HandshakeTimeout "handshake_timeout",
    /// TLS stood, but HTTP/2 did not begin.
    FirstBytes "first_bytes",
    /// The peer took nothing of what was written to it.
    Stalled "stalled",
    /// The certificate is of another CA.
    OtherCa "other_ca",
    /// The certificate ran out.
    Expired "expired",
    /// The certificate does not count yet.
    NotYetValid "not_yet_valid",
    /// The certificate is no identity of this cluster.
    Identity "identity",
    /// The role may not call that.
    Role "role",
    /// The node was removed.
    Removed "removed",
    /// The person's certificate was revoked or replaced.
    Revoked "revoked",
    /// The name belongs to another key.
    OtherKey "other_key",
    /// Not known here yet.
    Unknown "unknown",
    /// A full lobby or seat was given to another address.
    Crowded "crowded",
    /// Too many handshakes of one address.
    Pace "pace",
    /// The budget of its role is used up.
    Full "full",
    /// The same name came anew too often, or elsewhere.
    Superseded "superseded",
    /// Without a certificate for longer than an enrolment takes.
    Idle "idle",
}

impl Refusal {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// Counts by reason, and when the log last heard of whom.
#[derive(Debug)]
pub(crate) struct Refusals {
    counts: Vec<AtomicU64>,
    heard: Mutex<Heard>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { counts: Refusal::ALL.iter().map(|_| AtomicU64::new(0)).collect(), heard: Mutex::default() }
    }
}

impl Refusals {
    /// Counts, and tells the log unless it heard the same within the last minute. `who` is what the certificate says.
    pub(crate) fn refuse(&self, refusal: Refusal, address: SocketAddr, who: &str, why: &str) {
        if let Some(count) = self.counts.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = heard.tell(Block::of(address), refusal, Instant::now()) else { return };
        drop(heard);
        let (reason, why) = (refusal.as_str(), Shown::new(why).cut(300));
        if who.is_empty() {
            tracing::info!(%address, reason, %why, same_before = before, "refused");
        } else {
            tracing::warn!(%address, who, reason, %why, same_before = before, "refused");
        }
    }

    pub(crate) fn read(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        let count = |refusal: &Refusal| self.counts.get(*refusal as usize).map_or(0, |c| c.load(Ordering::Relaxed));
        Refusal::ALL.iter().map(move |refusal| (*refusal, count(refusal)))
    }
}

/// When the log last heard of an address and reason, and how often it was spared since.
#[derive(Debug, Default)]
struct Heard(BTreeMap<(Block, Refusal), (Instant, u64)>);

impl Heard {
    /// `Some` where the log should hear it: how often the same happened unheard.
    fn tell(&mut self, block: Block, refusal: Refusal, now: Instant) -> Option<u64> {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= QUIET;
        if let Some((at, spared)) = self.0.get_mut(&(block, refusal)) {
            if is_old(*at) {
                *at = now;
                return Some(std::mem::take(spared));
            }
            *spared += 1;
            return None;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (at, _)| !is_old(*at));
        }
        (self.0.len() < REMEMBERED).then(|| {
            self.0.insert((block, refusal), (now, 0));
            0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_hears_each_address_and_reason_once_a_minute() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let here = Block::of(([10, 0, 0, 1], 1).into());
        assert_eq!(heard.tell(here, Refusal::Role, start), Some(0));
        assert_eq!(heard.tell(here, Refusal::Expired, start), Some(0));
        for _ in 0..7 {
            assert_eq!(heard.tell(here, Refusal::Role, start + QUIET / 2), None);
        }
        assert_eq!(heard.tell(here, Refusal::Role, start + QUIET), Some(7));
    }

    #[test]
    fn a_flood_of_addresses_is_counted_without_filling_memory_or_log() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let told = |heard: &mut Heard, at| {
            (0..5_000_u32)
                .filter(|n| heard.tell(Block::of((n.to_be_bytes(), 1).into()), Refusal::Pace, at).is_some())
                .count()
        };
        assert_eq!(told(&mut heard, start), REMEMBERED);
        assert_eq!(told(&mut heard, start + QUIET), REMEMBERED);
        assert_eq!(heard.0.len(), REMEMBERED);
    }
}
