//! Mutual TLS 1.3 with one cluster CA: certificates, and how a client dials a replica.

mod certificate;
mod dial;
mod pin;

pub use certificate::{Certificate, Credentials, Rejected, issuer_of, new_key, pins_of, signing_request, spki_sha256};
pub use dial::{DialError, anonymous_config, channel, client_config, dial, explain, is_out_of_date};
pub use pin::pinned_config;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one provider of cryptography: ring, passed explicitly everywhere.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
