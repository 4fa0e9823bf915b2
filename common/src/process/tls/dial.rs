//! How a client reaches a replica.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, client::Resumption, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Credentials, Rejected, provider};
use crate::Timestamp;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is none, or has no name.
    #[error("{0}")]
    Address(String),
    /// Nobody listens, no way there, or cut.
    #[error("{}", io_words(.0))]
    Io(io::Error),
    /// TLS did not come about.
    #[error("{0}")]
    Tls(String),
    /// Nothing came back in time.
    #[error("no answer within {}s", .0.as_secs())]
    Timeout(Duration),
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other error speaks for itself")]
fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        _ => error.to_string(),
    }
}

/// A client configuration with a certificate, for one cluster CA: TLS 1.3 only, no resumption (a resumed session would
/// show the old identity after a renewal).
///
/// # Errors
/// Where the credentials cannot be read or do not fit together.
pub fn client_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, Rejected> {
    let unreadable = |error: rustls::Error| Rejected::Unreadable(error.to_string());
    let roots = root_store(&credentials.ca)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unreadable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(credentials.chain()?, credentials.private_key()?)
        .map_err(unreadable)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A client configuration without a certificate, for these roots (PEM): what is left to whoever's certificate counts no
/// more.
///
/// # Errors
/// Where the roots cannot be read.
pub fn anonymous_config(roots: &str) -> Result<Arc<ClientConfig>, Rejected> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| Rejected::Unreadable(error.to_string()))?
        .with_root_certificates(root_store(roots)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn root_store(roots: &str) -> Result<RootCertStore, Rejected> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        let root = root.map_err(|error| Rejected::Unreadable(error.to_string()))?;
        store.add(root).map_err(|error| Rejected::Unreadable(error.to_string()))?;
    }
    if store.is_empty() { Err(Rejected::Unreadable("there is no CA certificate".into())) } else { Ok(store) }
}

/// Opens a TLS connection to `address` (host:port), whose certificate must name `server_name`. In TLS 1.3 the server's
/// refusal of our certificate shows only at the first call.
///
/// # Errors
/// [`DialError`] in words for a person.
pub async fn dial(
    address: &str,
    server_name: &str,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<TlsStream<TcpStream>, DialError> {
    let name = ServerName::try_from(server_name.to_owned()).map_err(|error| DialError::Address(error.to_string()))?;
    let connect = async {
        let tcp = TcpStream::connect(address).await.map_err(DialError::Io)?;
        tcp.set_nodelay(true).map_err(DialError::Io)?;
        TlsConnector::from(config).connect(name, tcp).await.map_err(|error| tls_error(&error))
    };
    timeout(limit, connect).await.unwrap_or(Err(DialError::Timeout(limit)))
}

fn tls_error(error: &io::Error) -> DialError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => DialError::Tls(tls_words(tls)),
        None => DialError::Io(io::Error::new(error.kind(), error.to_string())),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other error speaks for itself")]
pub(super) fn tls_words(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is of another cluster, or of a CA that was rotated in while nobody here was on".into()
        }
        Error::InvalidCertificate(Bad::ApplicationVerificationFailure) => {
            "it does not show the CA that the token pins: another cluster".into()
        }
        Error::InvalidCertificate(Bad::ExpiredContext { time, not_after }) => format!(
            "its certificate expired at {}, and this machine's clock says {}: one of the two clocks is wrong",
            moment(*not_after),
            moment(*time)
        ),
        Error::InvalidCertificate(Bad::Expired) => "its certificate expired (or this machine's clock is ahead)".into(),
        Error::InvalidCertificate(Bad::NotValidYetContext { time, not_before }) => format!(
            "its certificate counts from {} on, and this machine's clock says {}: one of the two clocks is wrong",
            moment(*not_before),
            moment(*time)
        ),
        Error::InvalidCertificate(Bad::NotValidYet) => {
            "its certificate is not valid yet (or this machine's clock is behind)".into()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is no replica's".into()
        }
        Error::AlertReceived(Alert::CertificateExpired) => "our certificate expired".into(),
        Error::AlertReceived(Alert::CertificateRevoked | Alert::AccessDenied) => "our certificate was revoked".into(),
        Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            "our certificate is of another cluster".into()
        }
        Error::InvalidMessage(_) => "it does not speak TLS".into(),
        other => other.to_string(),
    }
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1_000))
}

/// Finds the reason in a failed call: in TLS 1.3 a refused certificate arrives here, deep in the chain of causes.
#[must_use]
pub fn explain(status: &tonic::Status) -> Option<String> {
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(error) = cause {
        let tls = error.downcast_ref::<rustls::Error>().or_else(|| {
            let io = error.downcast_ref::<io::Error>()?;
            io.get_ref()?.downcast_ref::<rustls::Error>()
        });
        if let Some(tls) = tls {
            return Some(tls_words(tls));
        }
        cause = error.source();
    }
    None
}
