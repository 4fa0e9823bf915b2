//! What a session says about certificates: which roots count, and what the agent holds by now.

use mainstay_common::{NodeId, identity::Subject};
use mainstay_core::{
    KeyFingerprint, State,
    ca::{Holder, Standing},
};
use mainstay_proto::v1 as pb;

use crate::api::{Shared, ca::note_holder};

/// One node's side of it.
pub(super) struct Trust {
    node: NodeId,
    key: KeyFingerprint,
    /// The version that the agent was told last.
    told: Option<u64>,
}

impl Trust {
    pub(super) fn new(node: NodeId, key: KeyFingerprint) -> Self {
        Self { node, key, told: None }
    }

    /// What the agent has to be told, if it was not.
    pub(super) fn news(&mut self, shared: &Shared, state: &State, spread_ms: u64) -> Option<pb::Trust> {
        let version = state.ca.version();
        if self.told.replace(version) == Some(version) {
            return None;
        }
        Some(pb::Trust { version, ca: shared.ca.bundle(), issuer: shared.ca.pin().to_vec(), spread_ms })
    }

    /// The agent says what it holds. A certificate that is not its own tells nothing.
    pub(super) fn holds(&mut self, shared: &Shared, holding: &pb::Holding) {
        let trusted = |standing| !matches!(standing, Standing::Retired(_));
        match shared.ca.issued(&holding.certificate, |root| trusted(root.standing)) {
            Ok(shown)
                if shown.identity.subject == Subject::Agent(self.node.clone()) && shown.spki_sha256 == self.key.0 =>
            {
                shared.renewals.renewed(shown.identity.subject, self.key, shown.not_after);
            }
            Ok(shown) => {
                tracing::warn!(node = %self.node, shown = %shown.identity, "it shows a certificate that is not its own");
                return;
            }
            Err(why) => {
                tracing::warn!(node = %self.node, why, "it shows a certificate that does not count");
                return;
            }
        }
        let issuing = shared.ca.issued(&holding.certificate, |root| root.standing == Standing::Issuing).is_ok();
        if issuing && holding.version == shared.log.read().ca.version() {
            note_holder(shared, Holder::Node(self.node.clone()));
        }
    }
}
