//! What TLS said when it ended a connection.
//!
//! In TLS 1.3 a server refuses a certificate after our handshake is over. What a call then reports depends on who is
//! faster, and HTTP/2 keeps no more than words of it: so it is noted where it is read.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use rustls::{AlertDescription as Alert, Error};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::dial::tls_words;

/// Why TLS ended one connection, once it has.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<OnceLock<Error>>);

impl Verdict {
    /// In words for a person.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        self.0.get().map(tls_words)
    }

    /// Whether our certificate counts no more: it ran out, or its root is trusted no longer.
    #[must_use]
    pub fn is_out_of_date(&self) -> bool {
        let alerts = [Alert::CertificateExpired, Alert::UnknownCA, Alert::DecryptError];
        matches!(self.0.get(), Some(Error::AlertReceived(alert)) if alerts.contains(alert))
    }

    fn note(&self, error: &io::Error) {
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            // The first one is the reason.
            self.0.set(error.clone()).unwrap_or(());
        }
    }
}

/// A connection that notes its verdict.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TlsStream<TcpStream>,
    verdict: Verdict,
    /// A write failed with this; what the peer said last is awaited.
    failed: Option<io::Error>,
}

impl Watched {
    fn noted<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.verdict.note(error);
        }
        outcome
    }
}

impl Watched {
    pub(super) fn new(stream: TlsStream<TcpStream>, verdict: Verdict) -> Self {
        Self { stream, verdict, failed: None }
    }

    /// A peer that closed makes writes fail at once, while what it said before is still on its way up to us: the write
    /// has failed when that was read.
    fn after<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Err(error)) => {
                self.failed = Some(error);
                self.last_words(cx).map(Err)
            }
            Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn last_words(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let mut bytes = [0; 256];
            let mut heard = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut heard));
            if read.is_ok() && !heard.filled().is_empty() {
                continue;
            }
            drop(self.noted(Poll::Ready(read)));
            return Poll::Ready(self.failed.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.noted(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.last_words(cx).map(Err);
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.failed.is_some() {
            return self.last_words(cx).map(Err);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_some() {
            return self.last_words(cx).map(Err);
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.after(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
