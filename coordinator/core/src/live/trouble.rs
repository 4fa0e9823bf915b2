//! What is worth a look, bad news first: what `mainstay status` shows as long as nobody wrote a rule.

use mainstay_common::{
    NodeId, Timestamp,
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, NodeState},
};

use super::{Engine, LiveView, NodeView, presence};
use crate::state::State;

/// One thing worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub node: NodeId,
    /// What kind of thing: `node`, `disk`, `mount`, `engine`, `container`, `collector`.
    pub noun: &'static str,
    /// Which.
    pub target: Vec<u8>,
    /// What state it is in.
    pub state: String,
    /// Since when, where known.
    pub since: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// 0 is worst.
    severity: u8,
}

/// Everything that is not as it should be, worst first. Of a node that is unreachable only that is said.
#[must_use]
pub fn troubles(state: &State, live: &LiveView, now: Timestamp) -> Vec<Trouble> {
    let mut found = Vec::new();
    for (id, node) in state.nodes.members() {
        let view = live.node(id);
        let presence = presence(view, node.enrolled_at, live.listening_since, now);
        let mut add = |severity, noun, target: &[u8], word: &str, since, reason: &str| {
            let (target, word, reason) = (target.to_vec(), word.to_owned(), reason.to_owned());
            found.push(Trouble { node: id.clone(), noun, target, state: word, since, reason, severity });
        };
        if matches!(presence.state, NodeState::Stale | NodeState::Unreachable) {
            let severity = u8::from(presence.state == NodeState::Stale);
            add(severity, "node", b"", presence.state.as_str(), presence.since, "no samples arrive");
        }
        if let Some(view) = view.filter(|_| presence.state != NodeState::Unreachable) {
            of_node(view, &mut add);
        }
    }
    found.sort_by(|a, b| (a.severity, &a.node, &a.target).cmp(&(b.severity, &b.node, &b.target)));
    found
}

fn of_node(view: &NodeView, add: &mut impl FnMut(u8, &'static str, &[u8], &str, Option<Timestamp>, &str)) {
    for (path, mount) in view.mounts.iter().flat_map(|seen| seen.rows.iter()) {
        let severity = match mount.state {
            MountState::Ok | MountState::Unknown => continue,
            MountState::Hung | MountState::Gone | MountState::Stale | MountState::Error => 0,
            MountState::Slow | MountState::Denied => 1,
        };
        add(severity, "mount", path, mount.state.as_str(), Some(view.corrected(mount.state_since)), &mount.reason);
    }
    for (path, disk) in view.disks.iter().flat_map(|seen| seen.rows.iter()) {
        match disk.state {
            DiskState::Error => add(0, "disk", path, disk.state.as_str(), None, &disk.reason),
            DiskState::Unknown => add(1, "disk", path, disk.state.as_str(), None, &disk.reason),
            DiskState::Ok | DiskState::Readonly => {}
        }
    }
    if let Some(engine) = view.engine.as_ref().filter(|engine| is_missed(engine, view)) {
        let since = Some(view.corrected(engine.state_since));
        add(0, "engine", b"docker", engine.state.as_str(), since, &engine.reason);
    }
    for (_, container) in view.containers.iter().flat_map(|seen| seen.rows.iter()).filter(|_| view.engine_answers()) {
        let name = container.name.as_bytes();
        if container.health == HealthState::Unhealthy {
            add(1, "container", name, "unhealthy", None, "its health check fails");
        } else if matches!(container.state, ContainerState::Restarting | ContainerState::Dead) {
            add(1, "container", name, container.state.as_str(), None, "");
        }
    }
    for error in view.errors.iter() {
        let since = Some(view.corrected(error.since));
        add(2, "collector", error.collector.as_bytes(), "error", since, &error.reason);
    }
}

/// A machine without an engine is as it should be, unless it had one.
fn is_missed(engine: &Engine, view: &NodeView) -> bool {
    match engine.state {
        EngineState::Ok => false,
        EngineState::Missing => !engine.version.is_empty() || view.containers.is_some(),
        EngineState::Refused | EngineState::Denied | EngineState::Timeout | EngineState::Error => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_engine_that_was_never_there_is_not_missed() {
        let engine = |state, version: &str| Engine {
            read_at: Timestamp(1),
            state,
            state_since: Timestamp(1),
            version: version.into(),
            root: String::new(),
            reason: "there is no socket".into(),
        };
        let found = |engine| {
            let mut found = Vec::new();
            let view = NodeView { engine: Some(Arc::new(engine)), ..NodeView::default() };
            of_node(&view, &mut |_, noun, _, word, _, _| found.push((noun, word.to_owned())));
            found
        };
        assert_eq!(found(engine(EngineState::Missing, "")), []);
        assert_eq!(found(engine(EngineState::Missing, "20.10")), [("engine", "missing".to_owned())]);
        assert_eq!(found(engine(EngineState::Denied, "")), [("engine", "denied".to_owned())]);
        assert_eq!(found(engine(EngineState::Ok, "20.10")), []);
    }
}
