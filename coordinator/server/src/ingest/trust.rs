//! What a session says about certificates: which roots count, and what the agent holds by now.

use mainstay_common::{NodeId, identity::Subject};
use mainstay_core::{
    Actor, KeyFingerprint, Origin, State,
    ca::{Holder, Standing},
};
use mainstay_proto::v1 as pb;

use crate::{
    api::{Shared, ca::note_holder},
    log::By,
};

/// One node's side of it.
pub(super) struct Trust {
    node: NodeId,
    key: KeyFingerprint,
    from: Origin,
    /// The version that the agent was told last.
    told: Option<u64>,
    /// The version that the agent has taken over, until the state has that too.
    owed: Option<u64>,
}

impl Trust {
    pub(super) fn new(node: NodeId, key: KeyFingerprint, from: Origin) -> Self {
        Self { node, key, from, told: None, owed: None }
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
    pub(super) async fn holds(&mut self, shared: &Shared, holding: &pb::Holding) {
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
            self.owed = Some(holding.version);
            self.note(shared).await;
        }
    }

    /// Brings into the log what is owed to it: a proposal may have failed before.
    pub(super) async fn note(&mut self, shared: &Shared) {
        let Some(version) = self.owed else { return };
        if shared.log.read().ca.version() == version {
            let holder = Holder::Node(self.node.clone());
            let by = By { actor: Actor::Agent(self.node.clone()), from: self.from.clone() };
            note_holder(shared, by, holder.clone()).await;
            let state = shared.log.read();
            let settled = state.ca.missing(&state.nodes).binary_search(&self.node).is_err();
            if !settled {
                return;
            }
        }
        self.owed = None;
    }
}
