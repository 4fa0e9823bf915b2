//! One http exchange, within limits of time and memory, whatever the other side does.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderValue, Request, header, response::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Target,
    address::Reserved,
    dial::{self, Lookup},
};

/// Says who is asking, and of which version.
const USER_AGENT: &str = concat!("mainstay/", env!("CARGO_PKG_VERSION"));
/// Lookups and reads of `url_file` at once. Their threads cannot be stopped, and the rest of the process needs some.
const ASIDE: usize = 8;

/// How long and how much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To read a `url_file`, which may lie on a network filesystem.
    pub url_file: Duration,
    /// To look a name up.
    pub lookup: Duration,
    /// Until one of its addresses accepts.
    pub connect: Duration,
    /// For TLS.
    pub handshake: Duration,
    /// From the first step to the head of the answer.
    pub total: Duration,
    /// For the rest of an answer whose head has told everything.
    pub goodbye: Duration,
    /// Of an answer's head; at least 8192.
    pub head_bytes: usize,
    /// Of its body: read so that the receiver sees no reset, and dropped.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            url_file: Duration::from_secs(2),
            lookup: Duration::from_secs(3),
            connect: Duration::from_secs(3),
            handshake: Duration::from_secs(5),
            total: Duration::from_secs(10),
            goodbye: Duration::from_millis(500),
            head_bytes: 16 * 1024,
            body_bytes: 4 * 1024,
        }
    }
}

/// Why what blocks gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    #[error("nothing came back within {0:?}")]
    Slow(Duration),
    #[error("{ASIDE} earlier lookups or reads of files still hang; look at this machine's DNS and network filesystems")]
    Busy,
    #[error("it crashed: {0}")]
    Crashed(#[from] tokio::task::JoinError),
}

/// Why there was no answer. Nothing the other side wrote is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("its name cannot be looked up: {0}")]
    NoLookup(Stuck),
    #[error("its name is not found: {0}")]
    Lookup(io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("its name leads to {0}, no public address ({1}): a receiver there needs allow_private_address = true")]
    Reserved(IpAddr, Reserved),
    #[error("no connection within {0:?}")]
    NoConnection(Duration),
    #[error("{} at {}", io_words(.1), .0)]
    Connect(SocketAddr, io::Error),
    #[error("this machine has no CA certificates: install ca-certificates and restart the coordinator")]
    NoRoots,
    #[error("no TLS handshake within {0:?}")]
    NoHandshake(Duration),
    #[error("{} during the TLS handshake", io_words(.0))]
    HandshakeCut(io::Error),
    #[error("{0}")]
    Tls(String),
    #[error("no complete answer within {0:?}")]
    Late(Duration),
    #[error("it closed the connection without an answer")]
    Closed,
    #[error("{} without an answer", io_words(.0))]
    Cut(io::Error),
    #[error("its answer has more than {} KiB of headers, or too many", .0 / 1024)]
    EndlessHead(usize),
    #[error("it does not speak HTTP ({0})")]
    NotHttp(hyper::Error),
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other error speaks for itself")]
fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset".into(),
        io::ErrorKind::UnexpectedEof => "connection closed".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no route".into(),
        _ => error.to_string(),
    }
}

/// What sends to receivers: one for the whole replica, without any state between two messages.
pub struct Client {
    pub(super) limits: Limits,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) lookup: Lookup,
    has_roots: bool,
    aside: Arc<Semaphore>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that trusts `roots`: [`system_roots`](super::system_roots), so that a company's own CA counts.
    #[must_use]
    pub fn new(roots: RootCertStore, limits: Limits) -> Self {
        let has_roots = !roots.is_empty();
        let tls = Arc::new(dial::tls_config(roots));
        Self { limits, tls, lookup: dial::system_lookup(), has_roots, aside: Arc::new(Semaphore::new(ASIDE)) }
    }

    /// Looks names up in another way than the machine's.
    #[must_use]
    pub fn with_lookup(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// Runs what blocks on a thread of its own, and waits for it so long. A thread that hangs keeps its place.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let place = Arc::clone(&self.aside).try_acquire_owned().map_err(|_| Stuck::Busy)?;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        Ok(timeout(limit, working).await.map_err(|_| Stuck::Slow(limit))??)
    }

    /// Sends a request (its method, own headers and body) and gives the head of the answer.
    pub(super) async fn exchange(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Parts, NoAnswer> {
        *request.uri_mut() = target.path_and_query.clone().into();
        let headers = request.headers_mut();
        headers.insert(header::HOST, target.authority.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if target.tls.is_some() && !self.has_roots {
            return Err(NoAnswer::NoRoots);
        }
        let late = |_| NoAnswer::Late(self.limits.total);
        let dialled = async {
            let addresses = dial::addresses(self, target).await?;
            dial::connect(&addresses, self.limits.connect).await
        };
        let tcp = timeout_at(deadline, dialled).await.map_err(late)??;
        match &target.tls {
            None => self.speak(tcp, request, deadline).await,
            Some(name) => {
                let tls = timeout_at(deadline, dial::secure(self, tcp, name)).await.map_err(late)??;
                self.speak(tls, request, deadline).await
            }
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Parts, NoAnswer> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(self.limits.head_bytes);
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| self.no_answer(error))?;
        let mut connection = pin!(connection.fuse());
        let mut answered = pin!(sender.send_request(request));
        let head = async {
            tokio::select! {
                biased;
                response = &mut answered => response,
                ended = &mut connection => match (answered.await, ended) {
                    // The request never left, and only the connection knows why.
                    (Err(error), Err(cause)) if error.is_canceled() => Err(cause),
                    (response, _) => response,
                },
            }
        };
        let response = timeout_at(deadline, head).await.map_err(|_| NoAnswer::Late(self.limits.total))?;
        let (head, body) = response.map_err(|error| self.no_answer(error))?.into_parts();
        // The head has told everything: whatever happens to the body changes nothing.
        let rest = async {
            tokio::select! {
                () = drop_body(body, self.limits.body_bytes) => (),
                _ = &mut connection => (),
            }
        };
        drop(timeout(self.limits.goodbye, rest).await);
        Ok(head)
    }

    fn no_answer(&self, error: hyper::Error) -> NoAnswer {
        let io = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
        if let Some(io) = io {
            NoAnswer::Cut(io::Error::new(io.kind(), io.to_string()))
        } else if error.is_incomplete_message() {
            NoAnswer::Closed
        } else if error.is_parse_too_large() {
            NoAnswer::EndlessHead(self.limits.head_bytes)
        } else {
            NoAnswer::NotHttp(error)
        }
    }
}

async fn drop_body(mut body: Incoming, limit: usize) {
    let mut read = 0;
    while read < limit {
        let Some(Ok(frame)) = body.frame().await else { break };
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}
