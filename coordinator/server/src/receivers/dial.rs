//! From a target to a connection: look its name up, check every address, connect to what was checked, TLS.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_ok;
use mainstay_common::{process::tls::provider, text::Shown};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Target,
    address::reserved,
    client::{Client, NoAnswer},
    target::TargetHost,
};

/// Looks a name up; blocks. What it finds is checked, and connected to without another look.
pub type Lookup = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Between one address and the next, as RFC 8305 has it: one that swallows packets does not use up the whole time.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Addresses that are tried; every one is checked.
const ADDRESSES: usize = 8;

/// The machine's own way: its hosts file, then DNS.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name, port| (name, port).to_socket_addrs().map(Iterator::collect))
}

/// The CAs that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` point elsewhere. Blocks: read it once, at start.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "CA certificates of this machine could not be read");
    }
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!("this machine has no CA certificates: receivers cannot be reached over https");
    } else if ignored > 0 {
        tracing::debug!(ignored, "some of this machine's CA certificates are not usable");
    }
    roots
}

/// TLS to receivers. 1.2 is allowed here, and only here: gateways within companies still speak nothing newer, and with
/// the suites that rustls knows (ECDHE with AEAD) a warning is better sent than not.
pub(super) fn tls_config(roots: RootCertStore) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("ring has suites for both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The addresses that may be connected to: all that the name has, or none.
///
/// One reserved address among public ones refuses the name: which of them is met must not depend on who answers first.
pub(super) async fn addresses(client: &Client, target: &Target) -> Result<Vec<SocketAddr>, NoAnswer> {
    let found = match &target.host {
        TargetHost::Address(address) => vec![SocketAddr::new(*address, target.port)],
        TargetHost::Name(name) => {
            let (lookup, name, port) = (Arc::clone(&client.lookup), name.clone(), target.port);
            client
                .aside(client.limits.lookup, move || lookup(&name, port))
                .await
                .map_err(NoAnswer::NoLookup)?
                .map_err(NoAnswer::Lookup)?
        }
    };
    if found.is_empty() {
        return Err(NoAnswer::NoAddress);
    }
    match found.iter().find_map(|found| Some((found.ip(), reserved(found.ip())?))) {
        Some((address, what)) if !target.allow_private_address => Err(NoAnswer::Reserved(address, what)),
        _ => Ok(found),
    }
}

/// Connects to the first address that answers.
pub(super) async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, NoAnswer> {
    let attempts = (0u32..).zip(addresses.iter().take(ADDRESSES)).map(|(turn, address)| {
        Box::pin(async move {
            sleep(NEXT_ADDRESS * turn).await;
            TcpStream::connect(address).await.map_err(|error| NoAnswer::Connect(*address, error))
        })
    });
    let (stream, _) = timeout(limit, select_ok(attempts)).await.map_err(|_| NoAnswer::NoConnection(limit))??;
    stream.set_nodelay(true).map_err(NoAnswer::Cut)?;
    Ok(stream)
}

/// The handshake.
pub(super) async fn secure(
    client: &Client,
    tcp: TcpStream,
    name: &ServerName<'static>,
) -> Result<TlsStream<TcpStream>, NoAnswer> {
    let limit = client.limits.handshake;
    let connector = TlsConnector::from(Arc::clone(&client.tls));
    timeout(limit, connector.connect(name.clone(), tcp)).await.map_err(|_| NoAnswer::NoHandshake(limit))?.map_err(
        |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => NoAnswer::Tls(tls_words(tls)),
            None => NoAnswer::HandshakeCut(error),
        },
    )
}

/// What to do about it, and nothing of what the server wrote.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other error speaks for itself")]
fn tls_words(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is of a CA that this machine does not trust: add the CA to the system's store and restart the coordinator".into()
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another name".into()
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate expired (or this machine's clock is ahead)".into()
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "its certificate is not valid yet (or this machine's clock is behind)".into()
        }
        // Behind `Other` is webpki's error, which rustls does not show in any other way.
        Error::InvalidCertificate(Bad::Other(other)) if other.to_string() == "CaUsedAsEndEntity" => {
            "its certificate is a CA's own, as self-signed ones often are: let a CA sign one for the server".into()
        }
        Error::InvalidCertificate(bad) => {
            format!("its certificate is not usable: {}", Shown::new(&format!("{bad:?}")).cut(120))
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(Alert::ProtocolVersion) => {
            "it speaks no TLS that is still safe: it needs 1.3, or 1.2 with ECDHE and AES-GCM or ChaCha20".into()
        }
        Error::AlertReceived(Alert::HandshakeFailure) => {
            "it refuses the TLS handshake: no cipher suite in common, or it wants a client certificate".into()
        }
        Error::AlertReceived(alert) => format!("it refuses the TLS handshake ({alert:?})"),
        Error::InvalidMessage(_) => "it does not speak TLS (plain http?)".into(),
        other => Shown::new(&other.to_string()).cut(200).to_string(),
    }
}
