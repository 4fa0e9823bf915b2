//! Mutual TLS 1.3 with one cluster CA: certificates, and how a client dials a replica.

mod certificate;
mod dial;
mod pin;

pub use certificate::{Certificate, Credentials, Rejected, new_key, signing_request, spki_sha256};
pub use dial::{DialError, channel, client_config, dial, explain};
pub use pin::pinned_config;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one provider of cryptography: ring, passed explicitly everywhere.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
