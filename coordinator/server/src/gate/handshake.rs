//! TLS: what is asked of a peer, and what went wrong with it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mainstay_common::{
    ClusterId, Timestamp,
    process::tls::{Certificate, Credentials, provider},
};
use mainstay_core::KeyFingerprint;
use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

use super::{
    Refusal,
    doorkeeper::Shown,
    limits::{FAREWELL_LIMIT, HANDSHAKE_BYTES},
};

/// The server's TLS: 1.3 only, certificates of the cluster CA or none, no resumption (it would pass a revoked or
/// expired certificate without a look).
///
/// # Errors
/// Where the credentials cannot be read or do not fit together.
pub(crate) fn server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(credentials.ca.as_bytes()) {
        roots.add(root.map_err(|e| words(&e))?).map_err(|e| words(&e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .clear_root_hint_subjects()
        .build()
        .map_err(|e| words(&e))?;
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|e| words(&e))?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).map_err(|e| words(&e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| words(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| words(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Reads who a verified certificate speaks for.
///
/// # Errors
/// Why it is no identity of this cluster.
pub(super) fn identity(der: &[u8], cluster: &ClusterId) -> Result<Shown, (Refusal, String)> {
    let certificate = Certificate::from_der(der).map_err(|error| (Refusal::Identity, error.to_string()))?;
    if certificate.identity.cluster != *cluster {
        return Err((Refusal::Identity, format!("{} is of another cluster", certificate.identity)));
    }
    Ok(Shown {
        subject: certificate.identity.subject,
        key: KeyFingerprint(certificate.spki_sha256),
        not_after: certificate.not_after,
    })
}

/// Lets the peer read why it is refused: a socket that is closed with something unread in it takes back what it sent
/// last, and the peer, which has begun to speak already, would see a broken connection and no reason.
pub(super) async fn farewell(mut tcp: impl AsyncRead + AsyncWrite + Unpin) {
    let drain = async {
        tcp.shutdown().await?;
        let mut rest = [0; 1024];
        while tcp.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // However it ends, the connection does.
    drop(timeout(FAREWELL_LIMIT, drain).await);
}

/// Why a handshake failed, in the gate's words. Times out of validity name both clocks.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other error speaks for itself")]
pub(super) fn failed(error: &io::Error) -> (Refusal, String) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let moment = |time: UnixTime| Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000));
    if let Some(rustls::Error::InvalidCertificate(bad)) = tls {
        match bad {
            CertificateError::ExpiredContext { time, not_after } => {
                let (here, end) = (moment(*time), moment(*not_after));
                return (Refusal::Expired, format!("the certificate ran out at {end}; this replica's clock: {here}"));
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                let (here, begin) = (moment(*time), moment(*not_before));
                let why = format!("the certificate counts from {begin}; this replica's clock: {here}");
                return (Refusal::NotYetValid, why);
            }
            _ => {}
        }
    }
    let refusal = match tls {
        Some(rustls::Error::InvalidCertificate(bad)) => match bad {
            CertificateError::Expired => Refusal::Expired,
            CertificateError::NotValidYet => Refusal::NotYetValid,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Refusal::OtherCa,
            _ => Refusal::Identity,
        },
        _ => Refusal::Handshake,
    };
    (refusal, error.to_string())
}

/// A stream of which a handshake may read only so much.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    left: usize,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, left: HANDSHAKE_BYTES }
    }

    /// The handshake is over.
    pub(super) fn lift(&mut self) {
        self.left = usize::MAX;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(Err(io::Error::other("it said too much before the handshake was over")));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.left != usize::MAX {
            this.left = this.left.saturating_sub(buf.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
