//! gRPC calls with bodies that no encoder would make.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use mainstay_common::process::{now, tls::Channel};
use mainstay_proto::{
    MAX_MESSAGE_BYTES,
    v1::{self as pb, report::Report},
};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::{
    body::Body,
    codegen::{Service as _, http},
};

use crate::http2::head;

/// An agent's one long call.
pub const SESSION: &str = "/mainstay.v1.Agent/Session";

/// A session that says Hello and one message, which may claim to be compressed; waits for its end.
pub async fn one_session(channel: Channel, encoding: Option<&str>, message: &[u8]) {
    let hello = pb::Hello { version: "x".into(), sent_at_ms: now().0, ..pb::Hello::default() };
    let mut bytes = message_bytes(&pb::Report { report: Some(Report::Hello(hello)) }.encode_to_vec(), false);
    bytes.extend(message_bytes(message, encoding.is_some()));
    send(channel, SESSION, encoding, Body::new(Full::new(Bytes::from(bytes)))).await;
}

/// A call whose message is large and never complete; waits until somebody ends it.
pub async fn half_a_call(channel: Channel, path: &str) {
    let mut bytes = message_bytes(&vec![7; MAX_MESSAGE_BYTES], false);
    bytes.truncate(MAX_MESSAGE_BYTES);
    let pieces: Vec<_> = bytes.chunks(16_000).map(Bytes::copy_from_slice).collect();
    let pieces = tokio_stream::iter(pieces).chain(tokio_stream::pending());
    let frames = StreamBody::new(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    send(channel, path, None, Body::new(frames)).await;
}

fn message_bytes(message: &[u8], compressed: bool) -> Vec<u8> {
    let mut bytes = head(compressed, u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(message);
    bytes
}

async fn send(mut channel: Channel, path: &str, encoding: Option<&str>, body: Body) {
    let mut request = http::Request::post(format!("http://mainstay{path}"));
    request = request.header("content-type", "application/grpc").header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let Ok(request) = request.body(body) else { return };
    if std::future::poll_fn(|cx| channel.poll_ready(cx)).await.is_err() {
        return;
    }
    // Whatever it answers: only that it ends matters.
    if let Ok(answer) = channel.call(request).await {
        drop(answer.into_body().collect().await);
    }
}
