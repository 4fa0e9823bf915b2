//! Nodes: machines that belong to the cluster, and the key that each of them speaks with.

use std::collections::BTreeMap;

use mainstay_common::{NodeId, Timestamp};
use minicbor::{Decode, Encode};

use crate::{KeyFingerprint, Table};

/// Labels that one node may have.
pub const MAX_LABELS: usize = 64;

/// A node as the cluster remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    /// The key that may speak for it; `None` once it was removed.
    #[n(0)]
    pub key: Option<KeyFingerprint>,
    /// When it came in.
    #[n(1)]
    pub enrolled_at: Timestamp,
    /// What operators wrote on it.
    #[n(2)]
    pub labels: BTreeMap<String, String>,
    /// Keys that spoke for it before it was removed: whoever shows one is told that it was removed.
    #[n(3)]
    pub former_keys: Vec<KeyFingerprint>,
}

/// How the table of nodes may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Sets labels; an empty value takes one away.
    #[n(0)]
    Label(#[n(0)] NodeId, #[n(1)] BTreeMap<String, String>),
    /// Takes a node out; what speaks with its key is refused from now on.
    #[n(1)]
    Remove(#[n(0)] NodeId),
}

/// What else must happen because a command was applied.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// The node's labels are these now.
    #[n(0)]
    Labelled(#[n(0)] BTreeMap<String, String>),
    /// The node is out; its live view goes too.
    #[n(1)]
    Removed(#[n(0)] NodeId),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No such node.
    #[error("node {0:?} is unknown")]
    Unknown(String),
    /// Another machine has the name.
    #[error("the name {0} is taken by another machine")]
    Taken(NodeId),
    /// The key of a removed node: a token that it redeemed before must not bring it back.
    #[error("the node of this key was removed")]
    Removed,
    /// A label that cannot be.
    #[error("label {0:?}: a key is 1 to 63 of a-z 0-9 . _ / -, a value at most 256 bytes")]
    Label(String),
    /// Too many labels.
    #[error("a node has at most 64 labels")]
    Labels,
}

/// Whether a key may speak for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Member,
    /// It could once; the node was removed since.
    Removed,
    /// Another key may.
    OtherKey,
    /// No such node here: pending, never removed.
    Unknown,
}

/// All nodes by name, removed ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(pub(crate) Table<NodeId, Node>);

impl Nodes {
    /// Applies one committed command.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Label(id, set) => self.label(id, set),
            Command::Remove(id) => self.remove(id),
        }
    }

    /// Whether [`Nodes::admit`] would take this machine in.
    ///
    /// # Errors
    /// [`Rejected::Taken`] when another key speaks for that name, [`Rejected::Removed`] when this one did before.
    pub fn may_admit(&self, id: &NodeId, key: KeyFingerprint) -> Result<(), Rejected> {
        match self.standing(id, key) {
            Standing::Removed => Err(Rejected::Removed),
            Standing::OtherKey if self.member(id).is_some() => Err(Rejected::Taken(id.clone())),
            Standing::OtherKey | Standing::Member | Standing::Unknown => Ok(()),
        }
    }

    /// Takes a machine in: the consequence of a redeemed token. The same key again changes nothing.
    pub fn admit(&mut self, at: Timestamp, id: &NodeId, key: KeyFingerprint) {
        let fresh = || Node { key: None, enrolled_at: at, labels: BTreeMap::new(), former_keys: Vec::new() };
        let node = self.0.entry(id.clone(), fresh);
        if node.key != Some(key) {
            node.enrolled_at = at;
            node.key = Some(key);
        }
    }

    /// Whether this key may speak for that node.
    #[must_use]
    pub fn standing(&self, id: &NodeId, key: KeyFingerprint) -> Standing {
        match self.0.get(id) {
            None => Standing::Unknown,
            Some(node) if node.key == Some(key) => Standing::Member,
            Some(node) if node.former_keys.contains(&key) => Standing::Removed,
            Some(_) => Standing::OtherKey,
        }
    }

    /// A member by name.
    #[must_use]
    pub fn member(&self, id: &NodeId) -> Option<&Node> {
        self.0.get(id).filter(|node| node.key.is_some())
    }

    /// Every member, by name.
    pub fn members(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.0.iter().filter(|(_, node)| node.key.is_some())
    }

    fn label(&mut self, id: &NodeId, set: &BTreeMap<String, String>) -> Result<Consequence, Rejected> {
        if let Some((key, value)) = set.iter().find(|(key, value)| !is_label(key, value)) {
            return Err(Rejected::Label(format!("{key}={value}")));
        }
        let node = self.0.get_mut(id).filter(|node| node.key.is_some());
        let node = node.ok_or_else(|| Rejected::Unknown(id.to_string()))?;
        let kept = node.labels.keys().filter(|key| !set.contains_key(*key)).count();
        if kept + set.values().filter(|value| !value.is_empty()).count() > MAX_LABELS {
            return Err(Rejected::Labels);
        }
        for (key, value) in set {
            if value.is_empty() {
                node.labels.remove(key);
            } else {
                node.labels.insert(key.clone(), value.clone());
            }
        }
        Ok(Consequence::Labelled(node.labels.clone()))
    }

    fn remove(&mut self, id: &NodeId) -> Result<Consequence, Rejected> {
        let unknown = || Rejected::Unknown(id.to_string());
        let node = self.0.get_mut(id).ok_or_else(unknown)?;
        let key = node.key.take().ok_or_else(unknown)?;
        node.former_keys.push(key);
        node.labels.clear();
        Ok(Consequence::Removed(id.clone()))
    }
}

fn is_label(key: &str, value: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'/' | b'-');
    (1..=63).contains(&key.len()) && key.bytes().all(good) && value.len() <= 256
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn a_removed_node_may_come_back_with_a_new_key_only() {
        let (mut nodes, n1) = (Nodes::default(), node("n1"));
        nodes.admit(NOON, &n1, key(1));
        assert_eq!(nodes.standing(&n1, key(1)), Standing::Member);
        assert_eq!(nodes.may_admit(&n1, key(2)), Err(Rejected::Taken(n1.clone())));
        nodes.apply(&Command::Remove(n1.clone())).unwrap();
        assert_eq!(nodes.standing(&n1, key(1)), Standing::Removed);
        assert_eq!(nodes.may_admit(&n1, key(1)), Err(Rejected::Removed));
        assert_eq!(nodes.may_admit(&n1, key(2)), Ok(()));
        nodes.admit(NOON, &n1, key(2));
        assert_eq!(nodes.standing(&n1, key(1)), Standing::Removed);
        assert_eq!(nodes.standing(&n1, key(2)), Standing::Member);
        assert_eq!(nodes.standing(&n1, key(3)), Standing::OtherKey);
    }

    #[test]
    fn who_is_not_known_is_not_removed() {
        assert_eq!(Nodes::default().standing(&node("n1"), key(1)), Standing::Unknown);
    }

    #[test]
    fn labels_are_set_and_taken_away() {
        let (mut nodes, n1) = (Nodes::default(), node("n1"));
        nodes.admit(NOON, &n1, key(1));
        let set = |pairs: &[(&str, &str)]| {
            Command::Label(n1.clone(), pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        nodes.apply(&set(&[("zone", "a"), ("rack", "7")])).unwrap();
        nodes.apply(&set(&[("rack", "")])).unwrap();
        assert_eq!(nodes.member(&n1).unwrap().labels, BTreeMap::from([("zone".into(), "a".into())]));
        assert!(matches!(nodes.apply(&set(&[("Bad Key", "x")])), Err(Rejected::Label(_))));
        let many: Vec<String> = (0..65).map(|i| format!("k{i}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|k| (k.as_str(), "v")).collect();
        assert_eq!(nodes.apply(&set(&many)), Err(Rejected::Labels));
        assert_eq!(nodes.member(&n1).unwrap().labels.len(), 1);
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn key(byte: u8) -> KeyFingerprint {
        KeyFingerprint([byte; 32])
    }
}
