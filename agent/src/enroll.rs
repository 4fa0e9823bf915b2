//! `mainstay-agent enroll`: a join token becomes a certificate, once.
//!
//! The key is on disk before the first attempt, and every attempt shows the same one: whoever redeems a token with the
//! key that redeemed it before gets the same node, so a lost reply is no second use.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mainstay_common::{
    ClusterId, ExitCode, Failure, NodeId,
    identity::Subject,
    process::{
        config,
        data_dir::{DataDir, unusable},
        now,
        tls::{
            Certificate, Channel, DialError, channel, dial, explain, new_key, pinned_config, pins_of, signing_request,
        },
    },
    text::Shown,
    time,
    token::JoinToken,
};
use mainstay_proto::v1::{self as pb, enrol_client::EnrolClient};
use rcgen::{CertificateSigningRequestParams, KeyPair, PublicKeyData as _};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::identity::{self, CA_FILE, CERTIFICATE_FILE, ENROLMENT_FILE, Enrolment, KEY_FILE, key_sha256, read, write};

/// The key of an enrolment that is not through yet.
const PENDING_KEY_FILE: &str = "pending.key";
/// Its signing request, DER.
const PENDING_CSR_FILE: &str = "pending.csr";
/// Longest wait for a connection, and again for the answer: a leader may have to be elected first.
const ANSWER: Duration = Duration::from_secs(15);
/// Attempts in one call of the program.
const ATTEMPTS: u32 = 3;
/// Stands for the replica's name: whom the certificate must name follows from the pinned CA.
const PLACEHOLDER: &str = "enrol.mainstay.internal";

/// What `enroll` is asked for.
#[derive(Clone, Debug)]
pub struct EnrollConfig {
    /// The agent's data directory.
    pub data_dir: PathBuf,
    /// The file with the join token; `-` is standard input.
    pub token_file: PathBuf,
    /// A replica's address, host:port.
    pub coordinator: String,
    /// The node's name; the hostname where it is not given.
    pub name: Option<String>,
}

/// Redeems the token and writes key, certificate and cluster into the data directory.
///
/// # Errors
/// A failure in three lines; what is on disk is enough to call it again.
pub async fn enroll(config: &EnrollConfig) -> Result<Enrolment, Failure> {
    let token = read_token(&config.token_file)?;
    if !identity::is_address(&config.coordinator) {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{} is no address", Shown::new(&config.coordinator)),
            "a coordinator's address is HOST:PORT",
            "--coordinator replica-1.example:7443",
        ));
    }
    let folder = DataDir::take(&config.data_dir)?;
    let before = enrolment_before(folder.path())?;
    if let Some(before) = &before
        && let Some(ca) = read(folder.path(), CA_FILE)?
        && pins_of(&ca, &before.cluster_id).is_ok_and(|pins| !pins.contains(&token.ca_pin))
    {
        refuse_other_cluster(folder.path(), before, &config.coordinator, token.ca_pin).await?;
    }
    let node = node_name(config.name.as_deref(), before.as_ref())?;
    let key = pending_key(folder.path())?;
    let answer = redeem(config, &token, &node, folder.path()).await?;
    let enrolment = check(&answer, &node, &key, &config.coordinator)?;
    // What this node heard stays true, also when it is enrolled anew.
    let heard = before.filter(|before| before.cluster_id == enrolment.cluster_id).map(|before| before.generation);
    let enrolment = Enrolment { generation: heard.unwrap_or(enrolment.generation), ..enrolment };
    keep(folder.path(), &answer, &key, &enrolment)?;
    Ok(enrolment)
}

/// Reads a join token, and warns where others can read it too.
fn read_token(file: &Path) -> Result<JoinToken, Failure> {
    let from_stdin = file == Path::new("-");
    let place = if from_stdin { "standard input".to_owned() } else { file.display().to_string() };
    let mut text = String::new();
    // A token is 120 characters: whatever is much longer is another file.
    let got = if from_stdin {
        io::stdin().take(4_096).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|opened| opened.take(4_096).read_to_string(&mut text))
    };
    got.map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("cannot read the token from {place}"),
            error.to_string(),
            "check the path given by --token-file",
        )
    })?;
    if let Ok(about) = fs::metadata(file)
        && about.is_file()
        && about.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(file = place, "others can read the token file; chmod 600 it, or give the token with -");
    }
    let token: JoinToken = text.parse().map_err(|why: mainstay_common::token::InvalidToken| {
        Failure::new(
            ExitCode::Usage,
            format!("no join token in {place}"),
            why.to_string(),
            "copy it again; `mainstay token create` makes a new one",
        )
    })?;
    if token.role != "agent" {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("the token is for a {}", Shown::new(&token.role).cut(20)),
            "an agent needs a token of role agent",
            "mainstay token create --role agent",
        ));
    }
    Ok(token)
}

/// What an earlier enrolment left, if there was one.
fn enrolment_before(folder: &Path) -> Result<Option<Enrolment>, Failure> {
    let place = folder.join(ENROLMENT_FILE).display().to_string();
    read(folder, ENROLMENT_FILE)?.map(|text| config::parse(&text, &place)).transpose()
}

fn node_name(given: Option<&str>, before: Option<&Enrolment>) -> Result<NodeId, Failure> {
    let hostname = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = match (given, before) {
        (Some(name), _) => name.to_owned(),
        (None, Some(before)) => before.node.as_str().to_owned(),
        (None, None) => hostname(),
    };
    name.parse().map_err(|why: mainstay_common::InvalidName| {
        Failure::new(
            ExitCode::Usage,
            format!("\"{}\" cannot name a node", Shown::new(&name).cut(80)),
            why.to_string(),
            "mainstay-agent enroll … --name NAME",
        )
    })
}

/// The key to ask with: the node's own where it has one (the registry knows it), else the one of the attempt before,
/// else a fresh one. It and its request are on disk when this returns.
fn pending_key(folder: &Path) -> Result<KeyPair, Failure> {
    let unreadable = |name: &str, why: String| {
        Failure::new(
            ExitCode::Failed,
            format!("{} holds no key", folder.join(name).display()),
            why,
            format!("move {} away and enroll again, with a new token", folder.join(name).display()),
        )
    };
    let mut key = None;
    for name in [KEY_FILE, PENDING_KEY_FILE] {
        if let Some(pem) = read(folder, name)? {
            key = Some(KeyPair::from_pem(&pem).map_err(|error| unreadable(name, error.to_string()))?);
            break;
        }
    }
    let key = match key {
        Some(key) => key,
        None => {
            let key = new_key();
            write(folder, PENDING_KEY_FILE, key.serialize_pem().as_bytes(), 0o600)?;
            key
        }
    };
    let path = folder.join(PENDING_CSR_FILE);
    // The request of the attempt before, if it is for this key: asking again is then the same to the last byte.
    let same = fs::read(&path)
        .ok()
        .and_then(|csr| CertificateSigningRequestParams::from_der(&csr.into()).ok())
        .is_some_and(|csr| csr.public_key.der_bytes() == key.der_bytes());
    if !same {
        let csr = signing_request(&key).map_err(|error| unreadable(KEY_FILE, error.to_string()))?;
        write(folder, PENDING_CSR_FILE, &csr, 0o600)?;
    }
    Ok(key)
}

async fn redeem(
    config: &EnrollConfig,
    token: &JoinToken,
    node: &NodeId,
    folder: &Path,
) -> Result<pb::RedeemResponse, Failure> {
    let path = folder.join(PENDING_CSR_FILE);
    let csr = fs::read(&path).map_err(|error| unusable(&path, &error))?;
    let mut attempt = 1;
    loop {
        let request = pb::RedeemRequest {
            token_id: token.id.to_string(),
            secret: token.secret.0.to_vec(),
            csr: csr.clone(),
            name: node.to_string(),
        };
        let failure = match ask(&config.coordinator, token.ca_pin, request).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let may_pass = matches!(failure.code, ExitCode::Unreachable | ExitCode::Unknown);
        if !may_pass || attempt == ATTEMPTS {
            return Err(failure);
        }
        tracing::info!(why = failure.why, "trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
        attempt += 1;
    }
}

/// One attempt. The secret leaves this machine only after the other side showed the pinned CA.
async fn ask(address: &str, pin: [u8; 32], request: pb::RedeemRequest) -> Result<pb::RedeemResponse, Failure> {
    let (channel, _cluster) = connect(address, pin).await.map_err(|error| not_reached(address, &error))?;
    let mut client = EnrolClient::new(channel);
    match timeout(ANSWER, client.redeem(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(refused(address, &status)),
        Err(_) => Err(unclear(address, format!("no answer within {}", time::span(ANSWER)))),
    }
}

/// A connection to whoever shows the pinned CA, and the cluster that its certificate names.
async fn connect(address: &str, pin: [u8; 32]) -> Result<(Channel, Option<ClusterId>), DialError> {
    let stream = dial(address, PLACEHOLDER, pinned_config(pin), ANSWER).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let cluster = shown.and_then(|der| Certificate::from_der(der).ok()).map(|leaf| leaf.identity.cluster);
    let channel = channel(stream).await.map_err(|error| DialError::Tls(error.to_string()))?;
    Ok((channel, cluster))
}

fn not_reached(address: &str, error: &DialError) -> Failure {
    let (code, try_next) = match error {
        DialError::Tls(_) => (
            ExitCode::Denied,
            "compare the token with the coordinator's CA; the secret was not sent; `mainstay token create` makes a \
             new token",
        ),
        DialError::Address(_) => (ExitCode::Usage, "--coordinator HOST:PORT"),
        DialError::Io(_) | DialError::Timeout(_) => (
            ExitCode::Unreachable,
            "is the coordinator running, and its port open from here? The same call again is safe",
        ),
    };
    Failure::new(code, format!("cannot reach the coordinator at {address}"), error.to_string(), try_next)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other code is a plain failure")]
fn refused(address: &str, status: &Status) -> Failure {
    let why = explain(status).unwrap_or_else(|| Shown::new(status.message()).cut(300).to_string());
    let (code, try_next) = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => {
            (ExitCode::Denied, "`mainstay token create` makes a new token")
        }
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => {
            (ExitCode::Conflict, "give another --name, or `mainstay node rm` the one that has it")
        }
        Code::InvalidArgument => (ExitCode::Usage, "correct the name or the token"),
        Code::Unavailable | Code::ResourceExhausted => (ExitCode::Unreachable, "the same call again is safe"),
        Code::Unknown | Code::DeadlineExceeded | Code::Cancelled | Code::Internal => return unclear(address, why),
        _ => (ExitCode::Failed, "the same call again is safe"),
    };
    let lines: Vec<String> = status.message().lines().map(|line| Shown::new(line).cut(300).to_string()).collect();
    match &lines[..] {
        // The coordinator's own words are what, why and what to try.
        [what, why, try_next] => Failure::new(code, format!("{what} (the coordinator at {address})"), why, try_next),
        _ => Failure::new(code, format!("the coordinator at {address} did not enroll this node"), why, try_next),
    }
}

/// The reply got lost: the token may be redeemed already, for our key.
fn unclear(address: &str, why: String) -> Failure {
    Failure::new(
        ExitCode::Unknown,
        format!("the coordinator at {address} did not answer"),
        why,
        "the same call again is safe: it shows the same key and gets the same node",
    )
}

/// Takes nothing on trust that can be checked here.
fn check(answer: &pb::RedeemResponse, node: &NodeId, key: &KeyPair, coordinator: &str) -> Result<Enrolment, Failure> {
    let odd = |why: String| {
        Failure::new(ExitCode::Failed, "the coordinator's answer does not fit", why, "report this; nothing was changed")
    };
    let certificate = Certificate::from_pem(&answer.certificate).map_err(|error| odd(error.to_string()))?;
    if certificate.spki_sha256 != key_sha256(key) {
        return Err(odd("the certificate is for another key".into()));
    }
    let cluster_id: ClusterId = answer.cluster_id.parse().map_err(|why| odd(format!("{why}")))?;
    // Whoever answers showed the pinned root before; others may have taken its place by now.
    pins_of(&answer.ca, &cluster_id).map_err(|error| odd(format!("its CA: {error}")))?;
    let named = &certificate.identity;
    if named.cluster != cluster_id || named.subject != Subject::Agent(node.clone()) {
        return Err(odd(format!("the certificate names {named}")));
    }
    if now() < certificate.not_before || now() > certificate.not_after {
        tracing::warn!(
            not_before = %certificate.not_before, not_after = %certificate.not_after, clock = %now(),
            "the certificate does not count by this machine's clock: correct the clock"
        );
    }
    let addresses = answer.addresses.iter().filter(|address| identity::is_address(address)).cloned().collect();
    Ok(Enrolment {
        // A name that is shown and written: no more than a line of it.
        cluster: Shown::new(&answer.cluster).cut(64).to_string(),
        cluster_id,
        node: node.clone(),
        coordinator: coordinator.to_owned(),
        addresses,
        generation: identity::first_generation(),
    })
}

/// Writes every file whole. Cut short at any point, the same call again completes it: the key is on disk already.
fn keep(folder: &Path, answer: &pb::RedeemResponse, key: &KeyPair, enrolment: &Enrolment) -> Result<(), Failure> {
    write(folder, CA_FILE, answer.ca.as_bytes(), 0o644)?;
    write(folder, KEY_FILE, key.serialize_pem().as_bytes(), 0o600)?;
    write(folder, CERTIFICATE_FILE, answer.certificate.as_bytes(), 0o644)?;
    identity::write_enrolment(folder, enrolment)?;
    for name in [PENDING_KEY_FILE, PENDING_CSR_FILE] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&path, &error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The directory may belong elsewhere. Asks the other cluster for its id, which takes no secret: the same one may have
/// rotated its CA while this node was off.
async fn refuse_other_cluster(folder: &Path, before: &Enrolment, address: &str, pin: [u8; 32]) -> Result<(), Failure> {
    let other = match timeout(Duration::from_secs(3), connect(address, pin)).await {
        Ok(Ok((_, Some(cluster)))) if cluster == before.cluster_id => return Ok(()),
        Ok(Ok((_, Some(cluster)))) => format!("cluster {cluster}"),
        _ => {
            let start: String = pin.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("a cluster whose CA's key begins with {start}")
        }
    };
    Err(Failure::new(
        ExitCode::Conflict,
        format!(
            "{} belongs to cluster {} ({}), as node {}",
            folder.display(),
            Shown::new(&before.cluster),
            before.cluster_id,
            before.node
        ),
        format!("the token is of {other}"),
        format!("give another --data-dir; or, to leave the old cluster, move {} away first", folder.display()),
    ))
}
