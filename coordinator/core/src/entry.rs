//! What the log carries: a command, and who wanted it, when and from where.

use std::fmt;

use mainstay_common::{NodeId, ReplicaId, Timestamp, TokenId, UserName, identity::HumanRole};
use minicbor::{Decode, Encode};

use crate::{alert, ca, cluster, declare, node, notify, token, user};

/// The version of entries that this program knows. A replica ends where it meets a later one, so nothing is proposed that
/// some member does not know.
pub const VERSION: u32 = 2;

/// One entry of the log. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// When it was proposed, by the clock of the replica that proposed it. All time that commands know.
    #[n(0)]
    pub at: Timestamp,
    /// Who wanted it.
    #[n(1)]
    pub actor: Actor,
    /// Where the wish came from.
    #[n(2)]
    pub from: Origin,
    /// The caller's own name for the request: who does not know what came of it sends it again under the same name.
    #[n(3)]
    pub request: Option<String>,
    /// What shall change.
    #[n(4)]
    pub command: Command,
    /// A digest of what was asked for under that name, where the command alone does not tell: it may hold what is made
    /// anew at every attempt, as a moment is.
    #[n(5)]
    pub asked: Option<u64>,
    /// The replica that proposed it; `None` in entries of earlier versions.
    #[n(6)]
    pub through: Option<ReplicaId>,
}

impl Entry {
    /// The first version that takes it as it is meant: others do not know its kind, or leave out what changes the state.
    #[must_use]
    pub fn version(&self) -> u32 {
        let has_fields = self.asked.is_some()
            || match &self.command {
                Command::Cluster(command) => matches!(command, cluster::Command::Advertise(.., Some(_))),
                Command::Token(token::Command::Join(shown)) => shown.version.is_some(),
                Command::Token(_)
                | Command::Node(_)
                | Command::User(_)
                | Command::Alert(_)
                | Command::Notify(_)
                | Command::Declare(_)
                | Command::Ca(_) => false,
            };
        self.command.version().max(if has_fields { 2 } else { 1 })
    }
}

/// Who wanted something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Actor {
    /// A person, and what they may do.
    #[n(0)]
    Human(#[n(0)] UserName, #[n(1)] HumanRole),
    /// A node's agent.
    #[n(1)]
    Agent(#[n(0)] NodeId),
    /// A replica, about itself.
    #[n(2)]
    Replica(#[n(0)] ReplicaId),
    /// The control loop of the leader.
    #[n(3)]
    Leader,
    /// Root on a replica's machine, over the admin socket or by `init`.
    #[n(4)]
    Root,
    /// A machine that shows a join token.
    #[n(5)]
    Token(#[n(0)] TokenId),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Human(name, role) => write!(f, "{role}/{name}"),
            Self::Agent(node) => write!(f, "agent/{node}"),
            Self::Replica(replica) => write!(f, "replica/{replica}"),
            Self::Leader => f.write_str("leader"),
            Self::Root => f.write_str("root"),
            Self::Token(token) => write!(f, "token/{token}"),
        }
    }
}

/// Where a wish came from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Origin {
    /// The network: the peer's address as text.
    #[n(0)]
    Peer(#[n(0)] String),
    /// A replica by its own doing.
    #[n(1)]
    Replica(#[n(0)] ReplicaId),
    /// The root-only socket, or a program on the replica's machine.
    #[n(2)]
    Socket,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => f.write_str(address),
            Self::Replica(replica) => write!(f, "replica {replica}"),
            Self::Socket => f.write_str("this machine"),
        }
    }
}

/// How the state may change. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// About the cluster.
    #[n(0)]
    Cluster(#[n(0)] cluster::Command),
    /// About nodes.
    #[n(1)]
    Node(#[n(0)] node::Command),
    /// About tokens.
    #[n(2)]
    Token(#[n(0)] token::Command),
    /// About users.
    #[n(3)]
    User(#[n(0)] user::Command),
    /// About alerts.
    #[n(4)]
    Alert(#[n(0)] alert::Command),
    /// About notifications.
    #[n(5)]
    Notify(#[n(0)] notify::Command),
    /// Declared receivers, routes and rules.
    #[n(6)]
    Declare(#[n(0)] declare::Declare),
    /// About the cluster's roots.
    #[n(7)]
    Ca(#[n(0)] ca::Command),
}

impl Command {
    /// Every kind of command there is, noun and verb.
    pub const KINDS: [&str; 33] = [
        "cluster advertise",
        "cluster remove",
        "cluster backup",
        "cluster restore",
        "node label",
        "node remove",
        "token create",
        "token redeem",
        "token revoke",
        "token join",
        "user add",
        "user revoke",
        "user reissue",
        "alert pend",
        "alert fire",
        "alert escalate",
        "alert resolve",
        "alert drop",
        "alert turn",
        "alert unknown",
        "alert known",
        "delivery claim",
        "delivery delivered",
        "delivery again",
        "delivery give-up",
        "receiver test",
        "declaration apply",
        "ca adopt",
        "ca begin",
        "ca issue",
        "ca finish",
        "ca back",
        "ca acknowledge",
    ];

    /// Its kind: one of [`Command::KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cluster(cluster::Command::Advertise(..)) => "cluster advertise",
            Self::Cluster(cluster::Command::Remove(..)) => "cluster remove",
            Self::Cluster(cluster::Command::Backup) => "cluster backup",
            Self::Cluster(cluster::Command::Restore(..)) => "cluster restore",
            Self::Node(node::Command::Label(..)) => "node label",
            Self::Node(node::Command::Remove(..)) => "node remove",
            Self::Token(token::Command::Create(..)) => "token create",
            Self::Token(token::Command::Redeem(..)) => "token redeem",
            Self::Token(token::Command::Revoke(..)) => "token revoke",
            Self::Token(token::Command::Join(..)) => "token join",
            Self::User(user::Command::Add(..)) => "user add",
            Self::User(user::Command::Revoke(..)) => "user revoke",
            Self::User(user::Command::Reissue(..)) => "user reissue",
            Self::Alert(alert::Command::Pend(..)) => "alert pend",
            Self::Alert(alert::Command::Fire(..)) => "alert fire",
            Self::Alert(alert::Command::Escalate(..)) => "alert escalate",
            Self::Alert(alert::Command::Resolve(..)) => "alert resolve",
            Self::Alert(alert::Command::Drop(..)) => "alert drop",
            Self::Alert(alert::Command::Turn(..)) => "alert turn",
            Self::Alert(alert::Command::Unknown(..)) => "alert unknown",
            Self::Alert(alert::Command::Known(..)) => "alert known",
            Self::Notify(notify::Command::Claim(..)) => "delivery claim",
            Self::Notify(notify::Command::Delivered(..)) => "delivery delivered",
            Self::Notify(notify::Command::Again(..)) => "delivery again",
            Self::Notify(notify::Command::GiveUp(..)) => "delivery give-up",
            Self::Notify(notify::Command::Test(..)) => "receiver test",
            Self::Declare(..) => "declaration apply",
            Self::Ca(ca::Command::Adopt(..)) => "ca adopt",
            Self::Ca(ca::Command::Begin(..)) => "ca begin",
            Self::Ca(ca::Command::Issue(..)) => "ca issue",
            Self::Ca(ca::Command::Finish(..)) => "ca finish",
            Self::Ca(ca::Command::Back(..)) => "ca back",
            Self::Ca(ca::Command::Acknowledge(..)) => "ca acknowledge",
        }
    }

    /// The first version that knows its kind.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Self::Cluster(cluster::Command::Backup | cluster::Command::Restore(..)) => 2,
            Self::Cluster(cluster::Command::Advertise(..) | cluster::Command::Remove(..))
            | Self::Node(_)
            | Self::Token(_)
            | Self::User(_)
            | Self::Alert(_)
            | Self::Notify(_)
            | Self::Declare(_)
            | Self::Ca(_) => 1,
        }
    }

    /// Whether it is taken even when the disk is nearly full: what shuts somebody out, what warns, and what records what
    /// has happened already. A coordinator that runs full must be able to say so; everything else can wait for room.
    #[must_use]
    pub fn is_essential(&self) -> bool {
        match self {
            Self::Node(command) => matches!(command, node::Command::Remove(..)),
            Self::Token(command) => matches!(command, token::Command::Revoke(..)),
            // Root's way in must stay open, or nobody could make room.
            Self::User(command) => matches!(command, user::Command::Revoke(..) | user::Command::Reissue(..)),
            Self::Alert(_) => true,
            Self::Notify(command) => !matches!(command, notify::Command::Test(..)),
            // A root that may be known to others must end also on a full disk.
            Self::Ca(command) => matches!(command, ca::Command::Finish(..)),
            // When disks run full is when somebody wants a backup.
            Self::Cluster(command) => matches!(command, cluster::Command::Remove(..) | cluster::Command::Backup),
            Self::Declare(_) => false,
        }
    }
}
