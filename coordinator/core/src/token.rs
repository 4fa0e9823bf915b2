//! Join tokens: a secret that turns one machine into a node or a replica, once, and only for a while.

use std::collections::BTreeMap;

use mainstay_common::{NodeId, ReplicaId, Timestamp, TokenId, UserName};
use minicbor::{Decode, Encode};

use crate::{KeyFingerprint, Table};

/// A token as the cluster remembers it. The secret itself is never stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    /// SHA-256 of the secret.
    #[n(0)]
    pub secret_sha256: KeyFingerprint,
    /// When it was made.
    #[n(1)]
    pub created_at: Timestamp,
    /// Who made it.
    #[n(2)]
    pub created_by: UserName,
    /// The last moment at which it may be redeemed.
    #[n(3)]
    pub expires_at: Timestamp,
    /// Machines that it may still admit.
    #[n(4)]
    pub uses_left: u32,
    /// Who came in with it. A key that asks again gets the same node: a lost reply is no second use.
    #[n(5)]
    pub admitted: BTreeMap<KeyFingerprint, NodeId>,
    /// When it was revoked.
    #[n(6)]
    pub revoked_at: Option<Timestamp>,
    /// What its holder becomes; `None` is an agent, as before replicas could join.
    #[n(7)]
    pub role: Option<Role>,
}

/// What a token's holder becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// A node's agent.
    #[n(0)]
    Agent,
    /// A replica of the coordinator.
    #[n(1)]
    Replica,
}

impl Role {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Replica => "replica",
        }
    }
}

/// How a token stands, for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can be redeemed.
    Active,
    /// Too late.
    Expired,
    /// Every use is taken.
    Used,
    /// An administrator took it back.
    Revoked,
}

impl Standing {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Revoked => "revoked",
        }
    }
}

/// How the table of tokens may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// An administrator makes a token.
    #[n(0)]
    Create(#[n(0)] TokenId, #[n(1)] Token),
    /// A machine shows a secret and asks to be a node.
    #[n(1)]
    Redeem(#[n(0)] Redeem),
    /// An administrator takes a token back.
    #[n(2)]
    Revoke(#[n(0)] TokenId),
    /// A machine shows a secret and asks to be a replica.
    #[n(3)]
    Join(#[n(0)] Join),
}

/// What a machine shows that wants to be a replica.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Join {
    /// The token it names.
    #[n(0)]
    pub token: TokenId,
    /// SHA-256 of the secret it holds.
    #[n(1)]
    pub secret_sha256: KeyFingerprint,
    /// The public key it proved to own.
    #[n(2)]
    pub key: KeyFingerprint,
    /// What agents and operators will dial there, host:port.
    #[n(3)]
    pub address: String,
    /// What other replicas will dial there, host:port.
    #[n(4)]
    pub peer_address: String,
    /// Which version of entries it knows; `None` for version 1.
    #[n(5)]
    pub version: Option<u32>,
}

/// What a machine shows at the door.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Redeem {
    /// The token it names.
    #[n(0)]
    pub token: TokenId,
    /// SHA-256 of the secret it holds.
    #[n(1)]
    pub secret_sha256: KeyFingerprint,
    /// The public key it proved to own.
    #[n(2)]
    pub key: KeyFingerprint,
    /// The name it asks for.
    #[n(3)]
    pub node: NodeId,
}

/// What else must happen because a command was applied.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// The token is in the table.
    #[n(0)]
    Created,
    /// This node belongs to the cluster from now on, with this key.
    #[n(1)]
    Admitted(#[n(0)] NodeId, #[n(1)] KeyFingerprint),
    /// The token admits nobody any more.
    #[n(2)]
    Revoked,
    /// This replica belongs to the cluster from now on.
    #[n(3)]
    Joined(#[n(0)] ReplicaId),
}

/// Why a command changed nothing. Told to the caller word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such token, or a wrong secret: not told apart, so that ids cannot be guessed.
    #[error("the token is not known here")]
    Unknown,
    /// It came too late.
    #[error("the token ran out at {0}")]
    Expired(Timestamp),
    /// Every use is taken.
    #[error("the token was used already{by}", by = names(.0))]
    Used(Vec<NodeId>),
    /// An administrator took it back.
    #[error("the token was revoked at {0}")]
    Revoked(Timestamp),
    /// It makes something else of its holder.
    #[error("the token is for a {}", .0.as_str())]
    Role(Role),
}

fn names(nodes: &[NodeId]) -> String {
    match nodes {
        [] => String::new(),
        nodes => format!(", by {}", nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")),
    }
}

/// All tokens by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(pub(crate) Table<TokenId, Token>);

impl Tokens {
    /// Applies one committed command; `at` is the moment at which it was proposed.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Create(id, token) => Ok(self.create(id, token)),
            Command::Redeem(shown) => self.redeem(at, shown),
            Command::Revoke(id) => self.revoke(at, id),
            // The id is the cluster's to give: `state` does both in one entry, by `join`.
            Command::Join(_) => Err(Rejected::Unknown),
        }
    }

    /// The name under which a machine would come in: the one of its first time, else the one it asks for.
    #[must_use]
    pub fn name_for<'a>(&'a self, shown: &'a Redeem) -> &'a NodeId {
        self.0.get(&shown.token).and_then(|token| token.admitted.get(&shown.key)).unwrap_or(&shown.node)
    }

    /// Every token, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&TokenId, &Token)> {
        self.0.iter()
    }

    /// Named by its id, so that creating it twice is creating it once.
    fn create(&mut self, id: &TokenId, token: &Token) -> Consequence {
        self.0.entry(id.clone(), || token.clone());
        Consequence::Created
    }

    fn redeem(&mut self, at: Timestamp, shown: &Redeem) -> Result<Consequence, Rejected> {
        let token = self.0.get_mut(&shown.token).filter(|t| t.secret_sha256 == shown.secret_sha256);
        let token = token.ok_or(Rejected::Unknown)?;
        if let Some(node) = token.admitted.get(&shown.key) {
            return Ok(Consequence::Admitted(node.clone(), shown.key));
        }
        token.use_up(at, Role::Agent)?;
        token.admitted.insert(shown.key, shown.node.clone());
        Ok(Consequence::Admitted(shown.node.clone(), shown.key))
    }

    /// Takes a use for a replica. `is_in`: its key came in before, and a lost reply is no second use.
    pub(crate) fn join(&mut self, at: Timestamp, shown: &Join, is_in: bool) -> Result<(), Rejected> {
        let token = self.0.get_mut(&shown.token).filter(|t| t.secret_sha256 == shown.secret_sha256);
        let token = token.ok_or(Rejected::Unknown)?;
        if is_in { Ok(()) } else { token.use_up(at, Role::Replica) }
    }

    /// No token that was made before counts any more: after a restore nobody knows who used which.
    pub(crate) fn void(&mut self, at: Timestamp) {
        let open: Vec<TokenId> =
            self.0.iter().filter(|(_, token)| token.revoked_at.is_none()).map(|(id, _)| id.clone()).collect();
        for id in open {
            if let Some(token) = self.0.get_mut(&id) {
                token.revoked_at = Some(at);
            }
        }
    }

    fn revoke(&mut self, at: Timestamp, id: &TokenId) -> Result<Consequence, Rejected> {
        let token = self.0.get_mut(id).ok_or(Rejected::Unknown)?;
        token.revoked_at.get_or_insert(at);
        Ok(Consequence::Revoked)
    }
}

impl Token {
    /// What its holder becomes.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role.unwrap_or(Role::Agent)
    }

    fn use_up(&mut self, at: Timestamp, role: Role) -> Result<(), Rejected> {
        if self.role() != role {
            return Err(Rejected::Role(self.role()));
        }
        if let Some(revoked_at) = self.revoked_at {
            return Err(Rejected::Revoked(revoked_at));
        }
        if at > self.expires_at {
            return Err(Rejected::Expired(self.expires_at));
        }
        let used = || Rejected::Used(self.admitted.values().cloned().collect());
        self.uses_left = self.uses_left.checked_sub(1).ok_or_else(used)?;
        Ok(())
    }

    /// How it stands at a moment.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        if self.revoked_at.is_some() {
            Standing::Revoked
        } else if self.uses_left == 0 {
            Standing::Used
        } else if now > self.expires_at {
            Standing::Expired
        } else {
            Standing::Active
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn a_lost_reply_is_no_second_use() {
        let mut tokens = one_use();
        assert_eq!(redeem(&mut tokens, NOON, 1, "n1"), admitted("n1", 1));
        assert_eq!(redeem(&mut tokens, later(), 1, "n1"), admitted("n1", 1));
        assert_eq!(redeem(&mut tokens, NOON, 2, "n2"), Err(Rejected::Used(vec![node("n1")])));
    }

    #[test]
    fn too_late_is_too_late() {
        assert_eq!(redeem(&mut one_use(), later(), 1, "n1"), Err(Rejected::Expired(hour())));
    }

    #[test]
    fn a_revoked_token_admits_nobody_new() {
        let mut tokens = one_use();
        tokens.apply(NOON, &Command::Revoke("t1".parse().unwrap())).unwrap();
        assert_eq!(redeem(&mut tokens, NOON, 1, "n1"), Err(Rejected::Revoked(NOON)));
    }

    #[test]
    fn a_wrong_secret_looks_like_a_wrong_id() {
        let mut tokens = one_use();
        let shown = |token: &str, secret| Redeem {
            token: token.parse().unwrap(),
            secret_sha256: KeyFingerprint([secret; 32]),
            key: KeyFingerprint([1; 32]),
            node: node("n1"),
        };
        assert_eq!(tokens.apply(NOON, &Command::Redeem(shown("t1", 8))), Err(Rejected::Unknown));
        assert_eq!(tokens.apply(NOON, &Command::Redeem(shown("t2", 7))), Err(Rejected::Unknown));
    }

    fn hour() -> Timestamp {
        NOON.plus(Duration::from_secs(3_600))
    }

    fn later() -> Timestamp {
        NOON.plus(Duration::from_secs(3_601))
    }

    fn admitted(name: &str, key: u8) -> Result<Consequence, Rejected> {
        Ok(Consequence::Admitted(node(name), KeyFingerprint([key; 32])))
    }

    fn one_use() -> Tokens {
        let token = Token {
            secret_sha256: KeyFingerprint([7; 32]),
            created_at: NOON,
            created_by: "anna".parse().unwrap(),
            expires_at: hour(),
            uses_left: 1,
            admitted: BTreeMap::new(),
            revoked_at: None,
            role: None,
        };
        Tokens([("t1".parse().unwrap(), token)].into_iter().collect())
    }

    fn redeem(tokens: &mut Tokens, at: Timestamp, key: u8, name: &str) -> Result<Consequence, Rejected> {
        let shown = Redeem {
            token: "t1".parse().unwrap(),
            secret_sha256: KeyFingerprint([7; 32]),
            key: KeyFingerprint([key; 32]),
            node: node(name),
        };
        tokens.apply(at, &Command::Redeem(shown))
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }
}
