//! From the wire to core's words: caps on everything that a node could send too much of.

use std::{collections::BTreeMap, time::Duration};

use mainstay_common::{
    Timestamp,
    metric::Readings,
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, RcState, RemoteState, SwarmState},
};
use mainstay_core::live;
use mainstay_proto::v1 as pb;

use super::{
    limits::{
        Cuts, LABEL_KEY_BYTES, LABEL_VALUE_BYTES, LABELS, LIST_ROWS, Limit, NAME_BYTES, PATH_BYTES, REASON_BYTES,
        REMOVED_ROWS, SWARM_ROWS,
    },
    scissors::Scissors,
};

/// Intervals that an agent may have.
const INTERVALS: std::ops::RangeInclusive<u64> = 100..=3_600_000;

pub(super) fn hello(hello: pb::Hello) -> live::Hello {
    let mut cut = Scissors::default();
    live::Hello {
        version: cut.text(hello.version, NAME_BYTES),
        boot_id: cut.text(hello.boot_id, NAME_BYTES),
        interval: Duration::from_millis(hello.interval_ms.clamp(*INTERVALS.start(), *INTERVALS.end())),
    }
}

/// A sample in core's words, and what was cut from it.
pub(super) fn sample(sample: pb::Sample) -> (live::Sample, Cuts) {
    let mut cut = Scissors::default();
    let sample = live::Sample {
        taken_at: Timestamp(sample.taken_at_ms),
        host: sample.host.map(|sent| host(&mut cut, sent)),
        disks: sample.disks.map(|t| update(&mut cut, (t.read_at_ms, t.whole, 0), t.changed, t.removed, disk)),
        mounts: sample.mounts.map(|t| update(&mut cut, (t.read_at_ms, t.whole, 0), t.changed, t.removed, mount)),
        volumes: sample.volumes.map(|t| update(&mut cut, (t.read_at_ms, t.whole, 0), t.changed, t.removed, volume)),
        containers: sample
            .containers
            .map(|t| update(&mut cut, (t.read_at_ms, t.whole, t.left_out), t.changed, t.removed, container)),
        engine: sample.engine.map(|sent| engine(&mut cut, sent)),
        swarm: sample.swarm.map(|sent| swarm(&mut cut, sent)),
        errors: cut.rows(sample.errors, LIST_ROWS, Limit::Lists, error),
        agent: sample.agent.map(|agent| readings(Some(agent))),
    };
    (sample, cut.done())
}

fn readings(readings: Option<pb::Readings>) -> Readings {
    readings.map(|lists| Readings::from_lists(&lists.metric, &lists.value)).unwrap_or_default()
}

/// `head` is when it was read, whether it is whole, and how many rows the agent left out.
fn update<W, R>(
    cut: &mut Scissors,
    (read_at_ms, whole, left_out): (i64, bool, u64),
    changed: Vec<W>,
    removed: Vec<Vec<u8>>,
    row: impl Fn(&mut Scissors, W) -> (Vec<u8>, R),
) -> live::Update<R> {
    live::Update {
        read_at: Timestamp(read_at_ms),
        whole,
        changed: changed.into_iter().map(|sent| row(cut, sent)).collect(),
        removed: cut.rows(removed, REMOVED_ROWS, Limit::Lists, |cut, key| cut.bytes(key, PATH_BYTES)),
        left_out,
    }
}

fn error(cut: &mut Scissors, error: pb::CollectorError) -> live::CollectorError {
    live::CollectorError {
        collector: cut.text(error.collector, NAME_BYTES),
        reason: cut.text(error.reason, REASON_BYTES),
        since: Timestamp(error.since_ms),
    }
}

fn host(cut: &mut Scissors, host: pb::Host) -> live::Host {
    live::Host {
        read_at: Timestamp(host.read_at_ms),
        hostname: cut.text(host.hostname, NAME_BYTES),
        kernel: cut.text(host.kernel, NAME_BYTES),
        os: cut.text(host.os, NAME_BYTES),
        architecture: cut.text(host.architecture, NAME_BYTES),
        reboot_required: host.reboot_required,
        clock_synchronized: host.clock_synchronized,
        readings: readings(host.readings),
        links: cut.rows(host.links, LIST_ROWS, Limit::Lists, |cut, link| live::Link {
            name: cut.text(link.name, NAME_BYTES),
            readings: readings(link.readings),
        }),
        cpu: cut
            .rows(host.cpu, LIST_ROWS, Limit::Lists, |cut, cpu| (cut.text(cpu.mode, NAME_BYTES), cpu.seconds_total)),
    }
}

fn disk(cut: &mut Scissors, disk: pb::Disk) -> (Vec<u8>, live::Disk) {
    let row = live::Disk {
        device: cut.bytes(disk.device, PATH_BYTES),
        fs: cut.text(disk.fs, NAME_BYTES),
        state: DiskState::from_number(disk.state).unwrap_or(DiskState::Unknown),
        aliases: cut.paths(disk.aliases),
        readings: readings(disk.readings),
        read_at: disk.read_at_ms.map(Timestamp),
        reason: cut.text(disk.reason, REASON_BYTES),
    };
    (cut.bytes(disk.mount, PATH_BYTES), row)
}

fn mount(cut: &mut Scissors, mount: pb::Mount) -> (Vec<u8>, live::Mount) {
    let row = live::Mount {
        source: cut.bytes(mount.source, PATH_BYTES),
        fs: cut.text(mount.fs, NAME_BYTES),
        state: MountState::from_number(mount.state).unwrap_or(MountState::Unknown),
        state_since: Timestamp(mount.state_since_ms),
        remote_state: RemoteState::from_number(mount.remote_state).unwrap_or(RemoteState::Unknown),
        readings: readings(mount.readings),
        read_at: mount.read_at_ms.map(Timestamp),
        reason: cut.text(mount.reason, REASON_BYTES),
        aliases: cut.paths(mount.aliases),
        rclone: mount.rclone.map(|rclone| live::Rclone {
            rc_state: RcState::from_number(rclone.rc_state).unwrap_or(RcState::Unreachable),
            version: cut.text(rclone.version, NAME_BYTES),
            pid: rclone.pid,
            unit: cut.text(rclone.unit, NAME_BYTES),
            rc_open: rclone.rc_open,
            last_error: cut.text(rclone.last_error, REASON_BYTES),
        }),
    };
    (cut.bytes(mount.path, PATH_BYTES), row)
}

fn volume(cut: &mut Scissors, volume: pb::Volume) -> (Vec<u8>, live::Volume) {
    let row = live::Volume {
        driver: cut.text(volume.driver, NAME_BYTES),
        used_by: cut.names(volume.used_by),
        in_use: volume.in_use,
        measured_at: volume.measured_at_ms.map(Timestamp),
        readings: readings(volume.readings),
        reason: cut.text(volume.reason, REASON_BYTES),
        source: cut.bytes(volume.source, PATH_BYTES),
    };
    (cut.bytes(volume.name, NAME_BYTES), row)
}

fn container(cut: &mut Scissors, container: pb::Container) -> (Vec<u8>, live::Container) {
    // Sorted first, so that the same ones are kept every time.
    let sent: BTreeMap<String, String> = container.labels.into_iter().collect();
    let listed = sent.len();
    let fits = |(key, _): &(String, String)| key.len() <= LABEL_KEY_BYTES;
    let kept = sent.into_iter().filter(fits).take(LABELS);
    let labels: BTreeMap<_, _> = kept.map(|(key, value)| (key, cut.label(value, LABEL_VALUE_BYTES))).collect();
    let beyond = listed - labels.len();
    cut.count(Limit::Labels, beyond);
    let row = live::Container {
        name: cut.text(container.name, NAME_BYTES),
        image: cut.text(container.image, 2 * NAME_BYTES),
        state: ContainerState::from_number(container.state).unwrap_or(ContainerState::Unknown),
        health: HealthState::from_number(container.health).unwrap_or(HealthState::Unknown),
        started_at: container.started_at_ms.map(Timestamp),
        exit_code: container.exit_code,
        readings: readings(container.readings),
        cpu_percent: None,
        service: cut.text(container.service, NAME_BYTES),
        task: cut.text(container.task, NAME_BYTES),
        stack: cut.text(container.stack, NAME_BYTES),
        labels,
        labels_left_out: container.labels_left_out.saturating_add(beyond as u64),
    };
    (cut.bytes(container.id, NAME_BYTES), row)
}

fn engine(cut: &mut Scissors, engine: pb::Engine) -> live::Engine {
    live::Engine {
        read_at: Timestamp(engine.read_at_ms),
        state: EngineState::from_number(engine.state).unwrap_or(EngineState::Error),
        state_since: Timestamp(engine.state_since_ms),
        version: cut.text(engine.version, NAME_BYTES),
        root: cut.text(engine.root, PATH_BYTES),
        reason: cut.text(engine.reason, REASON_BYTES),
    }
}

fn swarm(cut: &mut Scissors, swarm: pb::Swarm) -> live::Swarm {
    live::Swarm {
        read_at: Timestamp(swarm.read_at_ms),
        state: SwarmState::from_number(swarm.state).unwrap_or(SwarmState::Error),
        node_id: cut.text(swarm.node_id, NAME_BYTES),
        cluster_id: cut.text(swarm.cluster_id, NAME_BYTES),
        manager: swarm.manager,
        error: cut.text(swarm.error, REASON_BYTES),
        availability: cut.text(swarm.availability, NAME_BYTES),
        reachability: cut.text(swarm.reachability, NAME_BYTES),
        view: swarm.view.map(|view| swarm_view(cut, view)),
        view_digest: swarm.view_digest,
    }
}

fn swarm_view(cut: &mut Scissors, view: pb::SwarmView) -> live::SwarmView {
    let node = |cut: &mut Scissors, node: pb::SwarmNode| live::SwarmNode {
        id: cut.text(node.id, NAME_BYTES),
        hostname: cut.text(node.hostname, NAME_BYTES),
        role: cut.text(node.role, NAME_BYTES),
        availability: cut.text(node.availability, NAME_BYTES),
        state: cut.text(node.state, NAME_BYTES),
        reachability: cut.text(node.reachability, NAME_BYTES),
        leader: node.leader,
        address: cut.text(node.address, NAME_BYTES),
    };
    let service = |cut: &mut Scissors, service: pb::SwarmService| live::SwarmService {
        id: cut.text(service.id, NAME_BYTES),
        name: cut.text(service.name, NAME_BYTES),
        mode: cut.text(service.mode, NAME_BYTES),
        image: cut.text(service.image, 2 * NAME_BYTES),
        desired: service.desired,
        running: service.running,
        update_state: cut.text(service.update_state, NAME_BYTES),
    };
    let task = |cut: &mut Scissors, task: pb::SwarmTask| live::SwarmTask {
        id: cut.text(task.id, NAME_BYTES),
        service_id: cut.text(task.service_id, NAME_BYTES),
        node_id: cut.text(task.node_id, NAME_BYTES),
        slot: task.slot,
        state: cut.text(task.state, NAME_BYTES),
        desired_state: cut.text(task.desired_state, NAME_BYTES),
        error: cut.text(task.error, REASON_BYTES),
        state_at: Timestamp(task.state_at_ms),
    };
    live::SwarmView {
        read_at: Timestamp(view.read_at_ms),
        nodes: cut.rows(view.nodes, SWARM_ROWS, Limit::Swarm, node),
        services: cut.rows(view.services, SWARM_ROWS, Limit::Swarm, service),
        tasks: cut.rows(view.tasks, SWARM_ROWS, Limit::Swarm, task),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_texts_and_lists_are_cut_and_counted() {
        let mut labels: Vec<_> = (0..70).map(|n| (format!("key{n:02}"), "v".to_owned())).collect();
        labels[0].1 = "é".repeat(LABEL_VALUE_BYTES);
        labels.push(("a".repeat(LABEL_KEY_BYTES + 1), String::new()));
        let sent = pb::Container {
            id: b"c".to_vec(),
            name: "n".repeat(NAME_BYTES + 1),
            labels: labels.into_iter().collect(),
            labels_left_out: 3,
            ..pb::Container::default()
        };
        let containers = pb::ContainerTable { changed: vec![sent], ..pb::ContainerTable::default() };
        let aliases = vec![vec![b'x'; PATH_BYTES]; 9];
        let disk = pb::Disk { mount: b"/".to_vec(), aliases, ..pb::Disk::default() };
        let disks = pb::DiskTable { changed: vec![disk], ..pb::DiskTable::default() };
        let (cut, cuts) =
            sample(pb::Sample { containers: Some(containers), disks: Some(disks), ..pb::Sample::default() });

        let (_, row) = &cut.containers.unwrap().changed[0];
        assert_eq!((row.labels.len(), row.labels_left_out, row.name.len()), (LABELS, 10, NAME_BYTES));
        assert_eq!(row.labels["key00"].len(), LABEL_VALUE_BYTES);
        assert_eq!(cut.disks.unwrap().changed[0].1.aliases.len(), 4, "16 KiB");
        assert_eq!(cuts.met().collect::<Vec<_>>(), [(Limit::Labels, 8), (Limit::Texts, 1), (Limit::Lists, 5)]);
    }

    #[test]
    fn what_is_cut_off_takes_no_memory() {
        let long = pb::Disk { mount: vec![b'x'; 1 << 20], fs: "é".repeat(1 << 20), ..pb::Disk::default() };
        let mut cut = Scissors::default();
        let (mount, row) = disk(&mut cut, long);
        assert!(mount.capacity() <= PATH_BYTES && row.fs.capacity() <= NAME_BYTES);
    }

    #[test]
    fn states_of_a_newer_agent_are_unknown_not_wrong() {
        let (_, row) = mount(&mut Scissors::default(), pb::Mount { state: 99, ..pb::Mount::default() });
        assert_eq!(row.state, MountState::Unknown);
    }
}
