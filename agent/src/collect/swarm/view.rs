//! What a Swarm's managers know, in our words. Pure.

use bollard::models::{Node, Service, ServiceSpecMode, Task};
use mainstay_common::Timestamp;
use mainstay_proto::v1 as pb;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::collect::engine::moment;

/// The longest text of a task's error.
const ERROR_BYTES: usize = 256;

/// Everything, in the order of ids, so that two managers who know the same say the same.
pub(super) fn view(nodes: Vec<Node>, services: Vec<Service>, tasks: Vec<Task>, read_at: Timestamp) -> pb::SwarmView {
    let mut view = pb::SwarmView {
        read_at_ms: read_at.0,
        nodes: nodes.into_iter().filter_map(node).collect(),
        services: services.into_iter().filter_map(service).collect(),
        tasks: tasks.into_iter().filter_map(task).collect(),
    };
    view.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    view.services.sort_by(|a, b| a.id.cmp(&b.id));
    view.tasks.sort_by(|a, b| a.id.cmp(&b.id));
    view
}

/// Tells whether two views are the same, whenever they were read; never 0, which is "no view".
pub(super) fn digest(view: &pb::SwarmView) -> u64 {
    let timeless = pb::SwarmView { read_at_ms: 0, ..view.clone() };
    let hash = Sha256::digest(timeless.encode_to_vec());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first).max(1)
}

fn node(node: Node) -> Option<pb::SwarmNode> {
    let (spec, status) = (node.spec.unwrap_or_default(), node.status.unwrap_or_default());
    let manager = node.manager_status.unwrap_or_default();
    Some(pb::SwarmNode {
        id: node.id?,
        hostname: node.description.and_then(|description| description.hostname).unwrap_or_default(),
        role: word(spec.role),
        availability: word(spec.availability),
        state: word(status.state),
        reachability: word(manager.reachability),
        leader: manager.leader.unwrap_or(false),
        address: status.addr.unwrap_or_default(),
    })
}

fn service(service: Service) -> Option<pb::SwarmService> {
    let spec = service.spec.unwrap_or_default();
    // Engines before 1.41 do not count: unknown.
    let counts = service.service_status.unwrap_or_default();
    let container = spec.task_template.and_then(|template| template.container_spec);
    Some(pb::SwarmService {
        id: service.id?,
        name: spec.name.unwrap_or_default(),
        mode: mode(&spec.mode.unwrap_or_default()).to_owned(),
        image: container.and_then(|container| container.image).unwrap_or_default(),
        desired: counts.desired_tasks,
        running: counts.running_tasks,
        update_state: word(service.update_status.and_then(|update| update.state)),
    })
}

fn mode(mode: &ServiceSpecMode) -> &'static str {
    let words = [
        (mode.replicated.is_some(), "replicated"),
        (mode.global.is_some(), "global"),
        (mode.replicated_job.is_some(), "replicated-job"),
        (mode.global_job.is_some(), "global-job"),
    ];
    words.into_iter().find(|(is, _)| *is).map_or("", |(_, word)| word)
}

fn task(task: Task) -> Option<pb::SwarmTask> {
    let status = task.status.unwrap_or_default();
    let mut error = status.err.unwrap_or_default();
    error.truncate(error.floor_char_boundary(ERROR_BYTES));
    Some(pb::SwarmTask {
        id: task.id?,
        service_id: task.service_id.unwrap_or_default(),
        node_id: task.node_id.unwrap_or_default(),
        slot: task.slot.and_then(|slot| u64::try_from(slot).ok()).unwrap_or(0),
        state: word(status.state),
        desired_state: word(task.desired_state),
        error,
        state_at_ms: status.timestamp.and_then(|at| moment(&at)).map_or(0, |at| at.0),
    })
}

fn word(state: Option<impl ToString>) -> String {
    state.map(|state| state.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_manager_with_one_service() {
        let view = recorded();
        let node = &view.nodes[0];
        assert_eq!((node.hostname.as_str(), node.role.as_str(), node.state.as_str()), ("vm", "manager", "ready"));
        assert_eq!((node.availability.as_str(), node.reachability.as_str()), ("active", "reachable"));
        assert!(node.leader);
        let service = &view.services[0];
        assert_eq!(
            (service.name.as_str(), service.mode.as_str(), service.image.as_str()),
            ("svc", "replicated", "bb:1")
        );
        assert_eq!((service.desired, service.running), (Some(1), Some(1)));
        let task = &view.tasks[0];
        assert_eq!((task.state.as_str(), task.desired_state.as_str(), task.slot), ("running", "running", 1));
        assert_eq!((task.service_id.as_str(), task.node_id.as_str()), (service.id.as_str(), node.id.as_str()));
        assert_eq!(Timestamp(task.state_at_ms).to_string(), "2026-11-25T20:27:22.298Z");
    }

    #[test]
    fn an_engine_that_does_not_count_tasks_leaves_them_unknown() {
        let old: Service = serde_json::from_str(r#"{"ID":"a","Spec":{"Name":"agent","Mode":{"Global":{}}}}"#).unwrap();
        let service = service(old).unwrap();
        assert_eq!((service.mode.as_str(), service.desired, service.running), ("global", None, None));
    }

    #[test]
    fn the_digest_is_of_what_is_known_not_of_when() {
        let view = recorded();
        let later = pb::SwarmView { read_at_ms: 99, ..view.clone() };
        assert_eq!(digest(&view), digest(&later));
        let mut other = view.clone();
        other.nodes[0].availability = "drain".into();
        assert_ne!(digest(&view), digest(&other));
        assert_ne!(digest(&pb::SwarmView::default()), 0);
    }

    fn recorded() -> pb::SwarmView {
        view(
            serde_json::from_str(include_str!("../../../testdata/engine/nodes-1.41.json")).unwrap(),
            serde_json::from_str(include_str!("../../../testdata/engine/services-1.41.json")).unwrap(),
            serde_json::from_str(include_str!("../../../testdata/engine/tasks-1.41.json")).unwrap(),
            Timestamp(5),
        )
    }
}
