//! A channel of gRPC calls over one connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, StdError},
    transport::{self, Endpoint},
};

use super::verdict::{Verdict, Watched};

/// What HTTP wants to hear; who answers is TLS's to say.
const ORIGIN: &str = "http://coordinator.mainstay.internal";

/// Calls that the connection's end left without an answer get one after this: whatever came in time is read by then.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Calls over one connection. When that ends, the calls fail; nothing is dialled anew. Cheap to clone.
///
/// A call that is made in the very moment in which the connection ends can stay in hyper's queue, which nobody reads
/// any more, for as long as the channel lives (hyper#4122; one in some 10,000 refused connections on a busy machine).
/// So every call hears of the end by itself, too.
#[derive(Clone, Debug)]
pub struct Channel {
    calls: transport::Channel,
    ended: CancellationToken,
}

impl Channel {
    /// One connection is all that the channel ever has.
    async fn over<S>(endpoint: Endpoint, stream: S) -> Result<Self, transport::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let ended = CancellationToken::new();
        let telling = Telling { stream, _ended: ended.clone().drop_guard() };
        let mut once = Some(TokioIo::new(telling));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let calls = endpoint.connect_with_connector(connector).await?;
        Ok(Self { calls, ended })
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.calls.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.calls.call(request);
        let ended = self.ended.clone();
        Box::pin(async move {
            let left_alone = async {
                ended.cancelled().await;
                tokio::time::sleep(LAST_ANSWERS).await;
            };
            tokio::select! {
                biased;
                answer = answer => answer.map_err(Into::into),
                () = left_alone => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            }
        })
    }
}

/// A connection that tells of its end.
struct Telling<S> {
    stream: S,
    _ended: DropGuard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Telling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Telling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A channel over one connection.
///
/// # Errors
/// Where the HTTP/2 handshake fails.
pub async fn channel(stream: TlsStream<TcpStream>) -> Result<Channel, transport::Error> {
    Channel::over(endpoint(), stream).await
}

/// The same, and where TLS says why it ended the connection.
///
/// # Errors
/// As for [`channel`].
pub async fn watched_channel(stream: TlsStream<TcpStream>) -> Result<(Channel, Verdict), transport::Error> {
    let verdict = Verdict::default();
    let channel = Channel::over(endpoint(), Watched::new(stream, verdict.clone())).await?;
    Ok((channel, verdict))
}

/// A channel between replicas: whoever is silent for 3 s is gone, and much may be on its way.
///
/// # Errors
/// As for [`channel`].
pub async fn peer_channel(stream: TlsStream<TcpStream>) -> Result<Channel, transport::Error> {
    let endpoint = Endpoint::from_static(ORIGIN)
        .initial_stream_window_size(2 * 1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    Channel::over(endpoint, stream).await
}

fn endpoint() -> Endpoint {
    Endpoint::from_static(ORIGIN)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(256 * 1024)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn a_call_that_the_end_left_in_a_queue_gets_an_answer() {
        let (here, mut there) = duplex(64 * 1024);
        let mut channel = Channel::over(endpoint(), here).await.unwrap();
        std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
        let call = tokio::spawn(channel.call(Request::new(Body::empty())));
        // The peer stands and says nothing: only the word of the end, as in the queue that nobody reads.
        there.read_u8().await.unwrap();
        channel.ended.cancel();
        let failed = call.await.unwrap().unwrap_err();
        let io = failed.downcast_ref::<io::Error>().unwrap();
        assert_eq!(io.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_told() {
        let (here, there) = duplex(64 * 1024);
        let channel = Channel::over(endpoint(), here).await.unwrap();
        assert!(!channel.ended.is_cancelled());
        drop(there);
        channel.ended.cancelled().await;
    }
}
