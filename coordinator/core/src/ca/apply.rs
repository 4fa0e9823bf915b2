//! How roots change.

use std::fmt;

use mainstay_common::{NodeId, Timestamp};
use minicbor::{Decode, Encode};

use super::model::{Holder, NewRoot, Phase, REMEMBERED, Root, Standing};
use crate::{Table, node::Nodes};

/// Names that a refusal lists.
const NAMED: usize = 20;
/// Bytes of the longest certificate or sealed key that is kept.
const MAX_BYTES: usize = 16 * 1024;

/// A step of a rotation that somebody saw at a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Step {
    /// The version that it starts from: asked twice, it is taken once.
    #[n(0)]
    pub version: u64,
    /// Even where that loses nodes.
    #[n(1)]
    pub force: bool,
}

/// How roots may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The first root, at the beginning of the cluster.
    #[n(0)]
    Adopt(#[n(0)] NewRoot),
    /// From settled to spreading.
    #[n(1)]
    Begin(#[n(0)] u64, #[n(1)] NewRoot),
    /// From spreading to replacing.
    #[n(2)]
    Issue(#[n(0)] Step),
    /// From replacing to settled.
    #[n(3)]
    Finish(#[n(0)] Step),
    /// One phase back.
    #[n(4)]
    Back(#[n(0)] Step),
    /// These have taken a version over. Many at once: a fleet does it within seconds.
    #[n(5)]
    Acknowledge(#[n(0)] Vec<Holder>, #[n(1)] u64),
}

/// What a command brought about. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// The roots are in this phase now.
    #[n(0)]
    Phase(#[n(0)] Phase),
    /// It is noted.
    #[n(1)]
    Acknowledged,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Somebody else took a step.
    #[error("the cluster's roots changed meanwhile")]
    Version,
    /// That step does not lead on from here.
    #[error("that cannot be done while the rotation is {}", .0.as_str())]
    Phase(Phase),
    /// Nodes would lose their way in.
    #[error("{} not acknowledged yet: {}", have(.0), named(.0))]
    Missing(Vec<NodeId>),
    /// A root that is none, or is there already.
    #[error("that root cannot be taken: {0}")]
    Root(&'static str),
}

fn have(nodes: &[NodeId]) -> String {
    match nodes {
        [_] => "1 node has".into(),
        nodes => format!("{} nodes have", nodes.len()),
    }
}

/// The first names of a list that may be long.
pub(crate) fn named<T: fmt::Display>(all: &[T]) -> String {
    let names: Vec<_> = all.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if all.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// Every root by its number, and who has acknowledged the version in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ca {
    pub(crate) roots: Table<u32, Root>,
    pub(crate) acknowledged: Table<Holder, u64>,
}

impl Ca {
    /// Applies the committed command of that index; `at` is the moment at which it was proposed.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(
        &mut self,
        index: u64,
        at: Timestamp,
        command: &Command,
        nodes: &Nodes,
    ) -> Result<Consequence, Rejected> {
        match command {
            Command::Adopt(root) => self.adopt(index, at, root),
            Command::Begin(version, root) => self.begin(index, at, *version, root),
            Command::Issue(step) => self.issue(index, *step, nodes),
            Command::Finish(step) => self.finish(index, at, *step, nodes),
            Command::Back(step) => self.back(index, at, *step, nodes),
            Command::Acknowledge(holders, version) => self.acknowledge(holders, *version),
        }
    }

    /// The root that issues, and its number; `None` only in a state that no `init` of ours made.
    #[must_use]
    pub fn issuing(&self) -> Option<(u32, &Root)> {
        self.roots.iter().find(|(_, root)| root.standing == Standing::Issuing).map(|(number, root)| (*number, root))
    }

    /// Roots whose certificates count, by number.
    pub fn trusted(&self) -> impl Iterator<Item = (u32, &Root)> {
        let counts = |root: &Root| !matches!(root.standing, Standing::Retired(_));
        self.roots.iter().filter(move |(_, root)| counts(root)).map(|(number, root)| (*number, root))
    }

    /// Every root that is remembered, by number.
    pub fn roots(&self) -> impl Iterator<Item = (u32, &Root)> {
        self.roots.iter().map(|(number, root)| (*number, root))
    }

    /// Where a rotation stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let issuing = self.issuing().map(|(number, _)| number);
        let other = self.trusted().map(|(number, _)| number).find(|number| Some(*number) != issuing);
        match other {
            None => Phase::Settled,
            Some(other) if Some(other) > issuing => Phase::Spreading,
            Some(_) => Phase::Replacing,
        }
    }

    /// Index of the last change; 0 where there is no root.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.roots.iter().map(|(_, root)| root.changed_at).max().unwrap_or(0)
    }

    /// Whether somebody has taken the version in force over.
    #[must_use]
    pub fn has_acknowledged(&self, holder: &Holder) -> bool {
        self.acknowledged.get(holder).is_some_and(|version| *version == self.version())
    }

    /// Members that have not taken the version in force over; nobody has to while all is settled.
    #[must_use]
    pub fn missing(&self, nodes: &Nodes) -> Vec<NodeId> {
        if self.phase() == Phase::Settled {
            return Vec::new();
        }
        let missing = nodes.members().map(|(node, _)| node.clone());
        missing.filter(|node| !self.has_acknowledged(&Holder::Node(node.clone()))).collect()
    }

    /// Adopting the same root again changes nothing: `init` and the first start may both have done it.
    fn adopt(&mut self, index: u64, at: Timestamp, root: &NewRoot) -> Result<Consequence, Rejected> {
        match self.issuing() {
            Some((_, there)) if there.key == root.key => Ok(Consequence::Phase(self.phase())),
            Some(_) => Err(Rejected::Root("the cluster has one")),
            None => self.put(index, at, root, Standing::Issuing),
        }
    }

    fn begin(&mut self, index: u64, at: Timestamp, version: u64, root: &NewRoot) -> Result<Consequence, Rejected> {
        self.expect(version, Phase::Settled)?;
        if self.roots.iter().any(|(_, there)| there.key == root.key) {
            return Err(Rejected::Root("its key was used before"));
        }
        let forgotten = |root: &Root| matches!(root.standing, Standing::Retired(since) if at.since(since) > REMEMBERED);
        let old: Vec<u32> = self.roots.iter().filter(|(_, root)| forgotten(root)).map(|(number, _)| *number).collect();
        for number in old {
            self.roots.remove(&number);
        }
        self.put(index, at, root, Standing::Trusted)
    }

    fn issue(&mut self, index: u64, step: Step, nodes: &Nodes) -> Result<Consequence, Rejected> {
        self.expect(step.version, Phase::Spreading)?;
        self.nobody_lost(step, nodes)?;
        self.swap(index);
        Ok(self.changed())
    }

    fn finish(&mut self, index: u64, at: Timestamp, step: Step, nodes: &Nodes) -> Result<Consequence, Rejected> {
        self.expect(step.version, Phase::Replacing)?;
        self.nobody_lost(step, nodes)?;
        self.retire(index, at);
        Ok(self.changed())
    }

    fn back(&mut self, index: u64, at: Timestamp, step: Step, nodes: &Nodes) -> Result<Consequence, Rejected> {
        let phase = self.phase();
        self.expect(step.version, phase)?;
        match phase {
            Phase::Settled => return Err(Rejected::Phase(phase)),
            Phase::Replacing => self.swap(index),
            Phase::Spreading => {
                // Nobody can hold a certificate of a root that never issued.
                if self.other().is_some_and(|(_, root)| root.issued) {
                    self.nobody_lost(step, nodes)?;
                }
                self.retire(index, at);
            }
        }
        Ok(self.changed())
    }

    fn acknowledge(&mut self, holders: &[Holder], version: u64) -> Result<Consequence, Rejected> {
        if version != self.version() {
            return Err(Rejected::Version);
        }
        if self.phase() == Phase::Settled {
            return Err(Rejected::Phase(Phase::Settled));
        }
        for holder in holders {
            self.acknowledged.insert(holder.clone(), version);
        }
        Ok(Consequence::Acknowledged)
    }

    fn expect(&self, version: u64, phase: Phase) -> Result<(), Rejected> {
        if version != self.version() {
            return Err(Rejected::Version);
        }
        if self.phase() == phase { Ok(()) } else { Err(Rejected::Phase(self.phase())) }
    }

    fn nobody_lost(&self, step: Step, nodes: &Nodes) -> Result<(), Rejected> {
        let missing = self.missing(nodes);
        if step.force || missing.is_empty() { Ok(()) } else { Err(Rejected::Missing(missing)) }
    }

    /// The one that counts beside the one that issues.
    fn other(&self) -> Option<(u32, &Root)> {
        self.trusted().find(|(_, root)| root.standing == Standing::Trusted)
    }

    fn put(&mut self, index: u64, at: Timestamp, new: &NewRoot, standing: Standing) -> Result<Consequence, Rejected> {
        let NewRoot { certificate, key, sealed, cross } = new.clone();
        let long = [certificate.len(), sealed.ciphertext.len(), cross.as_ref().map_or(0, String::len)];
        if certificate.is_empty() || long.into_iter().any(|bytes| bytes > MAX_BYTES) {
            return Err(Rejected::Root("it is no certificate"));
        }
        let number = self.roots.last().map_or(1, |(last, _)| last + 1);
        let issued = standing == Standing::Issuing;
        let sealed = Some(sealed);
        let root = Root { certificate, key, sealed, cross, made_at: at, standing, changed_at: index, issued };
        self.roots.insert(number, root);
        Ok(self.changed())
    }

    /// The root that issues and the other one change places.
    fn swap(&mut self, index: u64) {
        let numbers = [self.issuing().map(|(number, _)| number), self.other().map(|(number, _)| number)];
        for (number, standing) in numbers.into_iter().zip([Standing::Trusted, Standing::Issuing]) {
            if let Some(root) = number.and_then(|number| self.roots.get_mut(&number)) {
                root.standing = standing;
                root.changed_at = index;
                root.issued |= standing == Standing::Issuing;
            }
        }
    }

    /// The one that does not issue counts no more; its key is gone for ever.
    fn retire(&mut self, index: u64, at: Timestamp) {
        let Some((number, issued)) = self.other().map(|(number, root)| (number, root.issued)) else { return };
        if issued {
            if let Some(root) = self.roots.get_mut(&number) {
                (root.standing, root.sealed, root.changed_at) = (Standing::Retired(at), None, index);
            }
        } else {
            self.roots.remove(&number);
        }
        if let Some(root) = self.issuing().map(|(number, _)| number).and_then(|number| self.roots.get_mut(&number)) {
            root.changed_at = index;
        }
    }

    /// What was acknowledged is of another version now.
    fn changed(&mut self) -> Consequence {
        self.acknowledged = Table::default();
        Consequence::Phase(self.phase())
    }
}
