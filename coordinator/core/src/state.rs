//! What the cluster may never lose, and the one way it changes.

use mainstay_common::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{node, token, user};

/// Everything that decisions made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Machines.
    pub nodes: node::Nodes,
    /// Join tokens.
    pub tokens: token::Tokens,
    /// People.
    pub users: user::Users,
}

/// How the state may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// About nodes.
    Node(node::Command),
    /// About tokens.
    Token(token::Command),
    /// About users.
    User(user::Command),
}

/// What a command brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// About nodes.
    Node(node::Consequence),
    /// About tokens.
    Token(token::Consequence),
    /// About users.
    User(user::Consequence),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// About nodes.
    #[error(transparent)]
    Node(#[from] node::Rejected),
    /// About tokens.
    #[error(transparent)]
    Token(#[from] token::Rejected),
    /// About users.
    #[error(transparent)]
    User(#[from] user::Rejected),
}

impl State {
    /// Applies one committed command; `at` is the moment at which it was proposed. Refused commands change nothing.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Node(command) => Ok(Consequence::Node(self.nodes.apply(command)?)),
            Command::Token(command) => self.token(at, command),
            Command::User(command) => Ok(Consequence::User(self.users.apply(at, command)?)),
        }
    }

    /// A redeemed token and the node it admits are one entry: neither is there without the other.
    fn token(&mut self, at: Timestamp, command: &token::Command) -> Result<Consequence, Rejected> {
        if let token::Command::Redeem(shown) = command {
            self.nodes.may_admit(self.tokens.name_for(shown), shown.key)?;
        }
        let consequence = self.tokens.apply(at, command)?;
        if let token::Consequence::Admitted(node, key) = &consequence {
            self.nodes.admit(at, node, *key);
        }
        Ok(Consequence::Token(consequence))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::KeyFingerprint;

    fn command() -> impl Strategy<Value = Command> {
        let node = (0u8..3).prop_map(|n| format!("n{n}").parse().unwrap());
        let key = (0u8..4).prop_map(|k| KeyFingerprint([k; 32]));
        let token = (0u8..3).prop_map(|t| format!("t{t}").parse().unwrap());
        let create = (token.clone(), 0u32..3).prop_map(|(id, uses_left)| {
            let token = token::Token {
                secret_sha256: KeyFingerprint([7; 32]),
                created_at: Timestamp(0),
                created_by: "anna".parse().unwrap(),
                expires_at: Timestamp(500),
                uses_left,
                admitted: BTreeMap::new(),
                revoked_at: None,
            };
            Command::Token(token::Command::Create(id, token))
        });
        let redeem = (token.clone(), key, node.clone()).prop_map(|(token, key, node)| {
            let secret_sha256 = KeyFingerprint([7; 32]);
            Command::Token(token::Command::Redeem(token::Redeem { token, secret_sha256, key, node }))
        });
        let revoke = token.prop_map(|id| Command::Token(token::Command::Revoke(id)));
        let remove = node.prop_map(|id| Command::Node(node::Command::Remove(id)));
        prop_oneof![create, redeem, revoke, remove]
    }

    #[test]
    fn a_removed_node_does_not_come_back_by_asking_under_another_name() {
        let mut state = State::default();
        let token = token::Token {
            secret_sha256: KeyFingerprint([7; 32]),
            created_at: Timestamp(0),
            created_by: "anna".parse().unwrap(),
            expires_at: Timestamp(500),
            uses_left: 1,
            admitted: BTreeMap::new(),
            revoked_at: None,
        };
        let redeem = |name: &str| {
            let (token, node) = ("t1".parse().unwrap(), name.parse().unwrap());
            let (secret_sha256, key) = (KeyFingerprint([7; 32]), KeyFingerprint([1; 32]));
            Command::Token(token::Command::Redeem(token::Redeem { token, secret_sha256, key, node }))
        };
        state.apply(Timestamp(0), &Command::Token(token::Command::Create("t1".parse().unwrap(), token))).unwrap();
        state.apply(Timestamp(0), &redeem("n1")).unwrap();
        state.apply(Timestamp(0), &Command::Node(node::Command::Remove("n1".parse().unwrap()))).unwrap();
        assert_eq!(state.apply(Timestamp(0), &redeem("n2")), Err(Rejected::Node(node::Rejected::Removed)));
    }

    proptest! {
        #[test]
        fn whatever_happens_replicas_end_equal_and_a_saved_state_reads_back(
            commands in proptest::collection::vec((0i64..1_000, command()), 0..60)
        ) {
            let (mut one, mut two) = (State::default(), State::default());
            for (at, command) in &commands {
                let before = one.clone();
                let answer = one.apply(Timestamp(*at), command);
                prop_assert_eq!(&answer, &two.apply(Timestamp(*at), command));
                if answer.is_err() {
                    prop_assert_eq!(&one, &before, "a refused command changed something");
                }
            }
            prop_assert_eq!(&one, &two);
            for (id, node) in one.nodes.members() {
                let key = node.key.unwrap();
                prop_assert_eq!(one.nodes.standing(id, key), node::Standing::Member);
                prop_assert!(!node.former_keys.contains(&key), "a removed key came back");
            }
        }
    }
}
