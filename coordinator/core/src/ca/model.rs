//! What a root is.

use std::{fmt, time::Duration};

use mainstay_common::{NodeId, Timestamp, UserName};
use minicbor::{Decode, Encode};

use crate::KeyFingerprint;

/// How long a retired root is remembered, and with it the nodes that were off meanwhile: as long as an expired
/// certificate can be made anew.
pub const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);

/// Whether a certificate that counts no more still shows who somebody is.
#[must_use]
pub fn may_come_back(not_after: Timestamp, now: Timestamp) -> bool {
    now.since(not_after) < REMEMBERED
}

/// A root's private key as every replica keeps it: who lacks the opener has nothing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sealed {
    /// Used once with this opener.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 12],
    /// The key, PKCS#8 DER, encrypted, and its tag.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
    /// Which opener it needs: a digest that tells nothing of it.
    #[n(2)]
    pub opener: KeyFingerprint,
}

/// A root that is about to be one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewRoot {
    /// Its certificate, PEM.
    #[n(0)]
    pub certificate: String,
    /// Its public key: what join tokens pin.
    #[n(1)]
    pub key: KeyFingerprint,
    /// Its private key.
    #[n(2)]
    pub sealed: Sealed,
    /// The same key certified by the root before it, PEM: whoever knows only that one follows.
    #[n(3)]
    pub cross: Option<String>,
}

/// What a root is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    /// It is trusted, and new certificates are by it.
    #[n(0)]
    Issuing,
    /// Certificates by it count.
    #[n(1)]
    Trusted,
    /// Since then, certificates by it count no more. They still show who somebody was.
    #[n(2)]
    Retired(#[n(0)] Timestamp),
}

/// A root as the cluster remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Root {
    /// Its certificate, PEM.
    #[n(0)]
    pub certificate: String,
    /// Its public key.
    #[n(1)]
    pub key: KeyFingerprint,
    /// Its private key; `None` once it was retired.
    #[n(2)]
    pub sealed: Option<Sealed>,
    /// The same key certified by the root before it, PEM.
    #[n(3)]
    pub cross: Option<String>,
    /// When it was made.
    #[n(4)]
    pub made_at: Timestamp,
    /// What it is good for.
    #[n(5)]
    pub standing: Standing,
    /// Index of the entry that changed its standing last.
    #[n(6)]
    pub changed_at: u64,
    /// Whether a certificate may be by it.
    #[n(7)]
    pub issued: bool,
}

/// Who holds a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Holder {
    /// A node's agent.
    #[n(0)]
    Node(#[n(0)] NodeId),
    /// A person.
    #[n(1)]
    User(#[n(0)] UserName),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::User(user) => write!(f, "user {user}"),
        }
    }
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Phase {
    /// One root counts.
    #[n(0)]
    Settled,
    /// A second root counts, and the first one issues.
    #[n(1)]
    Spreading,
    /// The second one issues.
    #[n(2)]
    Replacing,
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Spreading => "spreading",
            Self::Replacing => "replacing",
        }
    }
}
