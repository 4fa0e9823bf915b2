//! Certificates and keys: reading them, and asking for them.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{
    ClusterId, Timestamp,
    identity::{Identity, InvalidIdentity},
};

/// Why a certificate or key is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is no PEM, no DER, or no certificate.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It must have exactly one URI.
    #[error("it has {0} URI names, not one")]
    Uris(usize),
    /// The URI is no identity.
    #[error("its URI is {0}")]
    Identity(#[from] InvalidIdentity),
}

/// What we need to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Who it speaks for.
    pub identity: Identity,
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub spki_sha256: [u8; 32],
    /// Its first moment.
    pub not_before: Timestamp,
    /// Its last moment.
    pub not_after: Timestamp,
}

impl Certificate {
    /// Reads a certificate of ours.
    ///
    /// # Errors
    /// [`Rejected`] where it has not exactly one URI that is an identity.
    pub fn from_der(der: &[u8]) -> Result<Self, Rejected> {
        let x509 = parse(der)?;
        let uris = uris(&x509);
        let [uri] = uris[..] else { return Err(Rejected::Uris(uris.len())) };
        let validity = x509.validity();
        Ok(Self {
            identity: uri.parse()?,
            spki_sha256: Sha256::digest(x509.public_key().raw).into(),
            not_before: Timestamp(validity.not_before.timestamp().saturating_mul(1_000)),
            not_after: Timestamp(validity.not_after.timestamp().saturating_mul(1_000)),
        })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// As for [`Certificate::from_der`].
    pub fn from_pem(pem: &str) -> Result<Self, Rejected> {
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| Rejected::Unreadable(error.to_string()))?;
        Self::from_der(&der)
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Rejected> {
    match X509Certificate::from_der(der) {
        Ok(([], x509)) => Ok(x509),
        Ok(_) => Err(Rejected::Unreadable("something follows the certificate".into())),
        Err(error) => Err(Rejected::Unreadable(error.to_string())),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other extension is of no interest")]
fn uris<'a>(x509: &X509Certificate<'a>) -> Vec<&'a str> {
    x509.extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect()
}

/// SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER): what a join token pins.
///
/// # Errors
/// [`Rejected::Unreadable`] where it is no certificate.
pub fn spki_sha256(der: &[u8]) -> Result<[u8; 32], Rejected> {
    Ok(Sha256::digest(parse(der)?.public_key().raw).into())
}

/// SHA-256 of the public key of the root that issued a certificate: the one that follows it in its PEM text.
#[must_use]
pub fn issuer_of(pem: &str) -> Option<[u8; 32]> {
    let root = CertificateDer::pem_slice_iter(pem.as_bytes()).nth(1)?.ok()?;
    spki_sha256(&root).ok()
}

/// SHA-256 of the public key of every root in a PEM text.
///
/// # Errors
/// [`Rejected`] where there is none, one cannot be read, or one is of another cluster.
pub fn pins_of(roots: &str, cluster: &ClusterId) -> Result<Vec<[u8; 32]>, Rejected> {
    let mut pins = Vec::new();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        let root = root.map_err(|error| Rejected::Unreadable(error.to_string()))?;
        if ca_cluster(&root)? != cluster.as_str() {
            return Err(Rejected::Unreadable("it is the CA of another cluster".into()));
        }
        pins.push(spki_sha256(&root)?);
    }
    if pins.is_empty() { Err(Rejected::Unreadable("there is no certificate".into())) } else { Ok(pins) }
}

/// The trust domain that a cluster CA's certificate carries as `spiffe://<cluster>`.
pub(super) fn ca_cluster(der: &[u8]) -> Result<String, Rejected> {
    let x509 = parse(der)?;
    let uris = uris(&x509);
    let [uri] = uris[..] else { return Err(Rejected::Uris(uris.len())) };
    uri.strip_prefix("spiffe://").map(str::to_owned).ok_or(Rejected::Identity(InvalidIdentity::Form))
}

/// A certificate, its key and the CA it is checked against, as PEM.
#[derive(Clone)]
pub struct Credentials {
    /// Every root of the cluster that counts.
    pub ca: String,
    /// The own certificate; the CA may follow it.
    pub certificate: String,
    /// The own key.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Rejected> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| Rejected::Unreadable(error.to_string()))
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Rejected> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|error| Rejected::Unreadable(error.to_string()))
    }
}

/// A fresh P-256 key.
///
/// # Panics
/// Where the kernel has no randomness.
#[must_use]
pub fn new_key() -> KeyPair {
    KeyPair::generate().expect("a P-256 key can be made")
}

/// A signing request (PKCS#10, DER) for a key: the signer takes only the public key from it.
///
/// # Errors
/// [`Rejected::Unreadable`] where the key cannot sign.
pub fn signing_request(key: &KeyPair) -> Result<Vec<u8>, Rejected> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|error| Rejected::Unreadable(error.to_string()))?;
    debug_assert!(!key.der_bytes().is_empty());
    Ok(request.der().to_vec())
}
