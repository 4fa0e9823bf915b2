//! How often, and why, somebody was turned away.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection or a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// TLS did not come about.
    Handshake,
    /// TLS took too long.
    HandshakeTimeout,
    /// The certificate is no identity of this cluster.
    Identity,
    /// The role may not call that.
    Role,
    /// The state does not know the name with that key.
    Unregistered,
}

impl Refusal {
    pub(crate) const ALL: [Self; 5] =
        [Self::Handshake, Self::HandshakeTimeout, Self::Identity, Self::Role, Self::Unregistered];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Identity => "identity",
            Self::Role => "role",
            Self::Unregistered => "unregistered",
        }
    }
}

/// Counts by reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.0[refusal as usize].load(Ordering::Relaxed)))
    }
}
