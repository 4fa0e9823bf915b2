//! A small plain-http server for `/metrics` and health: both daemons use it, on loopback by default.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{ExitCode, Failure};

/// An answer to a GET.
#[derive(Debug)]
pub struct Page {
    /// Its MIME type.
    pub content_type: &'static str,
    /// Its body.
    pub body: String,
}

/// What answers: the path in, a page out, `None` for 404.
pub type Handler = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// Opens a listening socket.
///
/// # Errors
/// A conflict that names the address when it is taken.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind gets the general advice")]
pub async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let (code, try_next) = match error.kind() {
            std::io::ErrorKind::AddrInUse => (
                ExitCode::Conflict,
                format!("`ss -ltnp 'sport = :{}'` shows who has it; or give another {flag}", address.port()),
            ),
            std::io::ErrorKind::PermissionDenied => {
                (ExitCode::Denied, format!("ports below 1024 need root; or give another {flag}"))
            }
            std::io::ErrorKind::AddrNotAvailable => {
                (ExitCode::Usage, format!("`ip addr` lists this machine's addresses; correct {flag}"))
            }
            _ => (ExitCode::Failed, format!("give another {flag}")),
        };
        Failure::new(code, format!("cannot listen on {address}"), error.to_string(), try_next)
    })
}

/// Serves until `stop`. At most 64 connections at once, 10 s for a request's head.
pub async fn serve(listener: TcpListener, handler: Handler, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(64));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: wait instead of spinning.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let _slot = slot;
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(&request, &handler);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(16 * 1024);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "http connection ended");
            }
        });
    }
    connections.shutdown().await;
}

fn answer(request: &Request<Incoming>, handler: &Handler) -> Response<Full<Bytes>> {
    let (status, page) = if matches!(*request.method(), Method::GET | Method::HEAD) {
        match handler(request.uri().path()) {
            Some(page) => (StatusCode::OK, page),
            None => (
                StatusCode::NOT_FOUND,
                Page { content_type: "text/plain; charset=utf-8", body: "nothing here\n".into() },
            ),
        }
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, Page { content_type: "text/plain; charset=utf-8", body: "only GET\n".into() })
    };
    let mut response = Response::new(Full::from(page.body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(page.content_type));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}
