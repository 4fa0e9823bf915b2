//! One connection per question: what is given up closes, and no answer can be mistaken for another's.

use std::{path::Path, sync::Arc};

use bollard::{BollardRequest, errors::Error};
use hyper::{
    Response,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, join},
    net::UnixStream,
};

/// The longest reply that is read; a stream of events that becomes longer ends, and is opened anew.
const REPLY_LIMIT: u64 = 64 << 20;

/// Sends one request over a connection of its own.
///
/// # Errors
/// Where the socket cannot be opened, or the engine breaks off.
pub(super) async fn send(socket: Arc<Path>, request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let (reader, writer) = UnixStream::connect(&socket).await?.into_split();
    let stream = TokioIo::new(join(reader.take(REPLY_LIMIT), writer));
    let (mut sender, connection) = http1::handshake(stream).await?;
    // It ends with the reply, or as soon as nobody waits for the reply any longer.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the engine broke off");
        }
    });
    let (mut head, body) = request.into_parts();
    if let Some(path) = head.uri.path_and_query() {
        head.uri = path.clone().into();
    }
    head.headers.insert(HOST, HeaderValue::from_static("engine"));
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(sender.send_request(BollardRequest::from_parts(head, body)).await?)
}
