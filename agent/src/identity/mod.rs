//! Who this node is: its key, its certificate and its cluster, kept in the data directory.

mod files;
mod held;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mainstay_common::{
    Failure,
    identity::{Subject, server_name},
    process::{
        config,
        data_dir::replace,
        tls::{Certificate, pins_of},
    },
};
use rcgen::KeyPair;
use rustls::ClientConfig;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::clock::Floor;

pub use files::{CA_FILE, CERTIFICATE_FILE, ENROLMENT_FILE, Enrolment, KEY_FILE, is_address};
pub(crate) use files::{first_generation, read, write, write_enrolment};
use files::{half_written, not_enrolled};
pub use held::{Held, key_sha256};

/// More addresses than any coordinator has replicas.
const ADDRESSES_MAX: usize = 16;

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

    /// Hears of which generation a replica is, and keeps the highest, on disk too: whoever is of a lower one was left
    /// behind when the cluster was restored, and would lead this node back to it.
    ///
    /// # Errors
    /// Why nothing more of what that replica says may be believed.
    pub fn hear_generation(&self, told: u64) -> Result<(), String> {
        let told = told.max(first_generation());
        let mut before = told;
        let risen = self.enrolment.send_if_modified(|enrolment| {
            before = enrolment.generation;
            enrolment.generation = before.max(told);
            told > before
        });
        if told < before {
            return Err(format!(
                "it is of generation {told}, and this cluster was restored as generation {before}: that replica must be \
                 emptied, and join anew"
            ));
        }
        if risen {
            tracing::warn!(generation = told, "the cluster was restored: replicas of before count no more");
            // Versions of roots start again with it.
            self.wish.send_replace(Wish::default());
            if let Err(failure) = write_enrolment(&self.folder, &self.enrolment.borrow()) {
                tracing::warn!(what = failure.what, why = failure.why, "the generation is forgotten at the next start");
            }
        }
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
}
