//! Certificates as nobody should have them, signed with the cluster's own CA key or by a CA that looks like it.

use mainstay_common::{
    ClusterId,
    process::{
        context::Context,
        tls::{Credentials, new_key},
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::{Cluster, ca_key};

/// Whoever holds a CA's key.
#[derive(Debug)]
pub struct Forger {
    /// The cluster's trust domain.
    pub cluster: ClusterId,
    /// The CA that clients trust: always the cluster's real one.
    pub trusted: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its URIs.
    pub uris: Vec<String>,
    /// What it is for.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// From and until when it counts, in hours from now.
    pub hours: (i64, i64),
}

impl Form {
    /// A good client's certificate but for its URIs.
    #[must_use]
    pub fn of(uris: &[&str]) -> Self {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        Self { uris, usages: vec![ExtendedKeyUsagePurpose::ClientAuth], hours: (-1, 24) }
    }
}

impl Forger {
    /// The cluster's own CA, from its data directory.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let folder = cluster.coordinator_folder();
        let context = Context::load(&folder.join("admin.context")).unwrap_or_else(|error| panic!("{error}"));
        let key = ca_key::of(&folder);
        let issuer = Issuer::from_ca_cert_pem(&context.ca, key).expect("the CA");
        Self { cluster: context.cluster_id, trusted: context.ca, issuer }
    }

    /// Another CA of the same name and trust domain.
    ///
    /// # Panics
    /// Where the kernel has no randomness.
    #[must_use]
    pub fn namesake(&self) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("Mainstay lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{}", self.cluster))];
        Self { cluster: self.cluster.clone(), trusted: self.trusted.clone(), issuer: Issuer::new(params, new_key()) }
    }

    /// Signs whatever the form says for a key (PEM).
    ///
    /// # Panics
    /// Where X.509 cannot say it.
    #[must_use]
    pub fn sign(&self, form: &Form, key: &str) -> Credentials {
        let public = KeyPair::from_pem(key).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = name("forged");
        params.subject_alt_names = form.uris.iter().map(|text| uri(text)).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&form.usages);
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::hours(form.hours.0);
        params.not_after = now + Duration::hours(form.hours.1);
        let certificate = params.signed_by(&public, &self.issuer).expect("it can be signed");
        Credentials { ca: self.trusted.clone(), certificate: certificate.pem(), key: key.to_owned() }
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}
