//! A receiver on loopback: real sockets, one behaviour each, good or bad.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// TCP, or TLS over it.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}
/// One connection.
pub(crate) type Connection = Box<dyn Wire>;
type Acting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Request line and headers.
    pub(crate) head: String,
    /// All of its body.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A header's value, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A running receiver; ends when dropped.
pub(crate) struct Receiver {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Receiver {
    /// Reads each request, answers with these bytes, and closes.
    pub(crate) async fn answers(answer: impl Into<Vec<u8>>) -> Self {
        Self::start(None, reply(answer.into())).await
    }

    /// The same over TLS.
    pub(crate) async fn answers_tls(tls: Arc<ServerConfig>, answer: impl Into<Vec<u8>>) -> Self {
        Self::start(Some(tls), reply(answer.into())).await
    }

    /// Hands over each connection after its request was read.
    pub(crate) async fn acts<F, Fut>(act: F) -> Self
    where
        F: Fn(Connection) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let act = move |mut connection: Connection, requests: Arc<Mutex<Vec<Request>>>| {
            let act = act.clone();
            Box::pin(async move {
                let Some(request) = read_request(&mut connection).await else { return };
                requests.lock().unwrap().push(request);
                act(connection).await;
            }) as Acting
        };
        Self::start(None, Arc::new(act)).await
    }

    /// Hands over each connection as it is, before anything was read.
    pub(crate) async fn greets<F, Fut>(act: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (listener, address) = listen().await;
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(act(stream));
            }
        });
        Self { address, connections, requests: Arc::default(), accepting }
    }

    async fn start(tls: Option<Arc<ServerConfig>>, act: Act) -> Self {
        let (listener, address) = listen().await;
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, kept) = (Arc::clone(&connections), Arc::clone(&requests));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (tls, act, kept) = (tls.clone(), Arc::clone(&act), Arc::clone(&kept));
                tokio::spawn(async move {
                    match tls {
                        None => act(Box::new(stream), kept).await,
                        Some(tls) => {
                            let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                            act(Box::new(stream), kept).await;
                        }
                    }
                });
            }
        });
        Self { address, connections, requests, accepting }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

type Act = Arc<dyn Fn(Connection, Arc<Mutex<Vec<Request>>>) -> Acting + Send + Sync>;

fn reply(answer: Vec<u8>) -> Act {
    Arc::new(move |mut connection, requests| {
        let answer = answer.clone();
        Box::pin(async move {
            let Some(request) = read_request(&mut connection).await else { return };
            requests.lock().unwrap().push(request);
            if connection.write_all(&answer).await.is_ok() {
                // The other side may be gone already.
                drop(connection.shutdown().await);
            }
        })
    })
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn read_request(connection: &mut Connection) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut request = Request { head, body: bytes[end + 4..].to_vec() };
            let length: usize = request.header("content-length").unwrap().parse().unwrap();
            let read = request.body.len();
            request.body.resize(length, 0);
            connection.read_exact(&mut request.body[read..]).await.ok()?;
            return Some(request);
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A CA, and what is needed to trust it and to serve with it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// The roots of a machine that trusts it.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A server with a certificate for `name`.
    pub(crate) fn serves(&self, name: &str) -> Arc<ServerConfig> {
        self.serves_with(name, &[&rustls::version::TLS13, &rustls::version::TLS12], |_| ())
    }

    /// A server with other versions or another certificate.
    pub(crate) fn serves_with(
        &self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(mainstay_common::process::tls::provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}
