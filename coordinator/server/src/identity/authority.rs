//! The cluster's CA as one replica has it: roots from the state, their keys as far as its opener opens them.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mainstay_common::{
    ClusterId, Timestamp,
    identity::Subject,
    process::tls::{Certificate, provider},
};
use mainstay_core::{
    KeyFingerprint, State,
    ca::{NewRoot, Root, Standing},
};
use rcgen::KeyPair;
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use tokio::sync::watch;

use super::{
    Ca, Request, Unsigned,
    seal::{Closed, Opener},
};
use crate::config::Lives;

/// What signs.
pub(crate) struct Authority {
    cluster: ClusterId,
    state: watch::Receiver<Arc<State>>,
    opener: Result<Opener, Closed>,
    lives: Lives,
    /// The issuing root with its key, once it was opened.
    opened: ArcSwapOption<Ca>,
}

impl Authority {
    pub(crate) fn new(
        cluster: ClusterId,
        state: watch::Receiver<Arc<State>>,
        opener: Result<Opener, Closed>,
        lives: Lives,
    ) -> Self {
        Self { cluster, state, opener, lives, opened: ArcSwapOption::empty() }
    }

    /// A certificate for an agent or a person, followed by its root.
    pub(crate) fn sign_client(&self, request: &Request, subject: Subject, now: Timestamp) -> Result<String, Unsigned> {
        self.issuing()?.sign_client(request, subject, now, self.lives.client)
    }

    /// A certificate for a replica, followed by its root.
    pub(crate) fn sign_replica(&self, key: &KeyPair, subject: Subject, now: Timestamp) -> Result<String, Unsigned> {
        self.issuing()?.sign_replica(key, subject, now, self.lives.replica)
    }

    /// The same for a replica that joins.
    pub(crate) fn sign_joined(&self, request: &Request, subject: Subject, now: Timestamp) -> Result<String, Unsigned> {
        self.issuing()?.sign_joined(request, subject, now, self.lives.replica)
    }

    /// Every root that counts, PEM, the one that issues first: older programs read only that one.
    pub(crate) fn bundle(&self) -> String {
        let state = self.state.borrow();
        let (issuing, others): (Vec<_>, Vec<_>) =
            state.ca.trusted().map(|(_, root)| root).partition(|root| root.standing == Standing::Issuing);
        issuing.into_iter().chain(others).map(|root| root.certificate.as_str()).collect()
    }

    /// SHA-256 of the public key of the root that issues: what join tokens pin.
    pub(crate) fn pin(&self) -> [u8; 32] {
        self.state.borrow().ca.issuing().map_or([0; 32], |(_, root)| root.key.0)
    }

    /// What a replica shows after its own certificate: the way to its root from each root that somebody may know.
    pub(crate) fn ways(&self) -> String {
        let state = self.state.borrow();
        let issuing = state.ca.issuing().map(|(number, _)| number);
        let cross = state.ca.issuing().and_then(|(_, root)| root.cross.clone()).unwrap_or_default();
        let others = state.ca.roots().filter(|(number, _)| Some(*number) != issuing);
        std::iter::once(cross).chain(others.map(|(_, root)| root.certificate.clone())).collect()
    }

    /// How long a replica's certificate lives.
    pub(crate) fn replica_life(&self) -> std::time::Duration {
        self.lives.replica
    }

    /// Makes the next root, certified by the one that issues too.
    pub(crate) fn next_root(&self, name: &str, now: Timestamp) -> Result<NewRoot, Unsigned> {
        let before = self.issuing()?;
        let opener = self.opener.as_ref().map_err(|why| Unsigned::Closed(why.clone()))?;
        let number = self.state.borrow().ca.roots().map(|(number, _)| number).last().unwrap_or(0) + 1;
        let name = format!("{name} {number}");
        let (next, private) = Ca::make(&self.cluster, &name, now)?;
        let cross = before.certify(&next, &name, now)?;
        Ok(new_root(&self.cluster, &next, &private, opener, Some(cross)))
    }

    /// Reads a certificate that one of these roots signed. When it counts is not looked at.
    ///
    /// # Errors
    /// Why it is none of theirs.
    pub(crate) fn issued(&self, der: &[u8], by: impl Fn(&Root) -> bool) -> Result<Certificate, String> {
        let certificate = Certificate::from_der(der).map_err(|error| error.to_string())?;
        let state = Arc::clone(&self.state.borrow());
        let mut roots = RootCertStore::empty();
        for (_, root) in state.ca.roots().filter(|(_, root)| by(root)) {
            let root =
                CertificateDer::from_pem_slice(root.certificate.as_bytes()).map_err(|error| error.to_string())?;
            roots.add(root).map_err(|error| error.to_string())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        let seconds = u64::try_from(certificate.not_after.0 / 1_000).unwrap_or(0);
        let then = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let verified = verifier.verify_client_cert(&CertificateDer::from(der), &[], then);
        verified.map_err(|_| "it is not signed by a root of this cluster".to_owned())?;
        if certificate.identity.cluster != self.cluster {
            return Err(format!("{} is of another cluster", certificate.identity));
        }
        Ok(certificate)
    }

    /// The issuing root with its key: opened once, and again when another one issues.
    pub(crate) fn issuing(&self) -> Result<Arc<Ca>, Unsigned> {
        let state = Arc::clone(&self.state.borrow());
        let (_, root) = state.ca.issuing().ok_or_else(|| Unsigned::Ca("the cluster has no root".into()))?;
        if let Some(ca) = self.opened.load_full()
            && ca.pin() == root.key.0
        {
            return Ok(ca);
        }
        let ca = Arc::new(self.open(root)?);
        self.opened.store(Some(Arc::clone(&ca)));
        Ok(ca)
    }

    /// What opens the CA's keys, when it does.
    pub(crate) fn opener(&self) -> Result<[u8; 32], Unsigned> {
        self.issuing()?;
        self.opener.as_ref().map(Opener::bits).map_err(|why| Unsigned::Closed(why.clone()))
    }

    fn open(&self, root: &Root) -> Result<Ca, Unsigned> {
        let opener = self.opener.as_ref().map_err(|why| Unsigned::Closed(why.clone()))?;
        let sealed = root.sealed.as_ref().ok_or_else(|| Unsigned::Ca("its key was given up".into()))?;
        let private = opener.open(&self.cluster, root.key, sealed).map_err(Unsigned::Closed)?;
        let key = KeyPair::try_from(private).map_err(|error| Unsigned::Ca(error.to_string()))?;
        Ca::load(self.cluster.clone(), root.certificate.clone(), key)
            .map_err(|damaged| Unsigned::Ca(damaged.to_string()))
    }
}

/// A root as the state takes it.
pub(crate) fn new_root(
    cluster: &ClusterId,
    ca: &Ca,
    private: &KeyPair,
    opener: &Opener,
    cross: Option<String>,
) -> NewRoot {
    let key = KeyFingerprint(ca.pin());
    let sealed = opener.seal(cluster, key, &private.serialize_der());
    NewRoot { certificate: ca.pem().to_owned(), key, sealed, cross }
}
