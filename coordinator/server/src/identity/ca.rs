//! Signing.

use std::time::Duration;

use mainstay_common::{
    ClusterId, Timestamp,
    identity::{Identity, Subject, server_name},
    process::{
        random,
        tls::{new_key, spki_sha256},
    },
};
use mainstay_core::KeyFingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// Ten years.
const CA_LIFE: Duration = Duration::from_secs(3_652 * 86_400);
/// Certificates begin an hour early, for clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsigned {
    /// The request cannot be read, or its own signature is wrong.
    #[error("the signing request is not valid: {0}")]
    Request(String),
    /// The CA's own files are damaged.
    #[error("the cluster CA cannot sign: {0}")]
    Ca(String),
}

/// The cluster CA with its key.
pub(crate) struct Ca {
    cluster: ClusterId,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A public key that proved to own its private half.
pub(crate) struct Request(rcgen::PublicKey);

impl Request {
    /// Reads a PKCS#10 request (DER): only its public key is taken, whatever names it asks for.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, Unsigned> {
        let request = CertificateSigningRequestParams::from_der(&der.into());
        request.map(|request| Self(request.public_key)).map_err(|error| Unsigned::Request(error.to_string()))
    }

    pub(crate) fn key(&self) -> KeyFingerprint {
        fingerprint(&self.0)
    }
}

/// SHA-256 of a public key.
pub(crate) fn fingerprint(key: &impl PublicKeyData) -> KeyFingerprint {
    KeyFingerprint(Sha256::digest(key.subject_public_key_info()).into())
}

/// Which of the CA's two files cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Damaged {
    /// `ca.crt`.
    Certificate(String),
    /// `ca.key`.
    Key(String),
}

impl Ca {
    /// Makes a CA for a new cluster; gives it and its key (PEM).
    pub(crate) fn make(cluster: &ClusterId, name: &str, now: Timestamp) -> Result<(Self, String), Unsigned> {
        let key = new_key();
        let key_pem = key.serialize_pem();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Mainstay {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{cluster}"))?];
        (params.not_before, params.not_after) = validity(now, CA_LIFE);
        params.serial_number = Some(serial());
        let certificate = params.self_signed(&key).map_err(|error| Unsigned::Ca(error.to_string()))?;
        let pem = certificate.pem();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| Unsigned::Ca(error.to_string()))?;
        Ok((Self { cluster: cluster.clone(), pem, issuer }, key_pem))
    }

    /// Reads a CA from the texts of its two files.
    pub(crate) fn load(cluster: ClusterId, pem: String, key_pem: &str) -> Result<Self, Damaged> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| Damaged::Key(error.to_string()))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Damaged::Certificate(e.to_string()))?;
        let certified = spki_sha256(&der).map_err(|error| Damaged::Certificate(error.to_string()))?;
        if certified != fingerprint(&key).0 {
            return Err(Damaged::Key("it is not the key of ca.crt".into()));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| Damaged::Certificate(e.to_string()))?;
        Ok(Self { cluster, pem, issuer })
    }

    /// The CA's certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA's public key: what join tokens pin and `init` prints.
    pub(crate) fn pin(&self) -> [u8; 32] {
        fingerprint(self.issuer.key()).0
    }

    /// A certificate for an agent or a person, followed by the CA.
    pub(crate) fn sign_client(&self, request: &Request, subject: Subject, now: Timestamp) -> Result<String, Unsigned> {
        let params = self.params(subject, now, super::LEAF_LIFE, vec![ExtendedKeyUsagePurpose::ClientAuth])?;
        self.sign(&params, &request.0)
    }

    /// A certificate for a replica, followed by the CA: it serves under the cluster's one server name.
    pub(crate) fn sign_replica(&self, key: &KeyPair, subject: Subject, now: Timestamp) -> Result<String, Unsigned> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let mut params = self.params(subject, now, super::REPLICA_LIFE, usages)?;
        let name =
            server_name(&self.cluster).try_into().map_err(|error: rcgen::Error| Unsigned::Ca(error.to_string()))?;
        params.subject_alt_names.push(SanType::DnsName(name));
        self.sign(&params, key)
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<String, Unsigned> {
        let certificate = params.signed_by(key, &self.issuer).map_err(|error| Unsigned::Ca(error.to_string()))?;
        Ok(format!("{}{}", certificate.pem(), self.pem))
    }

    fn params(
        &self,
        subject: Subject,
        now: Timestamp,
        life: Duration,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<CertificateParams, Unsigned> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&subject.to_string());
        params.subject_alt_names = vec![uri(&Identity { cluster: self.cluster.clone(), subject }.to_string())?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, life);
        params.serial_number = Some(serial());
        Ok(params)
    }
}

fn uri(text: &str) -> Result<SanType, Unsigned> {
    text.try_into().map(SanType::URI).map_err(|error: rcgen::Error| Unsigned::Ca(error.to_string()))
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn validity(now: Timestamp, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from_unix_timestamp(now.0 / 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (now - BACKDATED, now + life)
}

/// 127 random bits: positive, as DER wants it.
fn serial() -> SerialNumber {
    let mut bytes = random::<16>();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use mainstay_common::process::tls::{Certificate, signing_request};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn only_the_public_key_of_a_request_is_taken() {
        let (ca, _) = Ca::make(&"c1".parse().unwrap(), "prod", NOW).unwrap();
        let key = new_key();
        let mut asks = CertificateParams::new(vec!["coordinator.c1.mainstay.internal".to_owned()]).unwrap();
        asks.subject_alt_names.push(uri("spiffe://c1/admin/root").unwrap());
        let request = Request::from_der(asks.serialize_request(&key).unwrap().der()).unwrap();
        let subject = Subject::Agent("n1".parse().unwrap());
        let certificate = Certificate::from_pem(&ca.sign_client(&request, subject.clone(), NOW).unwrap()).unwrap();
        assert_eq!(certificate.identity.subject, subject);
        assert_eq!(KeyFingerprint(certificate.spki_sha256), request.key());
        assert_eq!(certificate.not_before, Timestamp(NOW.0 - 3_600_000));
        assert_eq!(certificate.not_after, NOW.plus(super::super::LEAF_LIFE));
    }

    #[test]
    fn the_damaged_file_is_named() {
        let cluster: ClusterId = "c1".parse().unwrap();
        let ((ca, key), (_, other)) = (Ca::make(&cluster, "a", NOW).unwrap(), Ca::make(&cluster, "a", NOW).unwrap());
        let load = |pem: &str, key: &str| Ca::load(cluster.clone(), pem.to_owned(), key).err();
        assert_eq!(load(ca.pem(), &key), None);
        assert!(matches!(load(&ca.pem()[..99], &key), Some(Damaged::Certificate(_))));
        assert!(matches!(load(ca.pem(), &key[..99]), Some(Damaged::Key(_))));
        assert_eq!(load(ca.pem(), &other), Some(Damaged::Key("it is not the key of ca.crt".into())));
    }

    #[test]
    fn a_request_with_a_broken_signature_is_refused() {
        let mut der = signing_request(&new_key()).unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(Request::from_der(&der), Err(Unsigned::Request(_))));
        assert!(Request::from_der(b"rubbish").is_err());
    }
}
