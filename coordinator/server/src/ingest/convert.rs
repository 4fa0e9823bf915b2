//! From the wire to core's words: caps on everything that a node could send too much of.

use std::{collections::BTreeMap, time::Duration};

use mainstay_common::{
    Timestamp,
    metric::Readings,
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, RcState, RemoteState, SwarmState},
};
use mainstay_core::live;
use mainstay_proto::v1 as pb;

/// Rows of one table that a node may have.
const MAX_ROWS: usize = 5_000;
/// Rows of lists within a row.
const MAX_LIST: usize = 256;
/// Bytes of a text or path.
const MAX_TEXT: usize = 4_096;
/// Labels of a container.
const MAX_LABELS: usize = 64;
/// Intervals that an agent may have.
const INTERVALS: std::ops::RangeInclusive<u64> = 100..=3_600_000;

pub(super) fn hello(hello: &pb::Hello) -> live::Hello {
    live::Hello {
        version: text(&hello.version),
        boot_id: text(&hello.boot_id),
        interval: Duration::from_millis(hello.interval_ms.clamp(*INTERVALS.start(), *INTERVALS.end())),
    }
}

/// A text within its cap, cut at a character.
pub(super) fn text(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

fn bytes(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(MAX_TEXT);
    bytes
}

fn readings(readings: Option<pb::Readings>) -> Readings {
    readings.map(|lists| Readings::from_lists(&lists.metric, &lists.value)).unwrap_or_default()
}

pub(super) fn sample(sample: pb::Sample) -> live::Sample {
    live::Sample {
        taken_at: Timestamp(sample.taken_at_ms),
        host: sample.host.map(host),
        disks: sample.disks.map(|t| update(t.read_at_ms, t.whole, t.changed, t.removed, 0, disk)),
        mounts: sample.mounts.map(|t| update(t.read_at_ms, t.whole, t.changed, t.removed, 0, mount)),
        volumes: sample.volumes.map(|t| update(t.read_at_ms, t.whole, t.changed, t.removed, 0, volume)),
        containers: sample
            .containers
            .map(|t| update(t.read_at_ms, t.whole, t.changed, t.removed, t.left_out, container)),
        engine: sample.engine.map(engine),
        swarm: sample.swarm.map(swarm),
        errors: sample.errors.into_iter().take(MAX_LIST).map(error).collect(),
        agent: sample.agent.map(|agent| readings(Some(agent))),
    }
}

fn update<W, R>(
    read_at_ms: i64,
    whole: bool,
    changed: Vec<W>,
    removed: Vec<Vec<u8>>,
    left_out: u64,
    row: impl Fn(W) -> (Vec<u8>, R),
) -> live::Update<R> {
    let beyond = changed.len().saturating_sub(MAX_ROWS) as u64;
    live::Update {
        read_at: Timestamp(read_at_ms),
        whole,
        changed: changed.into_iter().take(MAX_ROWS).map(row).collect(),
        removed: removed.into_iter().take(MAX_ROWS).collect(),
        left_out: left_out.saturating_add(beyond),
    }
}

fn error(error: pb::CollectorError) -> live::CollectorError {
    live::CollectorError {
        collector: text(&error.collector),
        reason: text(&error.reason),
        since: Timestamp(error.since_ms),
    }
}

fn host(host: pb::Host) -> live::Host {
    live::Host {
        read_at: Timestamp(host.read_at_ms),
        hostname: text(&host.hostname),
        kernel: text(&host.kernel),
        os: text(&host.os),
        architecture: text(&host.architecture),
        reboot_required: host.reboot_required,
        clock_synchronized: host.clock_synchronized,
        readings: readings(host.readings),
        links: host
            .links
            .into_iter()
            .take(MAX_LIST)
            .map(|link| live::Link { name: text(&link.name), readings: readings(link.readings) })
            .collect(),
        cpu: host.cpu.into_iter().take(MAX_LIST).map(|cpu| (text(&cpu.mode), cpu.seconds_total)).collect(),
    }
}

fn disk(disk: pb::Disk) -> (Vec<u8>, live::Disk) {
    let row = live::Disk {
        device: bytes(disk.device),
        fs: text(&disk.fs),
        state: DiskState::from_number(disk.state).unwrap_or(DiskState::Unknown),
        aliases: disk.aliases.into_iter().take(MAX_LIST).map(bytes).collect(),
        readings: readings(disk.readings),
        read_at: disk.read_at_ms.map(Timestamp),
        reason: text(&disk.reason),
    };
    (bytes(disk.mount), row)
}

fn mount(mount: pb::Mount) -> (Vec<u8>, live::Mount) {
    let row = live::Mount {
        source: bytes(mount.source),
        fs: text(&mount.fs),
        state: MountState::from_number(mount.state).unwrap_or(MountState::Unknown),
        state_since: Timestamp(mount.state_since_ms),
        remote_state: RemoteState::from_number(mount.remote_state).unwrap_or(RemoteState::Unknown),
        readings: readings(mount.readings),
        read_at: mount.read_at_ms.map(Timestamp),
        reason: text(&mount.reason),
        aliases: mount.aliases.into_iter().take(MAX_LIST).map(bytes).collect(),
        rclone: mount.rclone.map(|rclone| live::Rclone {
            rc_state: RcState::from_number(rclone.rc_state).unwrap_or(RcState::Unreachable),
            version: text(&rclone.version),
            pid: rclone.pid,
            unit: text(&rclone.unit),
            rc_open: rclone.rc_open,
            last_error: text(&rclone.last_error),
        }),
    };
    (bytes(mount.path), row)
}

fn volume(volume: pb::Volume) -> (Vec<u8>, live::Volume) {
    let row = live::Volume {
        driver: text(&volume.driver),
        used_by: volume.used_by.iter().take(MAX_LIST).map(|name| text(name)).collect(),
        in_use: volume.in_use,
        measured_at: volume.measured_at_ms.map(Timestamp),
        readings: readings(volume.readings),
        reason: text(&volume.reason),
        source: bytes(volume.source),
    };
    (bytes(volume.name), row)
}

fn container(container: pb::Container) -> (Vec<u8>, live::Container) {
    let labels: BTreeMap<String, String> = container.labels.into_iter().collect();
    let beyond = labels.len().saturating_sub(MAX_LABELS) as u64;
    let row = live::Container {
        name: text(&container.name),
        image: text(&container.image),
        state: ContainerState::from_number(container.state).unwrap_or(ContainerState::Unknown),
        health: HealthState::from_number(container.health).unwrap_or(HealthState::Unknown),
        started_at: container.started_at_ms.map(Timestamp),
        exit_code: container.exit_code,
        readings: readings(container.readings),
        cpu_percent: None,
        service: text(&container.service),
        task: text(&container.task),
        stack: text(&container.stack),
        labels: labels.into_iter().take(MAX_LABELS).map(|(key, value)| (text(&key), text(&value))).collect(),
        labels_left_out: container.labels_left_out.saturating_add(beyond),
    };
    (bytes(container.id), row)
}

fn engine(engine: pb::Engine) -> live::Engine {
    live::Engine {
        read_at: Timestamp(engine.read_at_ms),
        state: EngineState::from_number(engine.state).unwrap_or(EngineState::Error),
        state_since: Timestamp(engine.state_since_ms),
        version: text(&engine.version),
        root: text(&engine.root),
        reason: text(&engine.reason),
    }
}

fn swarm(swarm: pb::Swarm) -> live::Swarm {
    live::Swarm {
        read_at: Timestamp(swarm.read_at_ms),
        state: SwarmState::from_number(swarm.state).unwrap_or(SwarmState::Error),
        node_id: text(&swarm.node_id),
        cluster_id: text(&swarm.cluster_id),
        manager: swarm.manager,
        error: text(&swarm.error),
        availability: text(&swarm.availability),
        reachability: text(&swarm.reachability),
        view: swarm.view.map(swarm_view),
        view_digest: swarm.view_digest,
    }
}

fn swarm_view(view: pb::SwarmView) -> live::SwarmView {
    let node = |node: pb::SwarmNode| live::SwarmNode {
        id: text(&node.id),
        hostname: text(&node.hostname),
        role: text(&node.role),
        availability: text(&node.availability),
        state: text(&node.state),
        reachability: text(&node.reachability),
        leader: node.leader,
        address: text(&node.address),
    };
    let service = |service: pb::SwarmService| live::SwarmService {
        id: text(&service.id),
        name: text(&service.name),
        mode: text(&service.mode),
        image: text(&service.image),
        desired: service.desired,
        running: service.running,
        update_state: text(&service.update_state),
    };
    let task = |task: pb::SwarmTask| live::SwarmTask {
        id: text(&task.id),
        service_id: text(&task.service_id),
        node_id: text(&task.node_id),
        slot: task.slot,
        state: text(&task.state),
        desired_state: text(&task.desired_state),
        error: text(&task.error),
        state_at: Timestamp(task.state_at_ms),
    };
    live::SwarmView {
        read_at: Timestamp(view.read_at_ms),
        nodes: view.nodes.into_iter().take(MAX_ROWS).map(node).collect(),
        services: view.services.into_iter().take(MAX_ROWS).map(service).collect(),
        tasks: view.tasks.into_iter().take(MAX_ROWS).map(task).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_cut_and_counted() {
        let rows =
            (0..MAX_ROWS + 7).map(|i| pb::Container { id: i.to_string().into_bytes(), ..pb::Container::default() });
        let table = pb::ContainerTable { changed: rows.collect(), left_out: 3, ..pb::ContainerTable::default() };
        let cut = sample(pb::Sample { containers: Some(table), ..pb::Sample::default() }).containers.unwrap();
        assert_eq!((cut.changed.len(), cut.left_out), (MAX_ROWS, 10));
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(text(&long).len(), MAX_TEXT);
    }

    #[test]
    fn states_of_a_newer_agent_are_unknown_not_wrong() {
        let (_, row) = mount(pb::Mount { state: 99, ..pb::Mount::default() });
        assert_eq!(row.state, MountState::Unknown);
    }
}
