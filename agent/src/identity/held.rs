//! What a connection of this node needs.

use std::sync::Arc;

use mainstay_common::process::tls::{Certificate, Credentials, anonymous_config, client_config, issuer_of};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

use super::{CERTIFICATE_FILE, KEY_FILE};
use crate::clock::Floor;

/// What a connection needs.
#[derive(Clone, Debug)]
pub struct Held {
    /// Every root that counts, PEM.
    pub(super) ca: String,
    pub(super) key: String,
    /// The certificate and its root, PEM.
    pub(super) pem: String,
    /// The certificate.
    pub certificate: Certificate,
    pub(super) client: Arc<ClientConfig>,
}

impl Held {
    /// Whether the certificate is by that root.
    #[must_use]
    pub fn is_by(&self, issuer: &[u8; 32]) -> bool {
        issuer_of(&self.pem).as_ref() == Some(issuer)
    }

    /// Whether these are the roots in use.
    #[must_use]
    pub fn trusts(&self, roots: &str) -> bool {
        self.ca == roots
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).map(|der| der.to_vec()).unwrap_or_default()
    }

    /// How a connection proves who this is.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// How a connection is made that shows no certificate.
    ///
    /// # Errors
    /// Where the roots cannot be read: they could when they were loaded.
    pub(crate) fn anonymous(&self, floor: &Arc<Floor>) -> Result<Arc<ClientConfig>, String> {
        let config = anonymous_config(&self.ca).map_err(|error| error.to_string())?;
        Ok(at_least(&config, floor))
    }

    pub(super) fn new(ca: String, certificate: String, key: String, floor: &Arc<Floor>) -> Result<Self, String> {
        let parsed = Certificate::from_pem(&certificate).map_err(|error| format!("{CERTIFICATE_FILE}: {error}"))?;
        let pair = KeyPair::from_pem(&key).map_err(|error| format!("{KEY_FILE}: {error}"))?;
        if key_sha256(&pair) != parsed.spki_sha256 {
            return Err(format!("{KEY_FILE} is not the key of {CERTIFICATE_FILE}"));
        }
        let credentials = Credentials { ca, certificate, key };
        let client = client_config(&credentials).map_err(|error| error.to_string())?;
        let Credentials { ca, certificate: pem, key } = credentials;
        Ok(Self { ca, key, pem, certificate: parsed, client: at_least(&client, floor) })
    }
}

#[cfg(test)]
impl Held {
    /// A certificate that counts for an hour, and that no cluster knows.
    pub(crate) fn of_nobody() -> Self {
        let key = mainstay_common::process::tls::new_key();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://c1/agent/n1".try_into().unwrap())];
        params.not_after = (std::time::SystemTime::now() + std::time::Duration::from_secs(3_600)).into();
        let pem = params.self_signed(&key).unwrap().pem();
        let floor = Arc::new(Floor::load(std::path::Path::new("/nonexistent")));
        Self::new(pem.clone(), pem, key.serialize_pem(), &floor).unwrap()
    }
}

/// The same configuration, for which time does not fall behind the floor.
fn at_least(config: &ClientConfig, floor: &Arc<Floor>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.time_provider = Arc::<Floor>::clone(floor);
    Arc::new(config)
}

/// SHA-256 of a key's public half, as certificates carry it.
#[must_use]
pub fn key_sha256(key: &KeyPair) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}
