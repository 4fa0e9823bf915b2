//! What a replica keeps for itself from the CA: its certificate, the roots as a file, the administrator's context. They
//! heal by themselves, whatever ran out or was rotated while the replica was off.

use std::{fs, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mainstay_common::{
    ExitCode, Failure, ReplicaId, Timestamp, UserName,
    identity::Subject,
    process::{
        context::Context,
        data_dir::{self, DataDir},
        now,
        shutdown::CancellationToken,
        tls::{Certificate, Credentials, client_config, issuer_of, new_key, pinned_config, signing_request},
    },
};
use mainstay_core::{KeyFingerprint, ca};
use rcgen::KeyPair;
use rustls::{ClientConfig, ServerConfig};
use tokio::time::{MissedTickBehavior, interval};

use super::{Authority, Holders, Request, Unsigned, ca::fingerprint};
use crate::{gate, log::Log};

/// The roots that count, PEM: a copy for people and their tools.
pub(crate) const CA_FILE: &str = "ca.crt";
/// The replica's certificate.
pub(crate) const CERTIFICATE_FILE: &str = "replica.crt";
/// Its key.
pub(crate) const KEY_FILE: &str = "replica.key";
/// The administrator's context.
const CONTEXT_FILE: &str = "admin.context";
/// How often dates are looked at.
const LOOK: Duration = Duration::from_secs(600);

/// The files, and the TLS that follows from them.
pub(crate) struct OwnFiles {
    dir: Arc<DataDir>,
    authority: Arc<Authority>,
    log: Log,
    /// What it shows to whoever dials it,
    server: Arc<ArcSwap<ServerConfig>>,
    /// and to other replicas that it dials.
    client: Arc<ArcSwap<ClientConfig>>,
}

/// Both ends of the replica's TLS.
type Ends = (Arc<ServerConfig>, Arc<ClientConfig>);

impl OwnFiles {
    /// Brings everything up to date, in the ends that are there already too.
    ///
    /// # Errors
    /// Where the replica cannot have a certificate that counts.
    pub(crate) fn open(
        dir: Arc<DataDir>,
        authority: Arc<Authority>,
        log: Log,
        server: Option<Arc<ArcSwap<ServerConfig>>>,
        client: Arc<ArcSwap<ClientConfig>>,
    ) -> Result<Self, Failure> {
        let (served, dialled) = serve(&dir, &authority, log.replica())?;
        let server = server.unwrap_or_else(|| Arc::new(ArcSwap::new(Arc::clone(&served))));
        server.store(served);
        client.store(dialled);
        let files = Self { dir, authority, log, server, client };
        files.tell();
        Ok(files)
    }

    /// Read anew for every handshake.
    pub(crate) fn tls(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.server)
    }

    /// Keeps everything up to date until `stop`.
    pub(crate) async fn keep(self, holders: Holders, stop: CancellationToken) {
        let mut state = self.log.watch();
        let mut version = state.borrow_and_update().ca.version();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.tick().await;
        loop {
            tokio::select! {
                _ = look.tick() => {}
                changed = state.changed() => {
                    let Ok(()) = changed else { return };
                    let now = state.borrow_and_update().ca.version();
                    if std::mem::replace(&mut version, now) == now {
                        continue;
                    }
                }
                () = stop.cancelled() => return,
            }
            match serve(&self.dir, &self.authority, self.log.replica()) {
                Ok((served, dialled)) => {
                    self.server.store(served);
                    self.client.store(dialled);
                }
                Err(failure) => tracing::warn!(what = failure.what, why = failure.why, "the replica serves as before"),
            }
            if let Some(user) = self.tell() {
                holders.note(ca::Holder::User(user), version);
            }
        }
    }

    /// The copies for people; without them everything goes on. Whose context has a certificate by the root that issues.
    fn tell(&self) -> Option<UserName> {
        let roots = self.authority.bundle();
        if fs::read_to_string(self.dir.file(CA_FILE)).ok().as_ref() != Some(&roots)
            && let Err(failure) = write(&self.dir, CA_FILE, &roots)
        {
            tracing::warn!(what = failure.what, why = failure.why, "the copy of the roots is old");
        }
        self.heal_context().unwrap_or_else(|why| {
            tracing::warn!(why, "{CONTEXT_FILE} is old: mainstay-coordinator admin makes a new one");
            None
        })
    }

    /// The administrator's context on this machine gets a fresh certificate for the key that it has, as long as the
    /// state knows that key: whoever can read the file is root here, and could have a new one anyway.
    fn heal_context(&self) -> Result<Option<UserName>, String> {
        let path = self.dir.file(CONTEXT_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let mut context = Context::load(&path).map_err(|failure| failure.what)?;
        let read = Certificate::from_pem(&context.certificate).map_err(|error| error.to_string())?;
        let key = KeyFingerprint(read.spki_sha256);
        if !self.log.read().users.allows(&context.user, context.role, key) {
            return Ok(None);
        }
        let roots = self.authority.bundle();
        let counts = is_good(&context.certificate, &read, now(), self.authority.pin(), 2);
        if counts && context.ca == roots {
            return Ok(Some(context.user));
        }
        if !counts {
            let pair = KeyPair::from_pem(&context.key).map_err(|error| error.to_string())?;
            let csr = signing_request(&pair).map_err(|error| error.to_string())?;
            let request = Request::from_der(&csr).map_err(|error| error.to_string())?;
            if request.key() != key {
                return Err("its key is not that of its certificate".into());
            }
            let subject = Subject::User(context.role, context.user.clone());
            let signed = self.authority.sign_client(&request, subject, now());
            context.certificate = signed.map_err(|error| error.to_string())?;
        }
        context.ca = roots;
        context.save(&path).map_err(|error| error.to_string())?;
        tracing::info!(user = %context.user, "the administrator's context on this machine is fresh again");
        Ok(Some(context.user))
    }
}

/// Whether a certificate counts, is by the root that issues, and has at least one `parts`th of its life left.
fn is_good(pem: &str, read: &Certificate, now: Timestamp, issuer: [u8; 32], parts: u32) -> bool {
    let life = read.not_after.since(read.not_before);
    read.not_before <= now && read.not_after.since(now) > life / parts && issuer_of(pem) == Some(issuer)
}

/// The replica's TLS. Its certificate is made anew when less than a third of its life is left, when another root
/// issues, or when it is missing or damaged.
fn serve(dir: &DataDir, authority: &Authority, replica: &ReplicaId) -> Result<Ends, Failure> {
    let there = there(dir, replica, authority);
    let (certificate, key) = match there {
        Some((certificate, key, true)) => (certificate, key),
        old => match issue_replica(dir, replica, |key, subject, now| authority.sign_replica(key, subject, now)) {
            Ok(made) => {
                tracing::info!(%replica, "replica's certificate made anew");
                made
            }
            Err(failure) => match old {
                Some((certificate, key, _)) => {
                    tracing::warn!(
                        why = failure.why,
                        "the replica's certificate is not renewed; the old one counts yet"
                    );
                    (certificate, key)
                }
                None => return Err(failure),
            },
        },
    };
    let certificate = format!("{certificate}{}", authority.ways());
    ends(dir, &Credentials { ca: authority.bundle(), certificate, key })
}

fn ends(dir: &DataDir, credentials: &Credentials) -> Result<Ends, Failure> {
    let damaged = |why: String| {
        let what = format!("{} is damaged", dir.file(CERTIFICATE_FILE).display());
        Failure::new(ExitCode::Failed, what, why, "put replica.crt and replica.key back from a copy, and start again")
    };
    let served = gate::server_config(credentials).map_err(damaged)?;
    let dialled = client_config(credentials).map_err(|error| damaged(error.to_string()))?;
    Ok((served, dialled))
}

fn of_files(dir: &DataDir) -> Result<Ends, Failure> {
    let read = |name: &str| {
        let path = dir.file(name);
        fs::read_to_string(&path).map_err(|error| data_dir::unusable(&path, &error))
    };
    ends(dir, &Credentials { ca: read(CA_FILE)?, certificate: read(CERTIFICATE_FILE)?, key: read(KEY_FILE)? })
}

/// What a replica shows that knows no state yet.
///
/// # Errors
/// Where its files cannot be used.
pub(crate) fn server_of_files(dir: &DataDir) -> Result<Arc<ServerConfig>, Failure> {
    of_files(dir).map(|(served, _)| served)
}

/// The same for replicas that it dials; without files that can be used it reaches nobody, until there are some.
pub(crate) fn client_of_files(dir: &DataDir) -> Arc<ClientConfig> {
    of_files(dir).map_or_else(|_| pinned_config([0; 32]), |(_, dialled)| dialled)
}

/// The key that the replica's certificate is for.
pub(crate) fn key_of_files(dir: &DataDir) -> Option<KeyFingerprint> {
    let certificate = fs::read_to_string(dir.file(CERTIFICATE_FILE)).ok()?;
    Certificate::from_pem(&certificate).ok().map(|read| KeyFingerprint(read.spki_sha256))
}

/// Ends a replica whose key is not the one that the others know: it would make another, and be refused for ever. One
/// that decides alone may have another, and tells the list.
///
/// # Errors
/// Its key was lost, and the way to come back.
pub(crate) fn refuse_lost_key(
    dir: &DataDir,
    replica: &ReplicaId,
    listed: Option<KeyFingerprint>,
    others_decide: bool,
) -> Result<(), Failure> {
    let pem = fs::read_to_string(dir.file(KEY_FILE)).ok();
    let there = pem.and_then(|pem| KeyPair::from_pem(&pem).ok()).map(|pair| fingerprint(&pair));
    if !others_decide || listed.is_none() || there == listed {
        return Ok(());
    }
    let state = if there.is_some() { "is another than" } else { "is missing or cannot be read; it was" };
    Err(Failure::new(
        ExitCode::Denied,
        format!("replica {replica} has lost its key"),
        format!("{KEY_FILE} {state} the one that {replica} joined with, and the other replicas know no other"),
        format!(
            "put {KEY_FILE} back from a copy; or mainstay cluster remove {replica}, then mainstay cluster add, and \
             mainstay-coordinator join with an empty --data-dir"
        ),
    ))
}

/// Certificate and key as they lie there, if they count; and whether they are good for long.
fn there(dir: &DataDir, replica: &ReplicaId, authority: &Authority) -> Option<(String, String, bool)> {
    let read = |name: &str| fs::read_to_string(dir.file(name)).ok();
    let (certificate, key) = (read(CERTIFICATE_FILE)?, read(KEY_FILE)?);
    let about = Certificate::from_pem(&certificate).ok()?;
    let pair = KeyPair::from_pem(&key).ok()?;
    let fits = about.spki_sha256 == fingerprint(&pair).0 && about.identity.subject == Subject::Replica(replica.clone());
    let counts = fits && about.not_before <= now() && now() < about.not_after;
    let fresh = is_good(&certificate, &about, now(), authority.pin(), 3)
        && about.not_after.since(now()) > authority.replica_life() / 3;
    counts.then_some((certificate, key, fresh))
}

/// Makes a replica's certificate, and its key where there is none; writes both.
pub(crate) fn issue_replica(
    dir: &DataDir,
    replica: &ReplicaId,
    sign: impl FnOnce(&KeyPair, Subject, Timestamp) -> Result<String, Unsigned>,
) -> Result<(String, String), Failure> {
    // A renewal keeps the key: the others know it.
    let there = fs::read_to_string(dir.file(KEY_FILE)).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    let key = there.unwrap_or_else(new_key);
    let certificate = sign(&key, Subject::Replica(replica.clone()), now()).map_err(|error| {
        let try_next = match &error {
            Unsigned::Closed(_) => "put that file back from a copy: without it nothing can be signed here",
            Unsigned::Request(_) | Unsigned::Ca(_) => "put the data directory back from a copy",
        };
        Failure::new(ExitCode::Failed, "the replica has no certificate that counts", error.to_string(), try_next)
    })?;
    let key = key.serialize_pem();
    write(dir, KEY_FILE, &key)?;
    write(dir, CERTIFICATE_FILE, &certificate)?;
    Ok((certificate, key))
}

/// Writes a file of the data directory whole.
pub(crate) fn write(dir: &DataDir, name: &str, content: &str) -> Result<(), Failure> {
    let mode = if name.ends_with(".crt") { 0o644 } else { 0o600 };
    let path = dir.file(name);
    data_dir::replace(&path, content.as_bytes(), mode).map_err(|error| data_dir::unusable(&path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lost_its_key_is_told_unless_it_decides_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let dir = DataDir::take(&path).unwrap();
        let id: ReplicaId = "r2".parse().unwrap();
        let key = new_key();
        let listed = Some(fingerprint(&key));
        let lost = |others| refuse_lost_key(&dir, &id, listed, others).err();
        assert!(lost(true).is_some_and(|told| told.code == ExitCode::Denied && told.why.contains("missing")));
        assert_eq!(lost(false).map(|told| told.what), None);
        write(&dir, KEY_FILE, &new_key().serialize_pem()).unwrap();
        assert!(lost(true).is_some_and(|told| told.why.contains("another") && told.try_next.contains("join")));
        write(&dir, KEY_FILE, &key.serialize_pem()).unwrap();
        assert!(lost(true).is_none());
    }
}
