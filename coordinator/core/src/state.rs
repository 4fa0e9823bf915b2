//! What the cluster may never lose, and the one way it changes.

use mainstay_common::Timestamp;
use minicbor::{Decode, Encode};

use crate::{
    Command, Entry, alert, ca,
    cluster::{self, Cluster, Founding},
    declare, node, notify,
    request::{self, Requests},
    token, user,
};

/// Everything that decisions made.
///
/// Index and term of the last entry are not in it: they are the log's, stand beside it in a checkpoint's head, and move
/// with entries that change nothing here. So states are equal on all replicas at an index, whatever else the log carries,
/// and what needs a term (a claim) has it in its command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The cluster itself.
    pub cluster: Cluster,
    /// Machines.
    pub nodes: node::Nodes,
    /// Join tokens.
    pub tokens: token::Tokens,
    /// People.
    pub users: user::Users,
    /// Rules and alerts.
    pub alerts: alert::Alerts,
    /// Receivers, routes and what is owed.
    pub notifications: notify::Notifications,
    /// What came of requests that have a name.
    pub requests: Requests,
    /// The roots of its certificates.
    pub ca: ca::Ca,
    /// Index of the entry that changed declarations last: their revision.
    pub declared_at: u64,
}

/// What a command brought about. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// About the cluster.
    #[n(0)]
    Cluster(#[n(0)] cluster::Consequence),
    /// About nodes.
    #[n(1)]
    Node(#[n(0)] node::Consequence),
    /// About tokens.
    #[n(2)]
    Token(#[n(0)] token::Consequence),
    /// About users.
    #[n(3)]
    User(#[n(0)] user::Consequence),
    /// About alerts.
    #[n(4)]
    Alert(#[n(0)] alert::Consequence),
    /// About notifications.
    #[n(5)]
    Notify(#[n(0)] notify::Consequence),
    /// Declarations are in force; the new revision.
    #[n(6)]
    Declared(#[n(0)] u64),
    /// About the cluster's roots.
    #[n(7)]
    Ca(#[n(0)] ca::Consequence),
}

/// Why a command changed nothing. The same on every replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// About the cluster.
    #[error(transparent)]
    Cluster(#[from] cluster::Rejected),
    /// About nodes.
    #[error(transparent)]
    Node(#[from] node::Rejected),
    /// About tokens.
    #[error(transparent)]
    Token(#[from] token::Rejected),
    /// About users.
    #[error(transparent)]
    User(#[from] user::Rejected),
    /// About alerts.
    #[error(transparent)]
    Alert(#[from] alert::Rejected),
    /// About notifications.
    #[error(transparent)]
    Notify(#[from] notify::Rejected),
    /// About declarations.
    #[error(transparent)]
    Declare(#[from] declare::Rejected),
    /// About the request's name.
    #[error(transparent)]
    Request(#[from] request::Rejected),
    /// About the cluster's roots.
    #[error(transparent)]
    Ca(#[from] ca::Rejected),
}

impl State {
    /// The state of a cluster that was just made: what its first checkpoint holds.
    #[must_use]
    pub fn founded(founding: Founding) -> Self {
        Self {
            cluster: Cluster::founded(founding),
            nodes: node::Nodes::default(),
            tokens: token::Tokens::default(),
            users: user::Users::default(),
            alerts: alert::Alerts::default(),
            notifications: notify::Notifications::default(),
            requests: Requests::default(),
            ca: ca::Ca::default(),
            declared_at: 0,
        }
    }

    /// Applies the committed entry of that index. Refused commands change nothing. A request that was answered already
    /// gets the same answer again, and changes nothing either.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Result<Consequence, Rejected> {
        if let Some(answer) = self.requests.answer(entry)? {
            return Ok(answer);
        }
        let consequence = self.command(index, entry)?;
        self.requests.keep(entry, &consequence);
        Ok(consequence)
    }

    fn command(&mut self, index: u64, entry: &Entry) -> Result<Consequence, Rejected> {
        let at = entry.at;
        match &entry.command {
            Command::Cluster(command) => self.cluster(at, command),
            Command::Node(command) => self.node(at, command),
            Command::Token(command) => self.token(at, command),
            Command::User(command) => Ok(Consequence::User(self.users.apply(at, command)?)),
            Command::Alert(command) => self.alert(at, command),
            Command::Notify(command) => Ok(Consequence::Notify(self.notifications.apply(at, command)?)),
            Command::Declare(command) => self.declare(index, at, command),
            Command::Ca(command) => Ok(Consequence::Ca(self.ca.apply(index, at, command, &self.nodes)?)),
        }
    }

    /// A cluster that is restored, and its tokens that count no more, are one entry.
    fn cluster(&mut self, at: Timestamp, command: &cluster::Command) -> Result<Consequence, Rejected> {
        let consequence = self.cluster.apply(at, command)?;
        if let cluster::Consequence::Restored(_) = &consequence {
            self.tokens.void(at);
        }
        Ok(Consequence::Cluster(consequence))
    }

    /// What fired on a node that was removed is over within the same entry.
    fn node(&mut self, at: Timestamp, command: &node::Command) -> Result<Consequence, Rejected> {
        let consequence = self.nodes.apply(command)?;
        if let node::Consequence::Removed(node) = &consequence {
            for told in self.alerts.node_removed(at, node) {
                self.notifications.owe(at, &told);
            }
        }
        Ok(Consequence::Node(consequence))
    }

    /// A redeemed token and the node or replica it admits are one entry: neither is there without the other.
    fn token(&mut self, at: Timestamp, command: &token::Command) -> Result<Consequence, Rejected> {
        if let token::Command::Join(shown) = command {
            let is_in = self.cluster.may_join(shown.key, &shown.address, &shown.peer_address);
            // Who has no token learns nothing of the replicas.
            self.tokens.join(at, shown, is_in.as_ref().is_ok_and(Option::is_some) || is_in.is_err())?;
            is_in?;
            let id = self.cluster.join(shown.key, &shown.address, &shown.peer_address, shown.version);
            return Ok(Consequence::Token(token::Consequence::Joined(id)));
        }
        if let token::Command::Redeem(shown) = command {
            self.nodes.may_admit(self.tokens.name_for(shown), shown.key)?;
        }
        let consequence = self.tokens.apply(at, command)?;
        if let token::Consequence::Admitted(node, key) = &consequence {
            self.nodes.admit(at, node, *key);
        }
        Ok(Consequence::Token(consequence))
    }

    /// "It fired" and "somebody must be told" are one entry.
    fn alert(&mut self, at: Timestamp, command: &alert::Command) -> Result<Consequence, Rejected> {
        if let alert::Command::Pend(pend) = command
            && self.nodes.member(&pend.alert.node).is_none()
        {
            return Err(alert::Rejected::NoMember(pend.alert.node.clone()).into());
        }
        let consequence = self.alerts.apply(at, command)?;
        if let alert::Consequence::Told(told) = &consequence {
            self.notifications.owe(at, told);
        }
        Ok(Consequence::Alert(consequence))
    }

    fn declare(&mut self, index: u64, at: Timestamp, command: &declare::Declare) -> Result<Consequence, Rejected> {
        command.check(self)?;
        for change in &command.changes {
            match change {
                declare::Change::Receiver(name, receiver) => {
                    self.notifications.set_receiver(at, name, receiver.as_ref());
                }
                declare::Change::Route(matcher, who) => self.notifications.routes.set(matcher, who.as_ref()),
                declare::Change::Rule(rule, place, change) => {
                    self.alerts.rules.0.set(&(*rule, place.clone()), change.as_ref());
                }
            }
        }
        self.declared_at = index;
        Ok(Consequence::Declared(index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Actor, KeyFingerprint, Origin};

    #[test]
    fn a_removed_node_does_not_come_back_by_asking_under_another_name() {
        let mut state = state();
        let token = token::Token {
            secret_sha256: KeyFingerprint([7; 32]),
            created_at: Timestamp(0),
            created_by: "anna".parse().unwrap(),
            expires_at: Timestamp(500),
            uses_left: 1,
            admitted: BTreeMap::new(),
            revoked_at: None,
            role: None,
        };
        apply(&mut state, Command::Token(token::Command::Create("t1".parse().unwrap(), token))).unwrap();
        apply(&mut state, redeem("n1")).unwrap();
        apply(&mut state, Command::Node(node::Command::Remove("n1".parse().unwrap()))).unwrap();
        assert_eq!(apply(&mut state, redeem("n2")), Err(Rejected::Node(node::Rejected::Removed)));
    }

    #[test]
    fn a_replica_joins_once_with_a_token_for_replicas() {
        let mut state = state();
        let token = |role| token::Token {
            secret_sha256: KeyFingerprint([7; 32]),
            created_at: Timestamp(0),
            created_by: "anna".parse().unwrap(),
            expires_at: Timestamp(500),
            uses_left: 1,
            admitted: BTreeMap::new(),
            revoked_at: None,
            role,
        };
        let create = |id: &str, role| Command::Token(token::Command::Create(id.parse().unwrap(), token(role)));
        apply(&mut state, create("t1", None)).unwrap();
        apply(&mut state, create("t2", Some(token::Role::Replica))).unwrap();
        let join = |token: &str, key, secret, address: &str| {
            Command::Token(token::Command::Join(token::Join {
                token: token.parse().unwrap(),
                secret_sha256: KeyFingerprint([secret; 32]),
                key: KeyFingerprint([key; 32]),
                address: format!("{address}:1"),
                peer_address: format!("{address}:2"),
                version: None,
            }))
        };
        let joined = |id: &str| Ok(Consequence::Token(token::Consequence::Joined(id.parse().unwrap())));
        let refused = |why| Err(Rejected::Token(why));
        assert_eq!(apply(&mut state, join("t1", 2, 7, "i")), refused(token::Rejected::Role(token::Role::Agent)));
        assert_eq!(apply(&mut state, join("t2", 2, 8, "h")), refused(token::Rejected::Unknown), "not a word of h");
        let taken = Err(Rejected::Cluster(cluster::Rejected::Taken("r1".parse().unwrap(), "h:1".into())));
        assert_eq!(apply(&mut state, join("t2", 2, 7, "h")), taken, "and no use is taken");
        assert_eq!(apply(&mut state, join("t2", 2, 7, "i")), joined("r2"));
        assert_eq!(apply(&mut state, join("t2", 2, 7, "i")), joined("r2"), "a lost reply is no second use");
        assert_eq!(apply(&mut state, join("t2", 3, 7, "j")), refused(token::Rejected::Used(Vec::new())));
    }

    #[test]
    fn only_members_have_alerts() {
        let alert = alert::AlertId { node: "n1".parse().unwrap(), rule: alert::RuleId::FsSpace, target: b"/".to_vec() };
        let severity = mainstay_common::state::Severity::Warning;
        let pend = alert::Pend { alert, severity, space: alert::Space { used: 1, available: 0 } };
        let refused = apply(&mut state(), Command::Alert(alert::Command::Pend(pend)));
        assert_eq!(refused, Err(alert::Rejected::NoMember("n1".parse().unwrap()).into()));
    }

    fn state() -> State {
        State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        })
    }

    fn redeem(name: &str) -> Command {
        let (token, node) = ("t1".parse().unwrap(), name.parse().unwrap());
        let (secret_sha256, key) = (KeyFingerprint([7; 32]), KeyFingerprint([1; 32]));
        Command::Token(token::Command::Redeem(token::Redeem { token, secret_sha256, key, node }))
    }

    fn apply(state: &mut State, command: Command) -> Result<Consequence, Rejected> {
        let entry = Entry {
            at: Timestamp(0),
            actor: Actor::Root,
            from: Origin::Socket,
            request: None,
            command,
            asked: None,
            through: None,
        };
        state.apply(1, &entry)
    }
}
