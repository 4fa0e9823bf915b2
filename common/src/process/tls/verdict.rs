//! What TLS said when it ended a connection.
//!
//! In TLS 1.3 a server refuses a certificate after our handshake is over. What a call then reports depends on who is
//! faster, and HTTP/2 keeps no more than words of it: so it is noted where it is read.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
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
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) verdict: Verdict,
}

impl Watched {
    fn noted<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.verdict.note(error);
        }
        outcome
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
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
