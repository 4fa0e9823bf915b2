//! What one session owes its replica to know about certificates: which roots are kept here, and which certificate is in
//! use, when that is not the one that the connection was made with.

use std::time::Duration;

use mainstay_common::text::Shown;
use mainstay_proto::v1 as pb;
use tokio::sync::watch;

use crate::identity::{Held, Identity, Wish};

/// One session's side of it.
pub(super) struct Holding {
    replica: String,
    held: watch::Receiver<Held>,
    /// What this replica was shown last: with the connection at first.
    pub(super) shown: Held,
    /// What it told last.
    trust: Option<(pb::Trust, [u8; 32])>,
    /// The version that was acknowledged.
    acknowledged: Option<u64>,
}

impl Holding {
    pub(super) fn new(replica: &str, held: watch::Receiver<Held>, shown: Held) -> Self {
        Self { replica: replica.to_owned(), held, shown, trust: None, acknowledged: None }
    }

    /// The replica says which roots count.
    pub(super) fn told(&mut self, identity: &Identity, trust: pb::Trust) {
        let Ok(issuer) = <[u8; 32]>::try_from(trust.issuer.as_slice()) else { return };
        let wish = Wish {
            version: trust.version,
            replica: self.replica.clone(),
            issuer: Some(issuer),
            spread: Duration::from_millis(trust.spread_ms),
        };
        match identity.trust(&trust.ca, wish) {
            Ok(()) => self.trust = Some((trust, issuer)),
            Err(why) => tracing::warn!(why = %Shown::new(&why).cut(300), "roots that the replica told are not taken"),
        }
    }

    /// Waits until what is held changes.
    pub(super) async fn changed(&mut self) {
        if self.held.changed().await.is_err() {
            // The identity is gone only when the agent ends.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the replica should hear something.
    pub(super) fn is_owed(&self) -> bool {
        let held = self.held.borrow();
        self.fulfilled(&held).is_some_and(|version| self.acknowledged != Some(version))
            || held.certificate != self.shown.certificate
    }

    /// What the replica should hear now.
    pub(super) fn take(&mut self) -> Option<pb::Holding> {
        if !self.is_owed() {
            return None;
        }
        let held = self.held.borrow().clone();
        let version = self.fulfilled(&held);
        self.acknowledged = version.or(self.acknowledged);
        let holding = pb::Holding { version: version.unwrap_or(0), certificate: held.der() };
        self.shown = held;
        Some(holding)
    }

    /// The version that is taken over whole: its roots are kept, and the certificate is by the one that issues.
    fn fulfilled(&self, held: &Held) -> Option<u64> {
        let (trust, issuer) = self.trust.as_ref()?;
        (held.trusts(&trust.ca) && held.is_by(issuer)).then_some(trust.version)
    }
}
