//! `mainstay-coordinator join`: a replica token makes of an empty data directory one more replica.
//!
//! The key is on disk before the first attempt, and every attempt shows the same one: a lost answer is no second use. The
//! log comes last: as long as it is missing, joining again goes on where it broke off.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mainstay_common::{
    ClusterId, ExitCode, Failure, ReplicaId,
    identity::Subject,
    process::{
        data_dir::DataDir,
        tls::{
            Certificate, Credentials, channel, client_config, dial, new_key, pinned_config, pins_of, signing_request,
        },
    },
    text::Shown,
    token::JoinToken,
};
use mainstay_core::cluster;
use mainstay_proto::v1::{self as pb, enrol_client::EnrolClient, replica_client::ReplicaClient};
use rcgen::KeyPair;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::{
    api::failure::LEADER,
    config::next_port,
    identity::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, Opener, write},
    joined::Joined,
    log,
    peers::{Contact, Network, Own, connect},
    raft::store,
    versions,
};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it is tried: a leader may have to be elected first.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Stands for the replica's name: whom the certificate must name follows from the pinned CA.
const PLACEHOLDER: &str = "enrol.mainstay.internal";

/// What `join` is told.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// Where the replica will keep what must not be lost.
    pub data_dir: PathBuf,
    /// The file with the token.
    pub token_file: PathBuf,
    /// Any replica's address, host:port.
    pub coordinator: String,
    /// What agents and operators will dial here, host:port.
    pub advertise: String,
    /// What other replicas will dial here; the next port where it is not given.
    pub peer_advertise: Option<String>,
}

/// Makes the replica; its id.
///
/// # Errors
/// Three lines; what is on disk is enough to call it again.
pub async fn join(config: &JoinConfig) -> Result<ReplicaId, Failure> {
    crate::init::check_address("--advertise", &config.advertise)?;
    crate::init::check_address("--coordinator", &config.coordinator)?;
    let peer_address = config.peer_advertise.clone().unwrap_or_else(|| next_port(&config.advertise));
    crate::init::check_address("--peer-advertise", &peer_address)?;
    let token = read_token(&config.token_file)?;
    let dir = DataDir::take(&config.data_dir)?;
    refuse_used(&dir)?;
    let key = key(&dir)?;
    let answer = ask(config, &token, &key, &peer_address).await?;
    let (cluster, id, number) = check(&answer, &token, &key)?;
    write(&dir, CA_FILE, &answer.ca)?;
    write(&dir, CERTIFICATE_FILE, &answer.certificate)?;
    let replicas: BTreeMap<_, _> =
        answer.replicas.iter().map(|contact| (contact.id.clone(), contact.peer_address.clone())).collect();
    let joined = Joined { peer_address, replicas };
    joined.write(&dir)?;
    let identity = store::Identity { cluster, generation: answer.generation, replica: number };
    let credentials = Credentials { ca: answer.ca, certificate: answer.certificate, key: key.serialize_pem() };
    opener(&dir, &identity, &joined, &credentials).await?;
    log::join(&dir, identity)?;
    Ok(id)
}

fn read_token(file: &Path) -> Result<JoinToken, Failure> {
    let failed = |what: String, why: String| {
        Failure::new(ExitCode::Usage, what, why, "mainstay cluster add prints a token and the line that uses it")
    };
    let place = file.display();
    let text = fs::read_to_string(file).map_err(|error| failed(format!("cannot read {place}"), error.to_string()))?;
    let token: JoinToken = text.parse().map_err(|why: mainstay_common::token::InvalidToken| {
        failed(format!("no join token in {place}"), why.to_string())
    })?;
    if token.role != "replica" {
        let what = format!("the token is for a {}", Shown::new(&token.role).cut(20));
        return Err(failed(what, "a replica needs a token of role replica".into()));
    }
    Ok(token)
}

fn refuse_used(dir: &DataDir) -> Result<(), Failure> {
    let holds = if log::holds_cluster(dir.path()) {
        "a replica already"
    } else if dir.file("agent.key").exists() {
        "an agent"
    } else {
        return Ok(());
    };
    Err(Failure::new(
        ExitCode::Conflict,
        format!("{} holds {holds}", dir.path().display()),
        "join never replaces anything",
        "mainstay-coordinator run serves a replica; for a new one give another --data-dir",
    ))
}

/// The key of an earlier attempt, or a fresh one; it is on disk when this returns.
fn key(dir: &DataDir) -> Result<KeyPair, Failure> {
    if let Ok(pem) = fs::read_to_string(dir.file(KEY_FILE))
        && let Ok(key) = KeyPair::from_pem(&pem)
    {
        return Ok(key);
    }
    let key = new_key();
    write(dir, KEY_FILE, &key.serialize_pem())?;
    Ok(key)
}

/// Asks the leader, whoever it is by then.
async fn ask(
    config: &JoinConfig,
    token: &JoinToken,
    key: &KeyPair,
    peer_address: &str,
) -> Result<pb::JoinResponse, Failure> {
    let csr = signing_request(key)
        .map_err(|error| Failure::new(ExitCode::Failed, "no signing request", error.to_string(), "try again"))?;
    let request = pb::JoinRequest {
        token_id: token.id.to_string(),
        secret: token.secret.0.to_vec(),
        csr,
        address: config.advertise.clone(),
        peer_address: peer_address.to_owned(),
        entry_version: versions::known(),
    };
    let until = Instant::now() + PATIENCE;
    let mut address = config.coordinator.clone();
    loop {
        let (failure, next) = match once(&address, token.ca_pin, request.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(refused) => refused,
        };
        let may_pass = next.is_some() || matches!(failure.code, ExitCode::Unreachable | ExitCode::Unknown);
        if !may_pass || Instant::now() >= until {
            return Err(failure);
        }
        tracing::info!(why = failure.why, "trying again");
        address = next.unwrap_or_else(|| config.coordinator.clone());
        sleep(PAUSE).await;
    }
}

/// One attempt; where it failed, who leads. The secret leaves this machine only after the other side showed the pinned CA.
async fn once(
    address: &str,
    pin: [u8; 32],
    request: pb::JoinRequest,
) -> Result<pb::JoinResponse, (Failure, Option<String>)> {
    let unreached = |code, why: String| {
        let try_next = "is it running, and its port open from here? The same call again is safe";
        (Failure::new(code, format!("cannot join by {}", Shown::new(address)), why, try_next), None)
    };
    let stream = dial(address, PLACEHOLDER, pinned_config(pin), ANSWER).await;
    let stream = stream.map_err(|error| {
        let is_foreign = matches!(error, mainstay_common::process::tls::DialError::Tls(_));
        unreached(if is_foreign { ExitCode::Denied } else { ExitCode::Unreachable }, error.to_string())
    })?;
    let channel = channel(stream).await.map_err(|error| unreached(ExitCode::Unreachable, error.to_string()))?;
    match timeout(ANSWER, EnrolClient::new(channel).join(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => {
            let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok()).map(str::to_owned);
            Err((refused(&status), leader))
        }
        Err(_) => Err(unreached(ExitCode::Unknown, "no answer came".into())),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other code is a plain failure")]
fn refused(status: &Status) -> Failure {
    let lines: Vec<String> = status.message().lines().map(|line| Shown::new(line).cut(400).to_string()).collect();
    let code = match status.code() {
        Code::InvalidArgument => ExitCode::Usage,
        Code::Unavailable => ExitCode::Unreachable,
        Code::PermissionDenied | Code::Unauthenticated => ExitCode::Denied,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ExitCode::Conflict,
        Code::Unknown | Code::Cancelled => ExitCode::Unknown,
        _ => ExitCode::Failed,
    };
    match &lines[..] {
        [what, why, try_next] => Failure::new(code, what, why, try_next),
        _ => Failure::new(code, "the join was not answered", lines.join("; "), "the same call again is safe"),
    }
}

/// Whether the answer is what was asked for.
fn check(answer: &pb::JoinResponse, token: &JoinToken, key: &KeyPair) -> Result<(ClusterId, ReplicaId, u64), Failure> {
    let strange =
        |why: &str| Failure::new(ExitCode::Failed, "the answer to the join makes no sense", why, "report this");
    let cluster: ClusterId = answer.cluster_id.parse().map_err(|_| strange("no cluster's id"))?;
    let id: ReplicaId = answer.replica.parse().map_err(|_| strange("no replica's id"))?;
    let number = cluster::number(&id).ok_or_else(|| strange("no replica's id"))?;
    let pins = pins_of(&answer.ca, &cluster).map_err(|error| strange(&error.to_string()))?;
    if !pins.contains(&token.ca_pin) {
        return Err(strange("its roots are not the one that the token pins"));
    }
    let read = Certificate::from_pem(&answer.certificate).map_err(|error| strange(&error.to_string()))?;
    let own = mainstay_common::process::tls::Credentials {
        ca: answer.ca.clone(),
        certificate: answer.certificate.clone(),
        key: key.serialize_pem(),
    };
    client_config(&own).map_err(|error| strange(&error.to_string()))?;
    if read.identity.subject != Subject::Replica(id.clone()) || read.identity.cluster != cluster {
        return Err(strange("the certificate is for somebody else"));
    }
    Ok((cluster, id, number))
}

/// Fetches what opens the CA's keys from any of the others, as soon as one knows this replica.
async fn opener(
    dir: &DataDir,
    identity: &store::Identity,
    joined: &Joined,
    credentials: &Credentials,
) -> Result<(), Failure> {
    let failed = |why: String| {
        let try_next = "are the others' peer ports open from here? Then run join again, with the same token";
        Failure::new(ExitCode::Unreachable, "no other replica gave the CA's opener", why, try_next)
    };
    let tls = client_config(credentials).map_err(|error| failed(error.to_string()))?;
    let address = joined.peer_address.as_str().into();
    let own = Own { identity: identity.clone(), address, tls: Arc::new(ArcSwap::new(tls)) };
    let (network, _) = Network::new(own, joined.contacts());
    let until = Instant::now() + PATIENCE;
    loop {
        let mut why = "nobody else is there".to_owned();
        for (peer, contact) in joined.contacts().0 {
            match fetch_opener(&network, peer, &contact).await {
                Ok(opener) => return Opener::keep(dir, opener),
                Err(error) => why = format!("{} at {}: {error}", cluster::numbered(peer), Shown::new(&contact.address)),
            }
        }
        if Instant::now() >= until {
            return Err(failed(why));
        }
        sleep(PAUSE).await;
    }
}

async fn fetch_opener(network: &Network, peer: u64, contact: &Contact) -> Result<[u8; 32], String> {
    let mut client = ReplicaClient::new(connect(network, peer, contact).await?);
    let answer = timeout(ANSWER, client.fetch_opener(pb::FetchOpenerRequest {})).await.map_err(|_| "no answer")?;
    let opener = answer.map_err(|status| status.message().replace('\n', "; "))?.into_inner().opener;
    opener.try_into().map_err(|_| "an opener has 32 bytes".into())
}
