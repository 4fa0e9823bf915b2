//! Nodes, and what their engines say of a Swarm.

use mainstay_common::{NodeId, metric::catalogue as m, state::NodeState};
use mainstay_core::{
    live::{self, NodeView},
    node::Node,
};
use mainstay_proto::v1 as pb;

use super::{Reading, lists, named, note};

pub(crate) fn node(reading: &Reading, id: &NodeId, node: &Node, view: Option<&NodeView>) -> pb::NodeRow {
    let presence = live::presence(view, node.enrolled_at, reading.live.listening_since, reading.now);
    let host = view.and_then(|view| view.host.as_ref());
    pb::NodeRow {
        name: id.to_string(),
        state: presence.state.number(),
        state_since_ms: presence.since.map(|at| at.0),
        version: view.and_then(|view| view.hello.as_ref()).map(|hello| hello.version.clone()).unwrap_or_default(),
        last_seen_ms: view.and_then(|view| view.last_seen).map(|at| at.0),
        labels: node.labels.clone().into_iter().collect(),
        cpus: host.and_then(|host| host.readings.count(&m::CPUS)).and_then(|cpus| u32::try_from(cpus).ok()),
        memory_bytes: host.and_then(|host| host.readings.count(&m::MEMORY_TOTAL_BYTES)),
    }
}

pub(crate) fn node_detail(
    reading: &Reading,
    id: &NodeId,
    member: &Node,
    view: Option<&NodeView>,
) -> pb::GetNodeResponse {
    let mut answer =
        pb::GetNodeResponse { row: Some(node(reading, id, member, view)), ..pb::GetNodeResponse::default() };
    let Some(view) = view else { return answer };
    let lost = live::presence(Some(view), member.enrolled_at, reading.live.listening_since, reading.now).state
        == NodeState::Unreachable;
    let mut detail = pb::Detail::default();
    if let Some(host) = &view.host {
        named(&mut detail, &host.readings);
        for (name, text) in [
            ("hostname", &host.hostname),
            ("os", &host.os),
            ("kernel", &host.kernel),
            ("architecture", &host.architecture),
        ] {
            note(&mut detail, name, text.as_bytes());
        }
        let flag = |value: Option<bool>| value.map_or("?", |value| if value { "yes" } else { "no" });
        note(&mut detail, "reboot_required", flag(host.reboot_required).as_bytes());
        note(&mut detail, "clock_synchronized", flag(host.clock_synchronized).as_bytes());
        for (mode, seconds) in &host.cpu {
            let (name, unit) = (format!("{}{{mode={mode}}}", m::CPU_SECONDS_TOTAL.name), "seconds".to_owned());
            detail.readings.push(pb::NamedReading { name, unit, value: *seconds });
        }
        answer.links = host
            .links
            .iter()
            .map(|link| pb::Link { name: link.name.clone(), readings: lists(&link.readings) })
            .collect();
    }
    answer.disks = view.disks.as_ref().map(|seen| seen.rows.len() as u64);
    answer.mounts = view.mounts.as_ref().map(|seen| seen.rows.len() as u64);
    answer.volumes = view.volumes.as_ref().map(|seen| seen.rows.len() as u64);
    answer.containers = view.containers.as_ref().map(|seen| seen.rows.len() as u64);
    named(&mut detail, &view.agent);
    if view.clock_ahead_ms != 0 {
        let word = if view.clock_ahead_ms > 0 { "ahead" } else { "behind" };
        let span = std::time::Duration::from_millis(view.clock_ahead_ms.unsigned_abs());
        note(
            &mut detail,
            "clock",
            format!("{} {word} of the coordinator's", mainstay_common::time::span(span)).as_bytes(),
        );
    }
    answer.detail = Some(detail);
    answer.errors = view
        .errors
        .iter()
        .map(|error| pb::CollectorError {
            collector: error.collector.clone(),
            reason: error.reason.clone(),
            since_ms: view.corrected(error.since).0,
        })
        .collect();
    answer.engine = view.engine.as_ref().filter(|_| !lost).map(|engine| pb::Engine {
        read_at_ms: view.corrected(engine.read_at).0,
        state: engine.state.number(),
        state_since_ms: view.corrected(engine.state_since).0,
        version: engine.version.clone(),
        root: engine.root.clone(),
        reason: engine.reason.clone(),
    });
    answer.swarm = view.swarm.as_ref().filter(|_| !lost).map(|swarm| swarm_row(view, swarm));
    answer
}

fn swarm_row(view: &NodeView, swarm: &live::Swarm) -> pb::Swarm {
    pb::Swarm {
        read_at_ms: view.corrected(swarm.read_at).0,
        state: swarm.state.number(),
        node_id: swarm.node_id.clone(),
        cluster_id: swarm.cluster_id.clone(),
        manager: swarm.manager,
        error: swarm.error.clone(),
        availability: swarm.availability.clone(),
        reachability: swarm.reachability.clone(),
        view: swarm.view.as_ref().map(|seen| swarm_view(view, seen)),
        view_digest: swarm.view_digest,
    }
}

fn swarm_view(view: &NodeView, seen: &live::SwarmView) -> pb::SwarmView {
    let node = |node: &live::SwarmNode| pb::SwarmNode {
        id: node.id.clone(),
        hostname: node.hostname.clone(),
        role: node.role.clone(),
        availability: node.availability.clone(),
        state: node.state.clone(),
        reachability: node.reachability.clone(),
        leader: node.leader,
        address: node.address.clone(),
    };
    let service = |service: &live::SwarmService| pb::SwarmService {
        id: service.id.clone(),
        name: service.name.clone(),
        mode: service.mode.clone(),
        image: service.image.clone(),
        desired: service.desired,
        running: service.running,
        update_state: service.update_state.clone(),
    };
    let task = |task: &live::SwarmTask| pb::SwarmTask {
        id: task.id.clone(),
        service_id: task.service_id.clone(),
        node_id: task.node_id.clone(),
        slot: task.slot,
        state: task.state.clone(),
        desired_state: task.desired_state.clone(),
        error: task.error.clone(),
        state_at_ms: task.state_at.0,
    };
    pb::SwarmView {
        read_at_ms: view.corrected(seen.read_at).0,
        nodes: seen.nodes.iter().map(node).collect(),
        services: seen.services.iter().map(service).collect(),
        tasks: seen.tasks.iter().map(task).collect(),
    }
}
