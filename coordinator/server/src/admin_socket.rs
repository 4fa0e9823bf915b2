//! The root-only door: whoever is root on a replica's machine can always make a new administrator's context.
//!
//! A unix socket in the data directory (0600), and the kernel says who is on the other end. One line each way: the
//! signing request in base64, then a context or an error as JSON.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::BASE64;
use mainstay_common::{
    ExitCode, Failure, UserName,
    identity::{HumanRole, Subject},
    process::{
        context::Context,
        now,
        shutdown::CancellationToken,
        tls::{new_key, signing_request},
    },
};
use mainstay_core::{Actor, Origin, ca::Holder, cluster};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::{Instant, timeout},
};

use crate::{
    api::{Shared, ca::note_holder},
    identity,
    log::By,
    peers::reissue,
};

/// The socket's name within the data directory.
pub const NAME: &str = "admin.sock";
const LIMIT: Duration = Duration::from_secs(10);
/// How long somebody is looked for who decides.
const DECIDING: Duration = Duration::from_secs(3);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
const MAX_LINE_BYTES: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Context(Context),
    Refused(Refusal),
}

/// Why there is no context.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    code: u8,
    why: String,
    #[serde(rename = "try")]
    try_next: String,
}

impl Refusal {
    fn new(code: ExitCode, why: impl Into<String>, try_next: &str) -> Self {
        Self { code: code.number(), why: why.into(), try_next: try_next.into() }
    }
}

/// Opens the socket, so that it is there when the replica says that it serves. Without one everything else goes on.
pub(crate) fn open(path: &Path) -> Option<UnixListener> {
    // A socket of an earlier life is in the way; the data directory's lock says that nobody serves it.
    fs::remove_file(path).unwrap_or(());
    match UnixListener::bind(path).and_then(|listener| private(path).map(|()| listener)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "no admin socket: `mainstay-coordinator admin` will not work");
            None
        }
    }
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: UnixListener, path: PathBuf, shared: Shared, stop: CancellationToken) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // One at a time is enough for a door that only root may use.
                Ok((stream, _)) => match timeout(LIMIT, answer(stream, &shared)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "admin socket"),
                    Err(_) => tracing::debug!("admin socket: the other end was silent"),
                },
                Err(error) => {
                    tracing::warn!(%error, "admin socket");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = stop.cancelled() => break,
        }
    }
    fs::remove_file(&path).unwrap_or(());
}

fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

async fn answer(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_LINE_BYTES).read_line(&mut line).await?;
    // The replica's own user can read its key anyway.
    let answer = if peer.uid() == 0 || peer.uid() == own {
        issue(line.trim(), shared).await.map_or_else(Answer::Refused, Answer::Context)
    } else {
        Answer::Refused(Refusal::new(ExitCode::Denied, "only root may ask", "run it as root"))
    };
    let mut text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.get_mut().write_all(&text).await
}

async fn issue(line: &str, shared: &Shared) -> Result<Context, Refusal> {
    let odd =
        |error: &dyn std::fmt::Display| Refusal::new(ExitCode::Failed, error.to_string(), "look at the replica's log");
    let der = BASE64.decode(line.as_bytes()).map_err(|error| odd(&error))?;
    let request = identity::Request::from_der(&der).map_err(|error| odd(&error))?;
    let name: UserName = "admin".parse().map_err(|error| odd(&error))?;
    // Whoever cannot be given a certificate keeps the one they have.
    shared.ca.issuing().map_err(|error| odd(&error))?;
    decide(&request, shared).await?;
    let now = now();
    let subject = Subject::User(HumanRole::Admin, name.clone());
    let certificate = shared.ca.sign_client(&request, subject, now).map_err(|error| odd(&error))?;
    note_holder(shared, Holder::User(name.clone()));
    tracing::info!(user = %name, "administrator's context made anew through the admin socket");
    Ok(Context {
        cluster: shared.cluster.to_string(),
        cluster_id: shared.cluster_id.clone(),
        addresses: shared.addresses(),
        user: name,
        role: HumanRole::Admin,
        ca: shared.ca.bundle(),
        certificate,
        key: String::new(),
    })
}

/// Has the cluster give the administrator's name to that key: here where this replica leads, else by whoever does. The
/// same again is the same, so it is asked for until somebody answers.
async fn decide(request: &identity::Request, shared: &Shared) -> Result<(), Refusal> {
    let (log, until) = (&shared.log, Instant::now() + DECIDING);
    let mut known = log.raft().known_leader();
    loop {
        let leader = *known.borrow_and_update();
        let why = if leader == Some(log.number()) {
            let command = reissue(request.key())
                .map_err(|error| Refusal::new(ExitCode::Failed, error.to_string(), "report this"))?;
            match log.propose(By::unnamed(Actor::Root, Origin::Socket), command).await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            }
        } else if let Some(leader) = leader {
            match shared.network.reissue(leader, request.key()).await {
                Ok(()) => {
                    // So that this replica lets the new key in at once; elsewhere it is let in anyway.
                    drop(log.read_now().await);
                    return Ok(());
                }
                Err(why) => format!("{} leads: {why}", cluster::numbered(leader)),
            }
        } else {
            "no replica leads now".to_owned()
        };
        if Instant::now() >= until {
            let try_next = "mainstay-coordinator run on the other replicas' machines; then again";
            return Err(Refusal::new(ExitCode::Unreachable, why, try_next));
        }
        // Another leader, or the same one when it can be reached.
        drop(timeout(AGAIN, known.changed()).await);
    }
}

/// Asks the replica that serves `data_dir` for a fresh administrator's context.
///
/// # Errors
/// Unreachable where no replica serves the directory, denied where the caller is not root.
pub async fn request(data_dir: &Path) -> Result<Context, Failure> {
    let path = data_dir.join(NAME);
    let failed = |why: String| Failure::new(ExitCode::Failed, "no context was made", why, "check the replica's log");
    let stream = UnixStream::connect(&path).await.map_err(|error| {
        let (code, try_next) = match error.kind() == io::ErrorKind::PermissionDenied {
            true => (ExitCode::Denied, "run it as root".to_owned()),
            false => (ExitCode::Unreachable, format!("mainstay-coordinator run --data-dir {}", data_dir.display())),
        };
        Failure::new(code, format!("cannot reach the replica at {}", path.display()), error.to_string(), try_next)
    })?;
    let key = new_key();
    let der = signing_request(&key).map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(format!("{}\n", BASE64.encode(&der)).as_bytes()).await?;
        let mut line = String::new();
        (&mut stream).take(MAX_LINE_BYTES).read_line(&mut line).await?;
        Ok::<_, io::Error>(line)
    };
    let line = timeout(LIMIT, exchange).await.map_err(|_| failed("the replica did not answer".into()))?;
    let line = line.map_err(|error| failed(error.to_string()))?;
    match serde_json::from_str(&line).map_err(|error| failed(error.to_string()))? {
        Answer::Context(context) => Ok(Context { key: key.serialize_pem(), ..context }),
        Answer::Refused(Refusal { code, why, try_next }) => {
            Err(Failure::new(ExitCode::from_number(code), "no context was made", why, try_next))
        }
    }
}
