//! Who this node is: its key, its certificate and its cluster, kept in the data directory.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mainstay_common::{
    ClusterId, ExitCode, Failure, NodeId,
    identity::{Subject, server_name},
    process::{
        config,
        data_dir::{replace, unusable},
        tls::{Certificate, Credentials, anonymous_config, client_config, issuer_of, pins_of},
    },
};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::clock::Floor;

/// The cluster CA.
pub const CA_FILE: &str = "ca.crt";
/// The node's certificate.
pub const CERTIFICATE_FILE: &str = "agent.crt";
/// The node's key, 0600.
pub const KEY_FILE: &str = "agent.key";
/// Cluster, name and addresses: the last file that `enroll` writes.
pub const ENROLMENT_FILE: &str = "enrolment.toml";

/// More addresses than any coordinator has replicas.
const ADDRESSES_MAX: usize = 16;

/// What the node knows of its cluster besides certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's trust domain.
    pub cluster_id: ClusterId,
    /// This node's name.
    pub node: NodeId,
    /// The address that `enroll` was given: asked when no other answers.
    pub coordinator: String,
    /// Every replica's address as the coordinator told it last.
    pub addresses: Vec<String>,
}

/// The enrolled node. Cheap to share; a renewal changes what the next connection uses.
#[derive(Debug)]
pub struct Identity {
    folder: PathBuf,
    enrolment: watch::Sender<Enrolment>,
    held: watch::Sender<Held>,
    wish: watch::Sender<Wish>,
    floor: Arc<Floor>,
    coming_back: Mutex<()>,
}

/// What a connection needs.
#[derive(Clone, Debug)]
pub struct Held {
    /// Every root that counts, PEM.
    ca: String,
    key: String,
    /// The certificate and its root, PEM.
    pem: String,
    /// The certificate.
    pub certificate: Certificate,
    client: Arc<ClientConfig>,
}

/// What the coordinator wishes: that certificates are by this root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The version of the roots that it came with.
    pub version: u64,
    /// The address of the replica that told it.
    pub replica: String,
    /// SHA-256 of the root's public key; `None` as long as it was not told.
    pub issuer: Option<[u8; 32]>,
    /// A renewal waits a random part of this.
    pub spread: Duration,
}

impl Identity {
    /// Reads what `enroll` wrote.
    ///
    /// # Errors
    /// A failure that names `mainstay-agent enroll` where the node is not enrolled, or only half.
    pub fn load(folder: &Path) -> Result<Self, Failure> {
        let enrolment = read(folder, ENROLMENT_FILE)?;
        let files = [read(folder, CA_FILE)?, read(folder, CERTIFICATE_FILE)?, read(folder, KEY_FILE)?];
        if enrolment.is_none() && files.iter().all(Option::is_none) {
            return Err(not_enrolled(folder));
        }
        let (Some(enrolment), [Some(ca), Some(certificate), Some(key)]) = (enrolment, files) else {
            let missing = [ENROLMENT_FILE, CA_FILE, CERTIFICATE_FILE, KEY_FILE];
            let missing: Vec<_> = missing.into_iter().filter(|name| !folder.join(name).exists()).collect();
            return Err(half_written(folder, &format!("{} is missing", missing.join(", "))));
        };
        let place = folder.join(ENROLMENT_FILE);
        let enrolment: Enrolment = config::parse(&enrolment, &place.display().to_string())
            .map_err(|failure| half_written(folder, &format!("{}: {}", failure.what, failure.why)))?;
        let floor = Arc::new(Floor::load(folder));
        let held = Held::new(ca, certificate, key, &floor).map_err(|why| half_written(folder, &why))?;
        let named = &held.certificate.identity;
        if named.cluster != enrolment.cluster_id || named.subject != Subject::Agent(enrolment.node.clone()) {
            let why = format!("{CERTIFICATE_FILE} names {named}, {ENROLMENT_FILE} something else");
            return Err(half_written(folder, &why));
        }
        Ok(Self {
            folder: folder.to_owned(),
            enrolment: watch::Sender::new(enrolment),
            held: watch::Sender::new(held),
            wish: watch::Sender::new(Wish::default()),
            floor,
            coming_back: Mutex::new(()),
        })
    }

    /// Cluster, name and addresses.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment {
        self.enrolment.borrow().clone()
    }

    /// Follows the addresses.
    #[must_use]
    pub fn watch_enrolment(&self) -> watch::Receiver<Enrolment> {
        self.enrolment.subscribe()
    }

    /// The certificate in use.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.held.borrow().certificate.clone()
    }

    /// How a connection is made that shows no certificate.
    pub(crate) fn anonymous(&self) -> Result<Arc<ClientConfig>, String> {
        self.held.borrow().anonymous(&self.floor)
    }

    /// How the next connection proves who this is.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.held.borrow().client)
    }

    /// The name under which every replica answers.
    #[must_use]
    pub fn server_name(&self) -> String {
        server_name(&self.enrolment.borrow().cluster_id)
    }

    /// The node's key.
    ///
    /// # Errors
    /// Where it cannot be read: it could when it was loaded.
    pub fn key(&self) -> Result<KeyPair, String> {
        KeyPair::from_pem(&self.held.borrow().key).map_err(|error| error.to_string())
    }

    /// What connections use now.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.borrow().clone()
    }

    /// Follows what connections use.
    #[must_use]
    pub fn watch_held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// The floor under this machine's clock.
    #[must_use]
    pub fn floor(&self) -> &Floor {
        &self.floor
    }

    /// Whoever holds this comes back; the others wait and see.
    pub(crate) async fn one_comes_back(&self) -> MutexGuard<'_, ()> {
        self.coming_back.lock().await
    }

    /// What the coordinator wishes certificates to be.
    #[must_use]
    pub fn watch_wish(&self) -> watch::Receiver<Wish> {
        self.wish.subscribe()
    }

    /// Keeps the roots that a replica told, and notes which of them should issue. A replica that lags behind another
    /// tells old ones: they are left alone.
    ///
    /// # Errors
    /// Why they are not taken; those before stay then.
    pub fn trust(&self, roots: &str, wish: Wish) -> Result<(), String> {
        let lags = {
            let known = self.wish.borrow();
            // The same replica goes back only when its cluster was restored.
            wish.version < known.version && wish.replica != known.replica
        };
        if lags {
            return Ok(());
        }
        self.keep_roots(roots)?;
        self.wish.send_if_modified(|there| {
            let changed = *there != wish;
            *there = wish;
            changed
        });
        Ok(())
    }

    /// Keeps these roots, on disk first.
    ///
    /// # Errors
    /// Why they are not taken; those before stay then.
    pub(crate) fn keep_roots(&self, roots: &str) -> Result<(), String> {
        let before = self.held();
        if before.ca != roots {
            pins_of(roots, &self.enrolment.borrow().cluster_id).map_err(|error| error.to_string())?;
            let held = Held::new(roots.to_owned(), before.pem, before.key, &self.floor)?;
            let path = self.folder.join(CA_FILE);
            replace(&path, roots.as_bytes(), 0o644).map_err(|error| format!("{}: {error}", path.display()))?;
            tracing::info!("other roots count for this cluster now");
            self.held.send_replace(held);
        }
        Ok(())
    }

    /// Takes a renewed certificate: on disk first, then for the next connection.
    ///
    /// # Errors
    /// Why it is not taken; the one before stays then.
    pub fn renew(&self, certificate: &str) -> Result<(), String> {
        let before = self.held();
        let held = Held::new(before.ca, certificate.to_owned(), before.key, &self.floor)?;
        if held.certificate.identity != before.certificate.identity {
            return Err(format!("it names {}", held.certificate.identity));
        }
        let path = self.folder.join(CERTIFICATE_FILE);
        replace(&path, certificate.as_bytes(), 0o644).map_err(|error| format!("{}: {error}", path.display()))?;
        self.held.send_replace(held);
        Ok(())
    }

    /// Takes over the addresses that a replica told, on disk too, so that a restart knows them.
    pub fn learn(&self, addresses: &[String]) {
        let mut told: Vec<String> = addresses.iter().filter(|address| is_address(address)).cloned().collect();
        told.sort_unstable();
        told.dedup();
        told.truncate(ADDRESSES_MAX);
        if told.is_empty() || told == self.enrolment.borrow().addresses {
            return;
        }
        tracing::info!(addresses = told.join(" "), "the coordinator's addresses");
        self.enrolment.send_modify(|enrolment| enrolment.addresses = told);
        let written = write_enrolment(&self.folder, &self.enrolment.borrow());
        if let Err(failure) = written {
            tracing::warn!(what = failure.what, why = failure.why, "the addresses are forgotten at the next start");
        }
    }
}

impl Held {
    /// Whether the certificate is by that root.
    #[must_use]
    pub fn is_by(&self, issuer: &[u8; 32]) -> bool {
        issuer_of(&self.pem).as_ref() == Some(issuer)
    }

    /// Whether these are the roots in use.
    #[must_use]
    pub fn trusts(&self, roots: &str) -> bool {
        self.ca == roots
    }

    /// The certificate, DER.
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).map(|der| der.to_vec()).unwrap_or_default()
    }

    /// How a connection proves who this is.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// How a connection is made that shows no certificate.
    ///
    /// # Errors
    /// Where the roots cannot be read: they could when they were loaded.
    pub(crate) fn anonymous(&self, floor: &Arc<Floor>) -> Result<Arc<ClientConfig>, String> {
        let config = anonymous_config(&self.ca).map_err(|error| error.to_string())?;
        Ok(at_least(&config, floor))
    }

    fn new(ca: String, certificate: String, key: String, floor: &Arc<Floor>) -> Result<Self, String> {
        let parsed = Certificate::from_pem(&certificate).map_err(|error| format!("{CERTIFICATE_FILE}: {error}"))?;
        let pair = KeyPair::from_pem(&key).map_err(|error| format!("{KEY_FILE}: {error}"))?;
        if key_sha256(&pair) != parsed.spki_sha256 {
            return Err(format!("{KEY_FILE} is not the key of {CERTIFICATE_FILE}"));
        }
        let credentials = Credentials { ca, certificate, key };
        let client = client_config(&credentials).map_err(|error| error.to_string())?;
        let Credentials { ca, certificate: pem, key } = credentials;
        Ok(Self { ca, key, pem, certificate: parsed, client: at_least(&client, floor) })
    }
}

#[cfg(test)]
impl Held {
    /// A certificate that counts for an hour, and that no cluster knows.
    pub(crate) fn of_nobody() -> Self {
        let key = mainstay_common::process::tls::new_key();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://c1/agent/n1".try_into().unwrap())];
        params.not_after = (std::time::SystemTime::now() + Duration::from_secs(3_600)).into();
        let pem = params.self_signed(&key).unwrap().pem();
        let floor = Arc::new(Floor::load(Path::new("/nonexistent")));
        Self::new(pem.clone(), pem, key.serialize_pem(), &floor).unwrap()
    }
}

/// The same configuration, for which time does not fall behind the floor.
fn at_least(config: &ClientConfig, floor: &Arc<Floor>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.time_provider = Arc::<Floor>::clone(floor);
    Arc::new(config)
}

/// SHA-256 of a key's public half, as certificates carry it.
#[must_use]
pub fn key_sha256(key: &KeyPair) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}

/// Reads one file of the data directory; `None` where there is none.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Option<String>, Failure> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(half_written(folder, &format!("{name}: {error}"))),
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// Writes one file of the data directory whole.
pub(crate) fn write(folder: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), Failure> {
    let path = folder.join(name);
    replace(&path, content, mode).map_err(|error| unusable(&path, &error))
}

/// Writes cluster, name and addresses.
pub(crate) fn write_enrolment(folder: &Path, enrolment: &Enrolment) -> Result<(), Failure> {
    let text = toml::to_string(enrolment).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot write {ENROLMENT_FILE}"), error.to_string(), "report this")
    })?;
    write(folder, ENROLMENT_FILE, text.as_bytes(), 0o600)
}

/// True for `host:port` as it can be dialled and shown.
#[must_use]
pub fn is_address(address: &str) -> bool {
    address.len() <= 260
        && address.bytes().all(|byte| byte.is_ascii_graphic())
        && address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn not_enrolled(folder: &Path) -> Failure {
    Failure::new(
        ExitCode::Failed,
        "this node is not enrolled",
        format!("{} holds no certificate", folder.display()),
        format!(
            "mainstay-agent enroll --data-dir {} --token-file FILE --coordinator HOST:PORT    (`mainstay token create` \
             makes the token)",
            folder.display()
        ),
    )
}

fn half_written(folder: &Path, why: &str) -> Failure {
    Failure::new(
        ExitCode::Failed,
        format!("{} is half-written", folder.display()),
        why,
        "run the same `mainstay-agent enroll` again: its token still counts for this machine; with a token that ran \
         out, make a new one; nothing but these files depends on the directory",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_not_enrolled_is_told_the_command() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Identity::load(folder.path()).unwrap_err().try_next.contains("mainstay-agent enroll"));
    }

    #[test]
    fn half_a_directory_names_what_is_missing_and_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), KEY_FILE, b"x", 0o600).unwrap();
        let failure = Identity::load(folder.path()).unwrap_err();
        assert!(failure.what.contains("half-written"), "{failure}");
        assert!(failure.why.contains("agent.crt") && !failure.why.contains("agent.key"), "{failure}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:7443", "[::1]:7443", "node-1.example:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "host", "host:", ":7443", "host:0", "host:70000", "ho st:1", "h\u{1b}:1"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
