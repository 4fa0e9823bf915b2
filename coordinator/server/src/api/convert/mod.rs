//! From core's words to the wire's.

pub(crate) mod alert;
pub(crate) mod declare;

use std::sync::Arc;

use mainstay_common::{
    NodeId, Timestamp,
    metric::{Readings, catalogue as m},
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, NodeState, RemoteState},
};
use mainstay_core::{
    State,
    live::{self, Container, Disk, LiveView, Mount, NodeView, Seen, Volume},
    node::Node,
};
use mainstay_proto::v1 as pb;
use tonic::Status;

use crate::api::failure;

/// State and view of one moment.
pub(crate) struct Reading {
    pub(crate) state: Arc<State>,
    pub(crate) live: Arc<LiveView>,
    pub(crate) now: Timestamp,
}

/// One node's view.
pub(crate) struct At<'a> {
    pub(crate) id: &'a NodeId,
    pub(crate) view: &'a NodeView,
    /// It is unreachable: states of its things are unknown, values only age.
    pub(crate) lost: bool,
}

impl Reading {
    /// Members that a name or glob matches; every one where it is empty. A plain name that nobody has is an error.
    pub(crate) fn nodes<'a>(
        &'a self,
        pattern: &'a str,
    ) -> Result<impl Iterator<Item = (&'a NodeId, &'a Node, Option<&'a NodeView>)> + 'a, Status> {
        let plain = !pattern.is_empty() && !pattern.contains(['*', '?', '[', '{']);
        if plain && !pattern.parse().is_ok_and(|id| self.state.nodes.member(&id).is_some()) {
            return Err(failure::node_unknown(pattern, &self.state));
        }
        Ok(self
            .state
            .nodes
            .members()
            .filter(move |(id, _)| pattern.is_empty() || glob_match::glob_match(pattern, id.as_str()))
            .map(|(id, node)| (id, node, self.live.node(id))))
    }
}

impl<'a> At<'a> {
    /// Rows of a table, with their keys.
    pub(crate) fn rows<R: Clone>(
        &self,
        table: Option<&'a Seen<R>>,
        filter: &'a pb::ListRequest,
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a R)> + use<'a, R> {
        table
            .into_iter()
            .flat_map(|seen| seen.rows.iter())
            .filter(|(key, _)| filter.name.is_empty() || **key == filter.name)
            .map(|(key, row)| (key, row.as_ref()))
    }

    fn moment(&self, own: Option<Timestamp>, table: Option<Timestamp>) -> Option<i64> {
        own.map(|at| self.view.corrected(at)).or(table).map(|at| at.0)
    }
}

pub(crate) fn status(reading: &Reading) -> pb::GetStatusResponse {
    let mut nodes: Vec<pb::NodeCount> = Vec::new();
    let mut status = pb::GetStatusResponse::default();
    for (id, node) in reading.state.nodes.members() {
        let view = reading.live.node(id);
        let state = live::presence(view, node.enrolled_at, reading.live.listening_since, reading.now).state.number();
        match nodes.iter_mut().find(|count| count.state == state) {
            Some(count) => count.count += 1,
            None => nodes.push(pb::NodeCount { state, count: 1 }),
        }
        let Some(view) = view else { continue };
        status.disks += view.disks.as_ref().map_or(0, |seen| seen.rows.len() as u64);
        status.mounts += view.mounts.as_ref().map_or(0, |seen| seen.rows.len() as u64);
        status.volumes += view.volumes.as_ref().map_or(0, |seen| seen.rows.len() as u64);
        status.containers += view.containers.as_ref().map_or(0, |seen| seen.rows.len() as u64);
    }
    nodes.sort_by_key(|count| count.state);
    status.nodes = nodes;
    alert::summarise(reading, &mut status);
    status.troubles = live::troubles(&reading.state, &reading.live, reading.now).into_iter().map(trouble).collect();
    status
}

fn trouble(found: live::Trouble) -> pb::Trouble {
    pb::Trouble {
        node: found.node.to_string(),
        noun: found.noun.into(),
        target: found.target,
        state: found.state,
        since_ms: found.since.unwrap_or_default().0,
        reason: found.reason,
    }
}

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

pub(crate) fn disk(at: &At<'_>, mount: &[u8], disk: &Disk, detail: bool) -> pb::DiskRow {
    let table = at.view.disks.as_ref().map(|seen| seen.read_at);
    let readings = &disk.readings;
    pb::DiskRow {
        node: at.id.to_string(),
        mount: mount.to_vec(),
        device: disk.device.clone(),
        fs: disk.fs.clone(),
        total_bytes: readings.count(&m::DISK_TOTAL_BYTES),
        used_bytes: readings.count(&m::DISK_USED_BYTES),
        avail_bytes: readings.count(&m::DISK_AVAILABLE_BYTES),
        inodes_used: readings.count(&m::DISK_INODES_USED),
        inodes_total: readings.count(&m::DISK_INODES_TOTAL),
        state: if at.lost { DiskState::Unknown } else { disk.state }.number(),
        read_at_ms: at.moment(disk.read_at, table),
        detail: detail.then(|| {
            let mut detail = pb::Detail::default();
            named(&mut detail, readings);
            disk.aliases.iter().for_each(|alias| note(&mut detail, "alias", alias));
            note(&mut detail, "reason", disk.reason.as_bytes());
            detail
        }),
    }
}

pub(crate) fn mount(at: &At<'_>, path: &[u8], mount: &Mount, detail: bool) -> pb::MountRow {
    let table = at.view.mounts.as_ref().map(|seen| seen.read_at);
    let readings = &mount.readings;
    let queued = readings.count(&m::RCLONE_UPLOADS_QUEUED);
    let active = readings.count(&m::RCLONE_UPLOADS_ACTIVE);
    pb::MountRow {
        node: at.id.to_string(),
        path: path.to_vec(),
        source: mount.source.clone(),
        fs: mount.fs.clone(),
        state: if at.lost { MountState::Unknown } else { mount.state }.number(),
        state_since_ms: (!at.lost).then(|| at.view.corrected(mount.state_since).0),
        remote_state: if at.lost { RemoteState::Unknown } else { mount.remote_state }.number(),
        latency_ms: readings.get(&m::MOUNT_LATENCY_SECONDS).map(|seconds| seconds * 1_000.0),
        total_bytes: readings.count(&m::MOUNT_TOTAL_BYTES),
        used_bytes: readings.count(&m::MOUNT_USED_BYTES),
        avail_bytes: readings.count(&m::MOUNT_AVAILABLE_BYTES),
        // What is not uploaded yet: queued and in progress are disjoint.
        upload_queue: queued.map(|queued| queued + active.unwrap_or(0)),
        cache_bytes: readings.count(&m::RCLONE_CACHE_USED_BYTES),
        read_at_ms: at.moment(mount.read_at, table),
        detail: detail.then(|| mount_detail(mount)),
    }
}

fn mount_detail(mount: &Mount) -> pb::Detail {
    let mut detail = pb::Detail::default();
    named(&mut detail, &mount.readings);
    mount.aliases.iter().for_each(|alias| note(&mut detail, "alias", alias));
    note(&mut detail, "reason", mount.reason.as_bytes());
    if let Some(rclone) = &mount.rclone {
        note(&mut detail, "rclone_rc", rclone.rc_state.as_str().as_bytes());
        note(&mut detail, "rclone_version", rclone.version.as_bytes());
        // 0 while its process is looked for, or was not found: nobody's.
        if rclone.pid != 0 {
            note(&mut detail, "rclone_pid", rclone.pid.to_string().as_bytes());
        }
        note(&mut detail, "rclone_unit", rclone.unit.as_bytes());
        note(&mut detail, "rclone_last_error", rclone.last_error.as_bytes());
        if rclone.rc_open {
            note(&mut detail, "rclone_rc_open", b"runs commands for anyone who reaches its port");
        }
    }
    detail
}

pub(crate) fn volume(at: &At<'_>, name: &[u8], volume: &Volume, detail: bool) -> pb::VolumeRow {
    let known = !at.lost && at.view.engine_answers();
    pb::VolumeRow {
        node: at.id.to_string(),
        name: name.to_vec(),
        driver: volume.driver.clone(),
        size_bytes: volume.readings.count(&m::VOLUME_SIZE_BYTES),
        measured_at_ms: volume.measured_at.map(|moment| at.view.corrected(moment).0),
        in_use: volume.in_use.filter(|_| known),
        read_at_ms: at.view.volumes.as_ref().map(|seen| seen.read_at.0),
        detail: detail.then(|| {
            let mut detail = pb::Detail::default();
            named(&mut detail, &volume.readings);
            volume.used_by.iter().for_each(|name| note(&mut detail, "used_by", name.as_bytes()));
            note(&mut detail, "source", &volume.source);
            note(&mut detail, "reason", volume.reason.as_bytes());
            detail
        }),
    }
}

pub(crate) fn container(at: &At<'_>, id: &[u8], container: &Container, detail: bool) -> pb::ContainerRow {
    let known = !at.lost && at.view.engine_answers();
    let readings = &container.readings;
    pb::ContainerRow {
        node: at.id.to_string(),
        name: container.name.clone(),
        image: container.image.clone(),
        state: if known { container.state } else { ContainerState::Unknown }.number(),
        health: if known { container.health } else { HealthState::Unknown }.number(),
        cpu_percent: container.cpu_percent.filter(|_| known),
        memory_bytes: readings.count(&m::CONTAINER_MEMORY_USED_BYTES).filter(|_| known),
        restarts: readings.count(&m::CONTAINER_RESTARTS_TOTAL),
        read_at_ms: at.view.containers.as_ref().map(|seen| seen.read_at.0),
        detail: detail.then(|| {
            let mut detail = pb::Detail::default();
            named(&mut detail, readings);
            note(&mut detail, "id", id);
            for (name, text) in
                [("service", &container.service), ("task", &container.task), ("stack", &container.stack)]
            {
                note(&mut detail, name, text.as_bytes());
            }
            if let Some(started_at) = container.started_at {
                note(&mut detail, "started_at", at.view.corrected(started_at).to_string().as_bytes());
            }
            if let Some(code) = container.exit_code {
                note(&mut detail, "exit_code", code.to_string().as_bytes());
            }
            container
                .labels
                .iter()
                .for_each(|(key, value)| note(&mut detail, "label", format!("{key}={value}").as_bytes()));
            detail
        }),
    }
}

/// Why containers and volumes of a node are not known now, if they are not.
pub(crate) fn engine_unknown(at: &At<'_>) -> Option<pb::Trouble> {
    let engine = at.view.engine.as_ref()?;
    let word = if at.lost { "unreachable" } else { engine.state.as_str() };
    (at.lost || engine.state != EngineState::Ok).then(|| pb::Trouble {
        node: at.id.to_string(),
        noun: "engine".into(),
        target: Vec::new(),
        state: word.into(),
        since_ms: at.view.corrected(engine.state_since).0,
        reason: engine.reason.clone(),
    })
}

fn named(detail: &mut pb::Detail, readings: &Readings) {
    detail.readings.extend(readings.iter().map(|(metric, value)| pb::NamedReading {
        name: metric.name.into(),
        unit: metric.unit.as_str().into(),
        value,
    }));
}

/// Notes that say nothing are left out.
fn note(detail: &mut pb::Detail, name: &str, text: &[u8]) {
    if !text.is_empty() {
        detail.notes.push(pb::Note { name: name.into(), text: text.to_vec() });
    }
}

fn lists(readings: &Readings) -> Option<pb::Readings> {
    let (metric, value) = readings.to_lists();
    Some(pb::Readings { metric, value })
}

#[cfg(test)]
mod tests {
    use mainstay_common::state::{RcState, SwarmState};
    use mainstay_core::live::Rclone;
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_process_that_is_not_known_has_no_number() {
        let told = |pid| {
            let rclone = Rclone {
                rc_state: RcState::None,
                version: String::new(),
                pid,
                unit: String::new(),
                rc_open: false,
                last_error: String::new(),
            };
            let mount = Mount {
                source: b"r:".to_vec(),
                fs: "fuse.rclone".into(),
                state: MountState::Gone,
                state_since: Timestamp(0),
                remote_state: RemoteState::Unknown,
                readings: Readings::new(),
                read_at: None,
                reason: String::new(),
                aliases: Vec::new(),
                rclone: Some(rclone),
            };
            let notes = mount_detail(&mount).notes.into_iter();
            notes.filter(|note| note.name == "rclone_pid").map(|note| note.text).collect::<Vec<_>>()
        };
        assert_eq!(told(0), Vec::<Vec<u8>>::new());
        assert_eq!(told(77), [b"77".to_vec()]);
    }

    /// Core and CLI say states with `common`'s words, the wire with its own enums: numbers and words must agree.
    #[test]
    fn states_have_one_number_and_one_word() {
        macro_rules! check {
            ($($state:ident)*) => {$(
                let wire = enum_values(stringify!($state));
                let ours = $state::ALL.iter().map(|state| (state.number(), state.as_str().to_uppercase()));
                assert_eq!(wire, ours.collect::<Vec<_>>(), stringify!($state));
            )*};
        }
        check!(NodeState DiskState MountState RemoteState RcState ContainerState HealthState EngineState SwarmState);
    }

    /// Values of an enum on the wire, without the first and without its name in front.
    fn enum_values(name: &str) -> Vec<(i32, String)> {
        let files = prost_types::FileDescriptorSet::decode(mainstay_proto::DESCRIPTOR).unwrap();
        let wire = files.file.iter().flat_map(|file| &file.enum_type).find(|wire| wire.name() == name).unwrap();
        let words =
            wire.value.iter().map(|value| (value.number(), value.name().rsplit_once("STATE_").unwrap().1.to_owned()));
        words.skip(1).collect()
    }
}
