//! Calls of rclone's remote control: one connection, a deadline for every call, a limit for every answer.

use std::{io, net::IpAddr, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream, lookup_host},
    sync::watch,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    access::{Access, Address},
    answers::{Complaint, without_secrets},
};
use crate::{
    collect::{
        Once,
        listing::Listed,
        mountinfo::{Mounted, is_at_or_below},
        within,
    },
    probe::{Ask, Key, Outcome, Probes, Told},
};

/// The longest answer that is read: a queue of some 8,000 uploads.
const ANSWER_LIMIT: usize = 2 * 1024 * 1024;
/// A connection within one machine takes microseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// Nobody is there, or it hung up.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Somebody is there and says nothing.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// It wants credentials, or others.
    #[error("it wants other credentials")]
    Denied,
    /// This very call is not allowed without authentication.
    #[error("not allowed without authentication")]
    Forbidden,
    /// This version does not know it.
    #[error("this version does not know it")]
    NotKnown,
    /// It tried, and says what went wrong.
    #[error("{0}")]
    Failed(String),
    /// It answered something else.
    #[error("its answer is not understood: {0}")]
    Garbled(String),
}

impl CallError {
    /// True where the remote has no quota that it could tell.
    pub(super) fn is_for_want_of_quota(&self) -> bool {
        matches!(self, Self::Failed(why) if why.contains("doesn't support about"))
    }
}

/// A remote control, and the connection to it.
pub(super) struct Client {
    access: Access,
    probes: Probes,
    listing: watch::Receiver<Listed>,
    line: Option<Line>,
    once: Once,
}

/// A connection: whoever drops it ends it.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Client {
    pub(super) fn new(access: Access, probes: Probes, listing: watch::Receiver<Listed>) -> Self {
        Self { access, probes, listing, line: None, once: Once::default() }
    }

    /// Calls a method with an input in JSON.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        input: &serde_json::Value,
        limit: Duration,
    ) -> Result<T, CallError> {
        // A call that was given up leaves its answer in the connection: that one serves nobody any longer.
        let kept = self.line.take();
        let called = timeout(limit, async {
            let mut line = match kept.filter(|line| !line.sender.is_closed()) {
                Some(line) => line,
                None => self.connect().await?,
            };
            let answer = self.exchange(&mut line, method, input).await?;
            Ok::<_, CallError>((line, answer))
        });
        let (line, (status, body)) = called.await.map_err(|_| CallError::Late(limit))??;
        self.line = Some(line);
        understand(status, &body)
    }

    async fn exchange(
        &self,
        line: &mut Line,
        method: &str,
        input: &serde_json::Value,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = Request::post(format!("{}/{method}", self.access.base))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.access.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request =
            request.body(Full::from(input.to_string())).map_err(|error| CallError::Garbled(error.to_string()))?;
        line.sender.ready().await.map_err(unreachable)?;
        let response = line.sender.send_request(request).await.map_err(unreachable)?;
        let status = response.status();
        let body = Limited::<Incoming>::new(response.into_body(), ANSWER_LIMIT).collect().await;
        Ok((status, body.map_err(|error| CallError::Garbled(error.to_string()))?.to_bytes()))
    }

    async fn connect(&self) -> Result<Line, CallError> {
        let connecting = async {
            match &self.access.address {
                Address::Unix(_) => open(self.unix().await?).await,
                Address::Ip(addresses, port) => open(self.tcp(addresses.clone(), *port).await?).await,
                Address::Name(name, port) => {
                    let found = lookup_host((name.as_str(), *port)).await?.map(|address| address.ip()).collect();
                    open(self.tcp(found, *port).await?).await
                }
            }
        };
        let connected = timeout(CONNECT_LIMIT, connecting).await.map_err(|_| CallError::Late(CONNECT_LIMIT))?;
        connected.map_err(|error| CallError::Unreachable(error.to_string()))
    }

    /// A socket may lie on a mount that hangs. A child looks first, and on a network or FUSE mount none is used.
    async fn unix(&self) -> io::Result<UnixStream> {
        let Address::Unix(path) = &self.access.address else { return Err(io::ErrorKind::InvalidInput.into()) };
        let name = path.as_os_str().as_encoded_bytes().to_vec();
        let key = [&b"rclone socket "[..], &name].concat();
        match self.probes.ask(Key::local(key), Ask::Statfs(name)).await {
            Outcome::Answered(answer) => match answer.told.map_err(|errno| io::Error::from_raw_os_error(errno.0))? {
                Told::Space(space) if !self.lies_on_network(path, space.mount_id) => {}
                Told::Space(_) => return Err(io::Error::other("its socket lies on a network or FUSE mount")),
                Told::Names(..) | Told::Content(..) | Told::Owners(_) => return Err(io::ErrorKind::InvalidData.into()),
            },
            Outcome::Hung(_) | Outcome::Busy(_) => return Err(io::ErrorKind::TimedOut.into()),
            Outcome::Limit | Outcome::Lost(_) => return Err(io::Error::other("nobody could look at its socket")),
        }
        let path = path.clone();
        let connect = within(&self.once, CONNECT_LIMIT, move || std::os::unix::net::UnixStream::connect(path));
        let stream = connect.await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }

    fn lies_on_network(&self, path: &Path, mount_id: u32) -> bool {
        let path = path.as_os_str().as_encoded_bytes();
        let listed = self.listing.borrow();
        let holds = |mounted: &Mounted| {
            let mut places = mounted.aliases.iter().chain([&mounted.entry.path]);
            mounted.entry.id == mount_id || places.any(|place| is_at_or_below(path, place))
        };
        listed.mounts.as_ref().is_none_or(|mounts| mounts.network.iter().any(holds))
    }

    /// An address out of a process's arguments is believed only where this machine has it: it can be bound.
    async fn tcp(&self, addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for ip in addresses {
            let connecting = async {
                let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                if self.access.must_be_local {
                    socket.bind((ip, 0).into())?;
                }
                socket.connect((ip, port).into()).await
            };
            match connecting.await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<Line> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Why a connection ended is told to whoever waits for an answer.
    let driver = tokio::spawn(async move { connection.await.unwrap_or(()) });
    Ok(Line { sender, _driver: AbortOnDropHandle::new(driver) })
}

fn unreachable(error: hyper::Error) -> CallError {
    CallError::Unreachable(error.to_string())
}

/// Makes sense of an answer. Pure.
fn understand<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, CallError> {
    match status {
        StatusCode::OK => serde_json::from_slice(body).map_err(|error| CallError::Garbled(error.to_string())),
        StatusCode::UNAUTHORIZED => Err(CallError::Denied),
        StatusCode::FORBIDDEN => Err(CallError::Forbidden),
        StatusCode::NOT_FOUND => Err(CallError::NotKnown),
        _ => match serde_json::from_slice::<Complaint>(body) {
            Ok(complaint) if !complaint.error.is_empty() => Err(CallError::Failed(without_secrets(&complaint.error))),
            Ok(_) | Err(_) => Err(CallError::Failed(format!("status {status}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::rclone::answers::Version;

    #[test]
    fn a_status_is_understood() {
        let of = |status: u16, body: &str| {
            understand::<Version>(StatusCode::from_u16(status).unwrap(), body.as_bytes()).map(|told| told.version)
        };
        assert_eq!(of(200, r#"{"version":"v1.60.1"}"#), Ok("v1.60.1".to_owned()));
        assert_eq!(of(401, "Unauthorized"), Err(CallError::Denied));
        assert_eq!(of(403, "{}"), Err(CallError::Forbidden));
        assert_eq!(of(404, "{}"), Err(CallError::NotKnown));
        let failed = of(500, r#"{"error":"Get \"https://x/?token=1\": EOF","status":500}"#);
        assert_eq!(failed, Err(CallError::Failed("Get \"https://x/?\": EOF".to_owned())));
        assert_eq!(of(502, "<html>"), Err(CallError::Failed("status 502 Bad Gateway".to_owned())));
        assert!(matches!(of(200, "<html>"), Err(CallError::Garbled(_))));
    }
}
