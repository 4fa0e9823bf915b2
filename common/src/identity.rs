//! Who a certificate speaks for: `spiffe://<cluster>/<role>/<name>`, parsed strictly.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{ClusterId, InvalidName, NodeId, ReplicaId, UserName};

/// What a person may do; each may do what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum HumanRole {
    /// Looks.
    #[n(0)]
    Viewer,
    /// Acts on runs, alerts, silences and drains.
    #[n(1)]
    Operator,
    /// Tokens, users, membership, policies, restores.
    #[n(2)]
    Admin,
}

impl HumanRole {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for HumanRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for HumanRole {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidIdentity::Role),
        }
    }
}

/// Who somebody is within one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The program on a node.
    Agent(NodeId),
    /// A member of the coordinator.
    Replica(ReplicaId),
    /// A person.
    User(HumanRole, UserName),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(node) => write!(f, "agent/{node}"),
            Self::Replica(replica) => write!(f, "replica/{replica}"),
            Self::User(role, user) => write!(f, "{role}/{user}"),
        }
    }
}

/// A subject and its cluster: what a certificate's one URI says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The trust domain.
    pub cluster: ClusterId,
    /// Who.
    pub subject: Subject,
}

/// Why a URI is no identity of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// Not `spiffe://cluster/role/name`.
    #[error("not of the form spiffe://CLUSTER/ROLE/NAME")]
    Form,
    /// A role nobody has.
    #[error("the role is none of agent, replica, viewer, operator, admin")]
    Role,
    /// A name with odd characters.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.cluster, self.subject)
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(uri: &str) -> Result<Self, InvalidIdentity> {
        let path = uri.strip_prefix("spiffe://").ok_or(InvalidIdentity::Form)?;
        let mut parts = path.split('/');
        let (Some(cluster), Some(role), Some(name), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidIdentity::Form);
        };
        let subject = match role {
            "agent" => Subject::Agent(name.parse()?),
            "replica" => Subject::Replica(name.parse()?),
            human => Subject::User(human.parse()?, name.parse()?),
        };
        Ok(Self { cluster: cluster.parse()?, subject })
    }
}

/// The one name under which every replica answers TLS, whatever its address.
#[must_use]
pub fn server_name(cluster: &ClusterId) -> String {
    format!("coordinator.{}.mainstay.internal", cluster.as_str().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_read_back() {
        for uri in
            ["spiffe://c1/agent/n1", "spiffe://c1/replica/r1", "spiffe://c1/viewer/eve", "spiffe://c1/admin/anna"]
        {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn nothing_but_the_exact_form_passes() {
        for uri in [
            "spiffe://c1/agent",
            "spiffe://c1/agent/a/../operator",
            "spiffe://c1/agent/n1/",
            "spiffe://c1//n1",
            "SPIFFE://c1/agent/n1",
            "spiffe://c1/agent/n%31",
            "spiffe://c1/root/n1",
            "https://c1/agent/n1",
            "spiffe://c1/agent/n1?x",
            "spiffe:///agent/n1",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }
}
