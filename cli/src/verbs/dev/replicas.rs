//! More than one replica: each has a data directory and places that stay, since the others dial them.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mainstay_common::{
    ExitCode, Failure,
    process::{
        config,
        data_dir::{self, unusable},
        tls::Channel,
    },
};
use mainstay_coordinator::{JoinConfig, Lives, ServeConfig, join};
use mainstay_proto::v1::{self as pb, admin_client::AdminClient, viewer_client::ViewerClient};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::connect::{Call, failure};

/// The file within dev's data directory.
const FILE: &str = "replicas.toml";
/// How long a replica may take to be known by its places, and to decide.
const LIMIT: Duration = Duration::from_secs(20);
/// How often that is looked at.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long a replica's token counts.
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Where one replica serves.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// Agents and operators.
    pub(super) listen: SocketAddr,
    /// Other replicas.
    peers: SocketAddr,
}

/// Every replica's place, the first one's first.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Places {
    replica: Vec<Place>,
}

impl Places {
    /// Those of before, and more where more replicas are wanted; none for a mesh that never had more than one.
    ///
    /// # Errors
    /// Where fewer are wanted than there are: the others could not decide.
    pub(super) fn of(folder: &Path, wanted: usize) -> Result<Vec<Place>, Failure> {
        let path = folder.join(FILE);
        let mut places: Self = match fs::read_to_string(&path) {
            Ok(text) => config::parse(&text, &path.display().to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && wanted == 1 => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(unusable(&path, &error)),
        };
        let there = places.replica.len();
        if wanted < there {
            return Err(Failure::new(
                ExitCode::Usage,
                format!("the mesh in {} has {there} replicas", folder.display()),
                format!("{wanted} of them could not decide without the others"),
                format!("mainstay dev --replicas {there}; or another --data-dir"),
            ));
        }
        while places.replica.len() < wanted {
            places.replica.push(free().map_err(|error| unusable(&path, &error))?);
        }
        let text = toml::to_string(&places).map_err(io::Error::other);
        let kept = text.and_then(|text| data_dir::replace(&path, text.as_bytes(), 0o644));
        kept.map_err(|error| unusable(&path, &error))?;
        Ok(places.replica)
    }
}

/// Two ports of loopback that nobody has now.
fn free() -> io::Result<Place> {
    let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (listen, peers) = (any()?, any()?);
    Ok(Place { listen: listen.local_addr()?, peers: peers.local_addr()? })
}

/// The data directory of the replica at that place of the list.
pub(super) fn folder_of(folder: &Path, at: usize) -> PathBuf {
    folder.join(if at == 0 { "coordinator".to_owned() } else { format!("coordinator-{}", at + 1) })
}

/// How one of several serves.
pub(super) fn config_of(folder: &Path, at: usize, place: Place, http: SocketAddr) -> ServeConfig {
    ServeConfig {
        data_dir: folder_of(folder, at),
        listen: place.listen,
        peer_listen: place.peers,
        advertise: Some(place.listen.to_string()),
        peer_advertise: Some(place.peers.to_string()),
        http,
        announce_listen: false,
        lives: Lives::default(),
    }
}

/// Makes the replica of that place by the way every replica comes in: a token and a join.
///
/// # Errors
/// What the first replica says.
pub(super) async fn take_in(
    folder: &Path,
    at: usize,
    place: Place,
    first: Place,
    channel: &Channel,
) -> Result<(), Failure> {
    known(channel, first).await?;
    let ttl_ms = u64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(u64::MAX);
    let request = pb::CreateTokenRequest { role: "replica".into(), ttl_ms, uses: 1, secret_sha256: Vec::new() };
    let made = AdminClient::new(channel.clone()).create_token(request).await;
    let made = made.map_err(|status| failure::from_status(&status, Call::Changes("mainstay token ls")))?.into_inner();
    let token_file = folder.join("replica-token");
    data_dir::replace(&token_file, made.token.as_bytes(), 0o600).map_err(|error| unusable(&token_file, &error))?;
    let joined = join(&JoinConfig {
        data_dir: folder_of(folder, at),
        token_file: token_file.clone(),
        coordinator: first.listen.to_string(),
        advertise: place.listen.to_string(),
        peer_advertise: Some(place.peers.to_string()),
    })
    .await;
    fs::remove_file(&token_file).map_err(|error| unusable(&token_file, &error))?;
    joined.map(drop)
}

/// Waits until the first replica is known by its place: whoever joins is told it.
async fn known(channel: &Channel, first: Place) -> Result<(), Failure> {
    let peers = first.peers.to_string();
    until(channel, "the first replica is not known by its address", |rows| {
        rows.iter().any(|row| row.peer_address == peers)
    })
    .await
    .map(drop)
}

/// Waits until so many decide; who leads.
///
/// # Errors
/// Where they do not in time.
pub(super) async fn decide(channel: &Channel, count: usize) -> Result<String, Failure> {
    let all = |rows: &[pb::ReplicaStanding]| {
        rows.len() == count && rows.iter().all(|row| row.role != "learner" && row.healthy)
    };
    let rows = until(channel, "not every replica decides", all).await?;
    let leader = rows.into_iter().find(|row| row.role == "leader");
    Ok(leader.map_or_else(|| "nobody".to_owned(), |row| row.replica))
}

/// Looks at how the replicas stand, as the one that is asked knows it, until that is so.
async fn until(
    channel: &Channel,
    otherwise: &str,
    is: impl Fn(&[pb::ReplicaStanding]) -> bool,
) -> Result<Vec<pb::ReplicaStanding>, Failure> {
    let deadline = Instant::now() + LIMIT;
    let mut viewer = ViewerClient::new(channel.clone());
    let mut last = "nobody answered".to_owned();
    while Instant::now() < deadline {
        let mut request = tonic::Request::new(pb::GetClusterRequest {});
        request.metadata_mut().insert("mainstay-stale", tonic::metadata::MetadataValue::from_static("1"));
        match viewer.get_cluster(request).await {
            Ok(answer) => {
                let rows = answer.into_inner().rows;
                if is(&rows) {
                    return Ok(rows);
                }
                last = format!("{} replicas are listed", rows.len());
            }
            Err(status) => last = status.message().replace('\n', "; "),
        }
        sleep(ASK_EVERY).await;
    }
    Err(Failure::new(ExitCode::Failed, otherwise, last, "RUST_LOG=debug mainstay dev"))
}
