//! A node's place in its Swarm, and what its managers know, for scripts.

use mainstay_common::{Timestamp, state::SwarmState};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use super::row::rfc3339;

/// The place, and the view of the one manager that tells for all; of other nodes the view is `null`.
#[derive(Serialize)]
pub(crate) struct SwarmObject<'a> {
    state: Option<SwarmState>,
    manager: bool,
    node_id: &'a str,
    cluster_id: &'a str,
    availability: &'a str,
    reachability: &'a str,
    error: &'a str,
    nodes: Option<Vec<NodeObject<'a>>>,
    services: Option<Vec<ServiceObject<'a>>>,
    tasks: Option<Vec<TaskObject<'a>>>,
}

/// One of the Swarm's nodes.
#[derive(Serialize)]
struct NodeObject<'a> {
    id: &'a str,
    hostname: &'a str,
    role: &'a str,
    availability: &'a str,
    state: &'a str,
    reachability: &'a str,
    leader: bool,
    address: &'a str,
}

/// A service and how many tasks of it run; `null` where the engine does not count.
#[derive(Serialize)]
struct ServiceObject<'a> {
    id: &'a str,
    name: &'a str,
    mode: &'a str,
    image: &'a str,
    desired: Option<u64>,
    running: Option<u64>,
    update_state: &'a str,
}

/// A task.
#[derive(Serialize)]
struct TaskObject<'a> {
    id: &'a str,
    service_id: &'a str,
    node_id: &'a str,
    slot: u64,
    state: &'a str,
    desired_state: &'a str,
    error: &'a str,
    #[serde(serialize_with = "rfc3339")]
    state_at: Option<Timestamp>,
}

impl<'a> From<&'a pb::Swarm> for SwarmObject<'a> {
    fn from(swarm: &'a pb::Swarm) -> Self {
        let view = swarm.view.as_ref();
        Self {
            state: SwarmState::from_number(swarm.state),
            manager: swarm.manager,
            node_id: &swarm.node_id,
            cluster_id: &swarm.cluster_id,
            availability: &swarm.availability,
            reachability: &swarm.reachability,
            error: &swarm.error,
            nodes: view.map(|view| view.nodes.iter().map(node).collect()),
            services: view.map(|view| view.services.iter().map(service).collect()),
            tasks: view.map(|view| view.tasks.iter().map(task).collect()),
        }
    }
}

fn node(node: &pb::SwarmNode) -> NodeObject<'_> {
    NodeObject {
        id: &node.id,
        hostname: &node.hostname,
        role: &node.role,
        availability: &node.availability,
        state: &node.state,
        reachability: &node.reachability,
        leader: node.leader,
        address: &node.address,
    }
}

fn service(service: &pb::SwarmService) -> ServiceObject<'_> {
    ServiceObject {
        id: &service.id,
        name: &service.name,
        mode: &service.mode,
        image: &service.image,
        desired: service.desired,
        running: service.running,
        update_state: &service.update_state,
    }
}

fn task(task: &pb::SwarmTask) -> TaskObject<'_> {
    TaskObject {
        id: &task.id,
        service_id: &task.service_id,
        node_id: &task.node_id,
        slot: task.slot,
        state: &task.state,
        desired_state: &task.desired_state,
        error: &task.error,
        state_at: Some(Timestamp(task.state_at_ms)).filter(|at| at.0 > 0),
    }
}
