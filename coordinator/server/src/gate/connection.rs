//! A connection that TLS let through: it notices silence at its beginning, a peer that takes nothing, and its own end.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::{
    Peer, Refusal, Refusals,
    doorkeeper::Id,
    limits::{FIRST_BYTES, Patience},
    listener::Said,
};

/// The rope by which the doorkeeper ends a connection, whatever its streams are doing.
#[derive(Debug)]
pub(super) struct Rope {
    /// The refusal's number; [`Rope::HOLDS`] until then.
    pulled: AtomicU8,
    waker: AtomicWaker,
}

impl Rope {
    const HOLDS: u8 = u8::MAX;

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { pulled: AtomicU8::new(Self::HOLDS), waker: AtomicWaker::new() })
    }

    pub(super) fn pull(&self, refusal: Refusal) {
        self.pulled.store(refusal as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when it was pulled. One task at a time may wait.
    pub(super) fn poll_pulled(&self, cx: &mut Context<'_>) -> Poll<Refusal> {
        self.waker.register(cx.waker());
        Refusal::from_number(self.pulled.load(Ordering::Acquire)).map_or(Poll::Pending, Poll::Ready)
    }
}

/// Tells the doorkeeper when a connection is gone, also when its task is dropped.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) id: Id,
    pub(super) said: mpsc::UnboundedSender<Said>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        // Nobody listens any more only when the replica is ending.
        drop(self.said.send(Said::Left(self.id)));
    }
}

/// A connection whose peer is known.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    peer: Peer,
    rope: Arc<Rope>,
    /// Bytes that are still awaited, and until when.
    first: Option<(usize, Pin<Box<Sleep>>)>,
    /// Since a write waits for the peer.
    stall: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    refusals: Arc<Refusals>,
    _presence: Presence,
}

impl<S> Connection<S> {
    pub(super) fn new(
        stream: S,
        peer: Peer,
        patience: Patience,
        rope: Arc<Rope>,
        refusals: Arc<Refusals>,
        presence: Presence,
    ) -> Self {
        let first = Some((FIRST_BYTES, Box::pin(sleep(patience.first_bytes))));
        Self { stream, peer, rope, first, stall: None, patience, refusals, _presence: presence }
    }

    /// An error once the connection was cut: looked at in every direction, since a peer that takes nothing keeps hyper
    /// from reading.
    fn alive(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.rope.poll_pulled(cx) {
            Poll::Ready(refusal) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, refusal.as_str())),
            Poll::Pending => Ok(()),
        }
    }

    fn too_late(&self, refusal: Refusal, why: &str) -> io::Error {
        self.refusals.refuse(refusal, self.peer.address, &self.peer.to_string(), why);
        io::Error::new(io::ErrorKind::TimedOut, refusal.as_str())
    }

    fn heard(&mut self, count: usize, cx: &mut Context<'_>) -> io::Result<()> {
        let Some((awaited, late)) = &mut self.first else { return Ok(()) };
        *awaited = awaited.saturating_sub(count);
        if *awaited == 0 {
            self.first = None;
        } else if late.as_mut().poll(cx).is_ready() {
            return Err(self.too_late(Refusal::FirstBytes, "HTTP/2 did not begin"));
        }
        Ok(())
    }

    /// Watches how long a write waits.
    fn written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let late = self.stall.get_or_insert_with(|| Box::pin(sleep(self.patience.stall)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(self.too_late(Refusal::Stalled, "it took nothing of what was written to it")))
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.heard(buf.filled().len() - before, cx)?;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive(cx)?;
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.written(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive(cx)?;
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive(cx)?;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.written(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive(cx)?;
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.written(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const BUFFER: usize = 64;
    const NEVER: Duration = Duration::from_secs(3_600);
    const SOON: Duration = Duration::from_millis(500);

    #[tokio::test]
    async fn whoever_does_not_begin_is_cut_and_whoever_does_may_be_silent() {
        let house = House::new();
        let patience = Patience { first_bytes: SOON, stall: NEVER };
        let (mut connection, mut peer) = house.connection(patience);
        peer.write_all(&[0; FIRST_BYTES - 1]).await.unwrap();
        let end = connection.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!((end.kind(), house.count(Refusal::FirstBytes)), (io::ErrorKind::TimedOut, 1));

        let (mut connection, mut peer) = house.connection(patience);
        peer.write_all(&[0; FIRST_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; FIRST_BYTES]).await.unwrap();
        let more = tokio::time::timeout(SOON * 3, connection.read_u8()).await;
        assert!(more.is_err(), "no end comes: {more:?}");
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_cut_and_a_slow_one_is_not() {
        let house = House::new();
        let (mut connection, mut peer) = house.connection(Patience { first_bytes: NEVER, stall: SOON * 4 });
        let slow = tokio::spawn(async move {
            let mut turns = tokio::time::interval(SOON);
            for _ in 0..6 {
                turns.tick().await;
                peer.read_exact(&mut [0; BUFFER]).await.unwrap();
            }
            peer
        });
        connection.write_all(&[7; 6 * BUFFER]).await.unwrap();
        let _peer = slow.await.unwrap();
        let end = connection.write_all(&[7; BUFFER + 1]).await.unwrap_err();
        assert_eq!((end.kind(), house.count(Refusal::Stalled)), (io::ErrorKind::TimedOut, 1));
    }

    #[tokio::test]
    async fn a_pulled_rope_ends_a_read_and_a_write_that_waits() {
        let mut house = House::new();
        for reads in [true, false] {
            let (mut connection, _peer) = house.connection(Patience { first_bytes: NEVER, stall: NEVER });
            let rope = Arc::clone(&connection.rope);
            let waiting = tokio::spawn(async move {
                if reads { connection.read_u8().await.map(drop) } else { connection.write_all(&[7; 2 * BUFFER]).await }
            });
            tokio::task::yield_now().await;
            rope.pull(Refusal::Revoked);
            assert_eq!(waiting.await.unwrap().unwrap_err().to_string(), "revoked");
            assert!(matches!(house.heard.recv().await, Some(Said::Left(Id(7)))), "the doorkeeper hears of the end");
        }
    }

    struct House {
        refusals: Arc<Refusals>,
        said: mpsc::UnboundedSender<Said>,
        heard: mpsc::UnboundedReceiver<Said>,
    }

    impl House {
        fn new() -> Self {
            let (said, heard) = mpsc::unbounded_channel();
            Self { refusals: Arc::default(), said, heard }
        }

        fn connection(&self, patience: Patience) -> (Connection<DuplexStream>, DuplexStream) {
            let (here, there) = duplex(BUFFER);
            let peer = Peer { address: ([127, 0, 0, 1], 1).into(), who: None };
            let presence = Presence { id: Id(7), said: self.said.clone() };
            (Connection::new(here, peer, patience, Rope::new(), Arc::clone(&self.refusals), presence), there)
        }

        fn count(&self, refusal: Refusal) -> u64 {
            self.refusals.read().find(|(each, _)| *each == refusal).map_or(0, |(_, count)| count)
        }
    }
}
