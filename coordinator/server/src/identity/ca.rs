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

use super::seal::Closed;

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
    /// The CA cannot be used.
    #[error("the cluster CA cannot sign: {0}")]
    Ca(String),
    /// The CA's key stays sealed.
    #[error("the cluster CA's key cannot be opened: {0}")]
    Closed(Closed),
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

/// Which half of a root cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damaged {
    /// Its certificate.
    #[error("its certificate: {0}")]
    Certificate(String),
    /// Its key.
    #[error("its key: {0}")]
    Key(String),
}

impl Ca {
    /// Makes a root for a cluster; gives it and its key once more, to be sealed.
    pub(crate) fn make(cluster: &ClusterId, name: &str, now: Timestamp) -> Result<(Self, KeyPair), Unsigned> {
        let key = new_key();
        let again = KeyPair::try_from(key.serialize_der()).map_err(|error| Unsigned::Ca(error.to_string()))?;
        let params = root_params(cluster, name, now)?;
        let certificate = params.self_signed(&key).map_err(|error| Unsigned::Ca(error.to_string()))?;
        let pem = certificate.pem();
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| Unsigned::Ca(error.to_string()))?;
        Ok((Self { cluster: cluster.clone(), pem, issuer }, again))
    }

    /// A root of its certificate and its key.
    pub(crate) fn load(cluster: ClusterId, pem: String, key: KeyPair) -> Result<Self, Damaged> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Damaged::Certificate(e.to_string()))?;
        let certified = spki_sha256(&der).map_err(|error| Damaged::Certificate(error.to_string()))?;
        if certified != fingerprint(&key).0 {
            return Err(Damaged::Key("it is not the key of the certificate".into()));
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

    /// Certifies another root's key: whoever knows only this root follows to that one.
    pub(crate) fn certify(&self, next: &Self, name: &str, now: Timestamp) -> Result<String, Unsigned> {
        let params = root_params(&self.cluster, name, now)?;
        let signed = params.signed_by(next.issuer.key(), &self.issuer);
        Ok(signed.map_err(|error| Unsigned::Ca(error.to_string()))?.pem())
    }

    /// A certificate for an agent or a person, followed by this root.
    pub(crate) fn sign_client(
        &self,
        request: &Request,
        subject: Subject,
        now: Timestamp,
        life: Duration,
    ) -> Result<String, Unsigned> {
        let params = self.params(subject, now, life, vec![ExtendedKeyUsagePurpose::ClientAuth])?;
        self.sign(&params, &request.0)
    }

    /// A certificate for a replica, followed by this root: it serves under the cluster's one server name.
    pub(crate) fn sign_replica(
        &self,
        key: &impl PublicKeyData,
        subject: Subject,
        now: Timestamp,
        life: Duration,
    ) -> Result<String, Unsigned> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let mut params = self.params(subject, now, life, usages)?;
        let name =
            server_name(&self.cluster).try_into().map_err(|error: rcgen::Error| Unsigned::Ca(error.to_string()))?;
        params.subject_alt_names.push(SanType::DnsName(name));
        self.sign(&params, key)
    }

    /// The same for a replica that joins: its key stays where it was made.
    pub(crate) fn sign_joined(
        &self,
        request: &Request,
        subject: Subject,
        now: Timestamp,
        life: Duration,
    ) -> Result<String, Unsigned> {
        self.sign_replica(&request.0, subject, now, life)
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

fn root_params(cluster: &ClusterId, name: &str, now: Timestamp) -> Result<CertificateParams, Unsigned> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Mainstay {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{cluster}"))?];
    (params.not_before, params.not_after) = validity(now, CA_LIFE);
    params.serial_number = Some(serial());
    Ok(params)
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
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    #[test]
    fn only_the_public_key_of_a_request_is_taken() {
        let (ca, _) = Ca::make(&"c1".parse().unwrap(), "prod", NOW).unwrap();
        let key = new_key();
        let mut asks = CertificateParams::new(vec!["coordinator.c1.mainstay.internal".to_owned()]).unwrap();
        asks.subject_alt_names.push(uri("spiffe://c1/admin/root").unwrap());
        let request = Request::from_der(asks.serialize_request(&key).unwrap().der()).unwrap();
        let subject = Subject::Agent("n1".parse().unwrap());
        let certificate =
            Certificate::from_pem(&ca.sign_client(&request, subject.clone(), NOW, WEEK).unwrap()).unwrap();
        assert_eq!(certificate.identity.subject, subject);
        assert_eq!(KeyFingerprint(certificate.spki_sha256), request.key());
        assert_eq!(certificate.not_before, Timestamp(NOW.0 - 3_600_000));
        assert_eq!(certificate.not_after, NOW.plus(WEEK));
    }

    #[test]
    fn the_damaged_half_is_named() {
        let cluster: ClusterId = "c1".parse().unwrap();
        let ((ca, key), (_, other)) = (Ca::make(&cluster, "a", NOW).unwrap(), Ca::make(&cluster, "a", NOW).unwrap());
        let load = |pem: &str, key: &KeyPair| {
            let key = KeyPair::try_from(key.serialize_der()).unwrap();
            Ca::load(cluster.clone(), pem.to_owned(), key).err()
        };
        assert_eq!(load(ca.pem(), &key), None);
        assert!(matches!(load(&ca.pem()[..99], &key), Some(Damaged::Certificate(_))));
        assert_eq!(load(ca.pem(), &other), Some(Damaged::Key("it is not the key of the certificate".into())));
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
