//! Mutual TLS 1.3 with one cluster CA: certificates, and how a client dials a replica.

mod certificate;
mod channel;
mod dial;
mod pin;
mod verdict;

pub use certificate::{Certificate, Credentials, Rejected, issuer_of, new_key, pins_of, signing_request, spki_sha256};
pub use channel::{Channel, channel, peer_channel, watched_channel};
pub use dial::{DialError, anonymous_config, client_config, dial, explain};
pub use pin::pinned_config;
pub use verdict::Verdict;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one provider of cryptography: ring, passed explicitly everywhere.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
