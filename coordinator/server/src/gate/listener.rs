//! Connections: TCP, then TLS with a deadline, then a peer with a name or none.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mainstay_common::{
    ClusterId,
    process::{
        shutdown::CancellationToken,
        tls::{Certificate, Credentials, provider},
    },
};
use mainstay_core::KeyFingerprint;
use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{Peer, Refusal, Refusals};

/// How long a peer may take for its handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Handshakes at once; the rest waits in the listener's backlog.
const HANDSHAKES: usize = 64;

/// The server's TLS: 1.3 only, certificates of the cluster CA or none, no resumption (it would pass a revoked or
/// expired certificate without a look).
///
/// # Errors
/// Where the credentials cannot be read or do not fit together.
pub(crate) fn server_config(credentials: &Credentials) -> Result<Arc<ServerConfig>, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(credentials.ca.as_bytes()).map_err(|e| words(&e))?)
        .map_err(|e| words(&e))?;
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

/// A connection whose peer is known.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

/// Accepts until `stop`; gives the connections that passed TLS, and the task that accepts them.
pub(crate) fn connections(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    cluster: ClusterId,
    refusals: Arc<Refusals>,
    stop: CancellationToken,
) -> (ReceiverStream<io::Result<Connection>>, impl Future<Output = ()> + Send + 'static) {
    let (passed, stream) = mpsc::channel(HANDSHAKES);
    (ReceiverStream::new(stream), accept(listener, TlsAcceptor::from(tls), cluster, refusals, passed, stop))
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    cluster: ClusterId,
    refusals: Arc<Refusals>,
    passed: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = stop.cancelled() => break,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer that went away again: wait instead of spinning, and never end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, cluster) = (acceptor.clone(), cluster.clone());
        let (refusals, passed) = (Arc::clone(&refusals), passed.clone());
        handshakes.spawn(async move {
            let _slot = slot;
            match handshake(&acceptor, &cluster, tcp, address).await {
                // The receiver is gone only when the server is ending.
                Ok(connection) => drop(passed.send(Ok(connection)).await),
                Err((refusal, why)) => {
                    refusals.count(refusal);
                    tracing::debug!(%address, reason = refusal.as_str(), why, "connection refused");
                }
            }
        });
    }
    handshakes.shutdown().await;
}

async fn handshake(
    acceptor: &TlsAcceptor,
    cluster: &ClusterId,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<Connection, (Refusal, String)> {
    tcp.set_nodelay(true).map_err(|error| (Refusal::Handshake, error.to_string()))?;
    let stream = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(tcp))
        .await
        .map_err(|_| (Refusal::HandshakeTimeout, String::new()))?
        .map_err(|error| (Refusal::Handshake, error.to_string()))?;
    let who = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(der) => {
            let certificate = Certificate::from_der(der).map_err(|error| (Refusal::Identity, error.to_string()))?;
            if certificate.identity.cluster != *cluster {
                return Err((Refusal::Identity, "of another cluster".into()));
            }
            Some((certificate.identity.subject, KeyFingerprint(certificate.spki_sha256)))
        }
    };
    Ok(Connection { stream, peer: Peer { address, who } })
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
