//! HTTP/2 by hand, for what no library would send.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::caller::Caller;

/// What every client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types.
pub const DATA: u8 = 0;
/// Frame type.
pub const HEADERS: u8 = 1;
/// Frame type.
pub const RST_STREAM: u8 = 3;
/// Frame type.
pub const SETTINGS: u8 = 4;
/// Frame type.
pub const PING: u8 = 6;
/// Frame type.
pub const GOAWAY: u8 = 7;
/// Frame type.
pub const WINDOW_UPDATE: u8 = 8;
/// Frame type.
pub const CONTINUATION: u8 = 9;
/// The header block ends here.
pub const END_HEADERS: u8 = 4;

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
///
/// # Panics
/// Where the payload is longer than a frame can say.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend_from_slice(&length[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The header block of a gRPC call.
///
/// # Panics
/// Where the path has more than 126 bytes.
#[must_use]
pub fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    fn text(block: &mut Vec<u8>, text: &str) {
        block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
        block.extend_from_slice(text.as_bytes());
    }
    // HPACK's static table: POST, http, then literals that are not indexed.
    let mut block = vec![0x83, 0x86, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, "mainstay");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(more) {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A gRPC message's head: not compressed, or so, and how long it claims to be.
#[must_use]
pub fn head(compressed: bool, length: u32) -> Vec<u8> {
    let mut head = vec![u8::from(compressed)];
    head.extend_from_slice(&length.to_be_bytes());
    head
}

/// The half that sends.
#[derive(Debug)]
pub struct Sender(WriteHalf<TlsStream<TcpStream>>);

/// The half that receives.
#[derive(Debug)]
pub struct Receiver(ReadHalf<TlsStream<TcpStream>>);

/// Connects and says the preface and empty settings.
///
/// # Errors
/// Why there is no connection.
pub async fn open(caller: &Caller) -> Result<(Sender, Receiver), String> {
    let (receive, send) = split(caller.connect().await?);
    let mut sender = Sender(send);
    let mut first = PREFACE.to_vec();
    first.extend(frame(SETTINGS, 0, 0, &[]));
    if !sender.send(&first).await {
        return Err("the connection was cut at once".into());
    }
    Ok((sender, Receiver(receive)))
}

impl Sender {
    /// False where the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok()
    }
}

impl Receiver {
    /// The next frame; `None` where the connection is gone.
    pub async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).ok()?];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the connection is gone, and throws everything away.
    pub async fn to_the_end(mut self) {
        while self.frame().await.is_some() {}
    }

    /// The first settings, by number.
    ///
    /// # Panics
    /// Where the first frame is something else.
    pub async fn settings(&mut self) -> BTreeMap<u16, u32> {
        let first = self.frame().await.expect("a frame");
        assert_eq!((first.kind, first.flags), (SETTINGS, 0), "settings come first");
        let one =
            |six: &[u8]| (u16::from_be_bytes([six[0], six[1]]), u32::from_be_bytes([six[2], six[3], six[4], six[5]]));
        first.payload.chunks_exact(6).map(one).collect()
    }
}
