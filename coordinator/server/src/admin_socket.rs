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
use mainstay_core::{Actor, Command, Origin, ca::Holder, user};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};

use crate::{
    api::{Shared, ca::note_holder},
    identity,
    log::By,
};

/// The socket's name within the data directory.
pub const NAME: &str = "admin.sock";
const LIMIT: Duration = Duration::from_secs(10);
const MAX_LINE_BYTES: u64 = 64 * 1024;

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Context(Context),
    Refused(String),
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
                Ok((stream, _)) => match tokio::time::timeout(LIMIT, answer(stream, &shared)).await {
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
        Answer::Refused("only root may ask".into())
    };
    let mut text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.get_mut().write_all(&text).await
}

async fn issue(line: &str, shared: &Shared) -> Result<Context, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let der = BASE64.decode(line.as_bytes()).map_err(|error| words(&error))?;
    let request = identity::Request::from_der(&der).map_err(|error| words(&error))?;
    let name: UserName = "admin".parse().map_err(|error| words(&error))?;
    // Whoever cannot be given a certificate keeps the one they have.
    shared.ca.issuing().map_err(|error| words(&error))?;
    let now = now();
    let user = user::User {
        role: HumanRole::Admin,
        key: request.key(),
        added_at: now,
        added_by: name.clone(),
        revoked_at: None,
    };
    let command = Command::User(user::Command::Reissue(name.clone(), user));
    let by = By::unnamed(Actor::Root, Origin::Socket);
    shared.log.propose(by, command).await.map_err(|error| words(&error))?;
    let subject = Subject::User(HumanRole::Admin, name.clone());
    let certificate = shared.ca.sign_client(&request, subject, now).map_err(|error| words(&error))?;
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
    let line = tokio::time::timeout(LIMIT, exchange).await.map_err(|_| failed("the replica did not answer".into()))?;
    let line = line.map_err(|error| failed(error.to_string()))?;
    match serde_json::from_str(&line).map_err(|error| failed(error.to_string()))? {
        Answer::Context(context) => Ok(Context { key: key.serialize_pem(), ..context }),
        Answer::Refused(why) => Err(Failure::new(ExitCode::Denied, "no context was made", why, "run it as root")),
    }
}
