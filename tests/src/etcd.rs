//! etcd, to compare the log with: three members on loopback without TLS, as Debian builds it.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::{Daemon, machine::free_port};

/// How long a group may take to agree on a leader.
const SETTLING: Duration = Duration::from_secs(60);

/// A group of members; everything ends with this value.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    daemon: Option<Daemon>,
    client: String,
    peer: String,
}

/// How a member sees its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its own number.
    pub id: u64,
    /// Who leads, 0 for nobody.
    pub leader: u64,
    /// Its last entry.
    pub index: u64,
}

impl Etcd {
    /// Starts a group of so many, and waits until it has a leader.
    ///
    /// # Panics
    /// Where it does not come about.
    pub async fn found(count: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("mainstay-etcd-").tempdir().unwrap_or_else(|e| panic!("{e}"));
        let url = || format!("http://127.0.0.1:{}", free_port());
        let members = (0..count).map(|_| Member { daemon: None, client: url(), peer: url() }).collect();
        let mut etcd = Self { members, folder };
        (0..count).for_each(|member| etcd.start(member));
        etcd.settle().await;
        etcd
    }

    /// Starts a member that does not run.
    pub fn start(&mut self, member: usize) {
        let all: Vec<_> = self.members.iter().enumerate().map(|(n, member)| format!("m{n}={}", member.peer)).collect();
        let Member { client, peer, .. } = &self.members[member];
        let mut run = Command::new("etcd");
        run.args(["--name", &format!("m{member}")])
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{member}")));
        run.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
        run.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
        run.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"]);
        self.members[member].daemon = Some(Daemon::start(&format!("etcd m{member}"), &mut run));
    }

    /// Takes a member's process out, to kill it.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn take(&mut self, member: usize) -> Daemon {
        self.members[member].daemon.take().unwrap_or_else(|| panic!("m{member} does not run"))
    }

    /// Where clients dial it.
    #[must_use]
    pub fn address(&self, member: usize) -> &str {
        &self.members[member].client
    }

    /// How many there are, running or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The processes that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| member.daemon.as_ref()).map(Daemon::pid).collect()
    }

    /// A folder on the disk that it writes to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until all members agree who leads, and have nearly the same entries; who that is.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn settle(&self) -> usize {
        let begun = Instant::now();
        loop {
            let mut standings = Vec::new();
            for member in &self.members {
                standings.push(ask(&member.client).await);
            }
            if let Some(leader) = agreed(&standings) {
                return leader;
            }
            assert!(begun.elapsed() < SETTLING, "etcd has no leader: {standings:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn agreed(standings: &[Option<Standing>]) -> Option<usize> {
    let all: Vec<_> = standings.iter().copied().collect::<Option<Vec<_>>>()?;
    let leader = all.first()?.leader;
    let newest = all.iter().map(|standing| standing.index).max()?;
    let settled = all.iter().all(|standing| standing.leader == leader && newest - standing.index < 100);
    all.iter().position(|standing| standing.id == leader).filter(|_| settled)
}

async fn ask(address: &str) -> Option<Standing> {
    let asked = async { standing(&dial(address).await.ok()?).await.ok() };
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten()
}

/// A connection of its own.
///
/// # Errors
/// Why there is none.
pub async fn dial(address: &str) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(address.to_owned())?.tcp_nodelay(true).connect().await
}

/// `Put`.
///
/// # Errors
/// What etcd says.
pub async fn put(channel: &Channel, key: Vec<u8>, value: Vec<u8>) -> Result<(), Status> {
    let _: PutResponse = call(channel, "/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
    Ok(())
}

/// `Range` of one key, linearizable; how many were found.
///
/// # Errors
/// What etcd says.
pub async fn get(channel: &Channel, key: Vec<u8>) -> Result<i64, Status> {
    let found: RangeResponse = call(channel, "/etcdserverpb.KV/Range", RangeRequest { key }).await?;
    Ok(found.count)
}

async fn standing(channel: &Channel) -> Result<Standing, Status> {
    let told: StatusResponse = call(channel, "/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
    let id = told.header.map_or(0, |header| header.member_id);
    Ok(Standing { id, leader: told.leader, index: told.raft_index })
}

async fn call<Q, A>(channel: &Channel, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    Ok(grpc.unary(Request::new(question), PathAndQuery::from_static(path), codec).await?.into_inner())
}

// The fields that are used, of etcd's rpc.proto.

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
    #[prost(uint64, tag = "5")]
    raft_index: u64,
}
