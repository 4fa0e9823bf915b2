//! One line: who did what, when, from where, and what came of it.

use data_encoding::HEXLOWER;
use mainstay_common::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What the first line of all follows.
pub(super) const BEGINNING: &str = "";

/// One decided entry. Keys are the format on disk: more may come, none goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Its place in the log.
    pub(crate) index: u64,
    /// The leader's term.
    pub(crate) term: u64,
    /// When it was proposed.
    pub(crate) at_ms: i64,
    /// Who wanted it: `admin/anna`, `agent/n1`, `leader`.
    pub(crate) actor: String,
    /// Where the wish came from.
    pub(crate) from: String,
    /// Noun and verb: `token create`.
    pub(crate) action: String,
    /// What it was done to.
    pub(crate) object: String,
    /// `done`, or why not.
    pub(crate) outcome: String,
    /// More of what was wanted; never a secret.
    pub(crate) detail: String,
    /// The replica that took it in; empty in lines of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) through: String,
    /// SHA-256 of the line before and of this one, hexadecimal.
    #[serde(default)]
    pub(crate) chain: String,
}

impl Line {
    /// When it was proposed.
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp(self.at_ms)
    }

    /// The same line as the one that follows `before`.
    pub(super) fn chained(mut self, before: &str) -> Self {
        self.chain = self.link(before);
        self
    }

    /// Whether it is the very line that was written behind `before`.
    pub(super) fn follows(&self, before: &str) -> bool {
        self.link(before) == self.chain
    }

    fn link(&self, before: &str) -> String {
        let mut hash = Sha256::new();
        // A line of an earlier version keeps the hash that it has.
        let through = (!self.through.is_empty()).then_some(&*self.through);
        // Every part with its length, so that no two lines give the same bytes.
        for part in [
            before,
            &self.index.to_string(),
            &self.term.to_string(),
            &self.at_ms.to_string(),
            &self.actor,
            &self.from,
            &self.action,
            &self.object,
            &self.outcome,
            &self.detail,
        ]
        .into_iter()
        .chain(through)
        {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        HEXLOWER.encode(&hash.finalize())
    }
}
