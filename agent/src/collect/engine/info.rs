//! What `/info` says of the engine and of its place in a Swarm.

use bollard::models::{LocalNodeState, SystemInfo};
use mainstay_common::state::SwarmState;

/// Where the engine keeps everything, where it does not tell.
const USUAL_ROOT: &str = "/var/lib/docker";

/// What is needed of `/info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The engine's version; empty where it does not tell.
    pub version: String,
    /// Where it keeps volumes and images.
    pub root: String,
    /// Its place in a Swarm.
    pub swarm: Membership,
}

/// An engine's place in a Swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Joining, a member, ...
    pub state: SwarmState,
    /// Its own id in the Swarm; empty where it is in none.
    pub node_id: String,
    /// The Swarm's id; told by managers only.
    pub cluster_id: String,
    /// Whether it is a manager that can be asked.
    pub manager: bool,
    /// What is wrong; empty if nothing.
    pub error: String,
}

impl Membership {
    /// True where the next look may well show something else.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        !matches!(self.state, SwarmState::Inactive | SwarmState::Active) || !self.error.is_empty()
    }
}

impl From<SystemInfo> for Info {
    fn from(info: SystemInfo) -> Self {
        let swarm = info.swarm.unwrap_or_default();
        let state = match swarm.local_node_state {
            // An engine that knows no Swarm is in none.
            None | Some(LocalNodeState::EMPTY | LocalNodeState::INACTIVE) => SwarmState::Inactive,
            Some(LocalNodeState::PENDING) => SwarmState::Pending,
            Some(LocalNodeState::ACTIVE) => SwarmState::Active,
            Some(LocalNodeState::ERROR) => SwarmState::Error,
            Some(LocalNodeState::LOCKED) => SwarmState::Locked,
        };
        Self {
            version: info.server_version.unwrap_or_default(),
            root: info.docker_root_dir.filter(|root| !root.is_empty()).unwrap_or_else(|| USUAL_ROOT.to_owned()),
            swarm: Membership {
                state,
                node_id: swarm.node_id.unwrap_or_default(),
                cluster_id: swarm.cluster.and_then(|cluster| cluster.id).unwrap_or_default(),
                manager: swarm.control_available.unwrap_or(false),
                error: swarm.error.unwrap_or_default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_of_20_10_that_manages_a_swarm() {
        let info = recorded(include_str!("../../../testdata/engine/info-1.41-manager.json"));
        assert_eq!((info.version.as_str(), info.root.as_str()), ("20.10.24+dfsg1", "/var/lib/docker"));
        assert_eq!((info.swarm.state, info.swarm.manager), (SwarmState::Active, true));
        assert!(!info.swarm.node_id.is_empty() && !info.swarm.cluster_id.is_empty());
        assert!(!info.swarm.is_unsettled());
    }

    #[test]
    fn an_engine_of_29_in_no_swarm() {
        let info = recorded(include_str!("../../../testdata/engine/info-1.52.json"));
        assert_eq!((info.version.as_str(), info.root.as_str()), ("29.0.1", "/srv/docker"));
        assert_eq!((info.swarm.state, info.swarm.manager), (SwarmState::Inactive, false));
    }

    #[test]
    fn a_locked_manager_and_a_failed_join_are_states() {
        let locked = recorded(
            r#"{"Swarm":{"NodeID":"","LocalNodeState":"locked","ControlAvailable":false,"Error":"Swarm is encrypted and needs to be unlocked before it can be used."}}"#,
        );
        assert_eq!((locked.swarm.state, locked.swarm.is_unsettled()), (SwarmState::Locked, true));
        let failed = recorded(r#"{"Swarm":{"LocalNodeState":"error","Error":"x509: certificate has expired"}}"#);
        assert_eq!(
            (failed.swarm.state, failed.swarm.error.as_str()),
            (SwarmState::Error, "x509: certificate has expired")
        );
        assert_eq!(recorded("{}").swarm.state, SwarmState::Inactive);
        assert_eq!(recorded("{}").root, "/var/lib/docker");
    }

    fn recorded(json: &str) -> Info {
        serde_json::from_str::<SystemInfo>(json).unwrap().into()
    }
}
