//! Every number of the gate, and what tonic's server is told: it sets none of these by itself, and undoes some of
//! hyper's own.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tonic::transport::Server;

/// From the accept to the last byte of the ClientHello.
pub(super) const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// How long a ClientHello may wait for its turn.
pub(super) const TURN_LIMIT: Duration = Duration::from_secs(5);
/// From our turn to the end of the handshake.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The preface (24 bytes) and the head of a SETTINGS frame (9).
pub(super) const FIRST_BYTES: usize = 33;
/// How long a connection waits for its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the handshake to the preface of HTTP/2: hyper has no deadline for it, and its pings begin only afterwards.
    pub(super) first_bytes: Duration,
    /// While the peer takes nothing of what is written to it: a ping's answer cannot be missed as long as the ping
    /// itself cannot be sent.
    pub(super) stall: Duration,
}
/// See [`Patience`].
pub(super) const PATIENCE: Patience = Patience { first_bytes: Duration::from_secs(5), stall: Duration::from_secs(20) };
/// Bytes that may come before the handshake is over: a ClientHello and a certificate chain are a few KiB.
pub(super) const HANDSHAKE_BYTES: usize = 32 * 1024;
/// How long a peer whose handshake failed has to read why.
pub(super) const FAREWELL_LIMIT: Duration = Duration::from_millis(500);
/// Whoever shows no certificate that counts is gone after this: time for an enrolment, and no home.
pub(super) const STRANGER_LIFE: Duration = Duration::from_secs(30);
/// In a full house, a stranger's seat is given away after so long.
pub(super) const SEAT_GRACE: Duration = Duration::from_millis(500);
/// Between a revocation and the end of the connection: streams say why they end.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// Handshakes of one address without a certificate that counts: so many per second, after so many at once. Members
/// cost nothing here, so that thousands of nodes behind one address come back together.
pub(super) const STRANGERS_EVERY: Duration = Duration::from_millis(5);
/// See [`STRANGERS_EVERY`].
pub(super) const STRANGERS_BURST: u32 = 1_000;
/// Connections of one node: a session, a renewal, and what a broken network left behind.
pub(super) const PER_NODE: usize = 4;
/// Connections of one replica: its link, a checkpoint on its way, and what a broken network left behind.
pub(super) const PER_REPLICA: usize = 8;
/// Connections of one person.
pub(super) const PER_PERSON: usize = 32;
/// TCP connections that the kernel keeps ready (it takes the smaller of this and `net.core.somaxconn`).
pub(super) const BACKLOG: i32 = 4_096;
/// Descriptors for everything else: files, `/metrics`, replicas, sockets.
const OTHER_DESCRIPTORS: usize = 192;

/// Streams of one connection: an agent needs two, a person's screen a handful.
const STREAMS: u32 = 16;
/// Bytes of a call's request that is no long stream of an agent: a signing request, a question.
const CALL_BYTES: usize = 64 * 1024;
/// Bytes of an administrator's declarations: a folder of files.
pub(crate) const DECLARATION_BYTES: usize = 1024 * 1024;

/// Bytes that a call's request may have; asked for callers who may make that call.
pub(super) fn call_bytes(path: &str) -> usize {
    if path == "/mainstay.v1.Admin/Declare" { DECLARATION_BYTES } else { CALL_BYTES }
}

/// How many connections of each kind there may be: one budget never eats another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Nothing understandable said yet.
    pub(super) lobby: usize,
    /// Handshakes, and strangers who had theirs.
    pub(super) seats: usize,
    /// Agents.
    pub(super) agents: usize,
    /// People.
    pub(super) people: usize,
    /// Other replicas.
    pub(super) replicas: usize,
}

impl Budget {
    /// Shares out what one process may open.
    pub(crate) fn of_descriptors(descriptors: usize) -> Self {
        let rest = descriptors.saturating_sub(OTHER_DESCRIPTORS).max(64);
        let (lobby, seats, people) =
            ((rest / 8).clamp(16, 2_048), (rest / 16).clamp(16, 512), (rest / 16).clamp(8, 256));
        Self { lobby, seats, people, agents: rest - lobby - seats - people, replicas: 0 }
    }

    /// Of the port for replicas: few come, and who is none has no business there.
    pub(crate) fn of_peers() -> Self {
        Self { lobby: 32, seats: 16, people: 0, agents: 0, replicas: 64 }
    }

    /// Raises the soft limit of descriptors to the hard one, and shares that out.
    pub(crate) fn of_this_process() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let descriptors = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        // More than a million is no limit, and nothing that tables should be made for.
        Self::of_descriptors(usize::try_from(descriptors.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).min(1 << 20))
    }
}

/// tonic's server with every limit set. A test reads the SETTINGS frame.
pub(crate) fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS)
        // As many as there may be streams: whoever keeps to the settings is never shed.
        .concurrency_limit_per_connection(STREAMS as usize)
        .load_shed(true)
        // Until the head of an answer: a session answers its Hello, and lives on.
        .timeout(Duration::from_secs(30))
        .http2_max_local_error_reset_streams(Some(128))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(8 * 1024)
        .max_frame_size(16 * 1024)
        .http2_adaptive_window(Some(false))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
}

/// The same between replicas: whoever is silent for 3 s is gone, and much may be on its way.
pub(crate) fn peer_server() -> Server {
    server()
        .initial_stream_window_size(2 * 1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_share_whatever_the_machine_gives() {
        for descriptors in [0, 64, 256, 1_024, 20_000, 65_536, 1 << 20] {
            let budget = Budget::of_descriptors(descriptors);
            let all = budget.lobby + budget.seats + budget.agents + budget.people;
            assert!(all <= descriptors.saturating_sub(OTHER_DESCRIPTORS).max(64), "{budget:?}");
            assert!(budget.agents >= 24 && budget.people >= 8 && budget.seats >= 16, "{budget:?}");
        }
        assert!(Budget::of_descriptors(65_536).agents > 60_000);
    }
}
