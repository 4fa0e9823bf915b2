//! The first contact: the server must show the CA that the join token pins.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{certificate, provider};
use crate::{ClusterId, identity::server_name};

/// A client configuration without a certificate that trusts exactly the CA whose public key hashes to `pin`.
///
/// # Panics
/// Never: TLS 1.3 with ring is always there.
#[must_use]
pub fn pinned_config(pin: [u8; 32]) -> Arc<ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(Pinned { pin, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = |der: &&CertificateDer<'_>| certificate::spki_sha256(der) == Ok(self.pin);
        let root = intermediates.iter().find(pinned).ok_or(CertificateError::ApplicationVerificationFailure)?;
        let bad = |_| Error::from(CertificateError::BadEncoding);
        let cluster: ClusterId =
            certificate::ca_cluster(root).map_err(bad)?.parse().map_err(|_| CertificateError::BadEncoding)?;
        let name = ServerName::try_from(server_name(&cluster)).map_err(|_| CertificateError::BadEncoding)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        webpki.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
