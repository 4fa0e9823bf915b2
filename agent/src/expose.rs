//! `/metrics`: the board in OpenMetrics text.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_common::{
    metric::{Readings, catalogue as m, openmetrics::Exposition},
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, RcState, RemoteState, SwarmState},
};
use mainstay_proto::v1 as pb;

use crate::board::{Snapshot, Table};

/// The agent about itself.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// What it costs and sent.
    pub readings: Readings,
    /// Replicas by address, and whether the session stands.
    pub replicas: BTreeMap<String, bool>,
}

/// A state as a state set, from its number on the wire; a number that is no state is unknown and left out.
macro_rules! state {
    ($text:expr, $metric:expr, $labels:expr, $type:ty, $number:expr) => {
        if let Some(state) = <$type>::from_number($number) {
            $text.add_state($metric, $labels, state.as_str(), <$type>::ALL.iter().map(|state| state.as_str()));
        }
    };
}

/// The whole text.
#[must_use]
pub fn expose(snapshot: &Snapshot, own: &Own) -> String {
    let mut text = Exposition::default();
    if let Some(known) = &snapshot.host {
        host(&mut text, known);
    }
    if let Some(table) = &snapshot.disks {
        for disk in table.rows.values() {
            let labels: &[(&str, &[u8])] = &[("mount", &disk.mount), ("device", &disk.device)];
            text.add_all(&readings(disk.readings.as_ref()), labels);
            state!(text, &m::DISK_STATE, labels, DiskState, disk.state);
        }
    }
    if let Some(table) = &snapshot.mounts {
        for row in table.rows.values() {
            mount(&mut text, row);
        }
    }
    if let Some(table) = &snapshot.volumes {
        for volume in table.rows.values() {
            let mut values = readings(volume.readings.as_ref());
            values.set(&m::VOLUME_IN_USE, volume.in_use.map(f64::from));
            values.set(&m::VOLUME_MEASURED_TIMESTAMP_SECONDS, volume.measured_at_ms.map(seconds));
            text.add_all(&values, &[("volume", &volume.name)]);
        }
    }
    if let Some(table) = &snapshot.containers {
        containers(&mut text, table);
    }
    if let Some(engine) = &snapshot.engine {
        state!(text, &m::ENGINE_STATE, &[], EngineState, engine.state);
    }
    if let Some(known) = &snapshot.swarm {
        swarm(&mut text, known);
    }
    for (collector, fare) in &snapshot.fares {
        let labels: &[(&str, &[u8])] = &[("collector", collector.as_str().as_bytes())];
        let mut values = Readings::new();
        values.set(&m::AGENT_COLLECTOR_DURATION_SECONDS, fare.took.as_secs_f64());
        values.set_count(&m::AGENT_COLLECTOR_ERRORS_TOTAL, fare.errors_total);
        text.add_all(&values, labels);
    }
    text.add_all(&own.readings, &[]);
    for (address, stands) in &own.replicas {
        text.add(&m::AGENT_CONNECTED, &[("replica", address.as_bytes())], f64::from(*stands));
    }
    text.add(&m::AGENT_INFO, &[("version", env!("CARGO_PKG_VERSION").as_bytes())], 1.0);
    text.render()
}

fn host(text: &mut Exposition, host: &pb::Host) {
    let mut values = readings(host.readings.as_ref());
    values.set(&m::CLOCK_SYNCHRONIZED, host.clock_synchronized.map(f64::from));
    values.set(&m::REBOOT_REQUIRED, host.reboot_required.map(f64::from));
    text.add_all(&values, &[]);
    for mode in &host.cpu {
        text.add(&m::CPU_SECONDS_TOTAL, &[("mode", mode.mode.as_bytes())], mode.seconds_total);
    }
    for link in &host.links {
        text.add_all(&readings(link.readings.as_ref()), &[("link", link.name.as_bytes())]);
    }
    let labels: &[(&str, &[u8])] = &[
        ("hostname", host.hostname.as_bytes()),
        ("kernel", host.kernel.as_bytes()),
        ("os", host.os.as_bytes()),
        ("architecture", host.architecture.as_bytes()),
    ];
    text.add(&m::HOST_INFO, labels, 1.0);
}

fn mount(text: &mut Exposition, mount: &pb::Mount) {
    let labels: &[(&str, &[u8])] = &[("path", &mount.path), ("source", &mount.source)];
    let mut values = readings(mount.readings.as_ref());
    values.set(&m::MOUNT_SINCE_TIMESTAMP_SECONDS, (mount.state_since_ms > 0).then(|| seconds(mount.state_since_ms)));
    text.add_all(&values, labels);
    state!(text, &m::MOUNT_STATE, labels, MountState, mount.state);
    state!(text, &m::RCLONE_REMOTE_STATE, labels, RemoteState, mount.remote_state);
    if let Some(rclone) = &mount.rclone {
        state!(text, &m::RCLONE_RC_STATE, labels, RcState, rclone.rc_state);
    }
}

/// Containers by name. Two of one name (one on its way out) would make the whole text invalid: the first one counts.
fn containers(text: &mut Exposition, table: &Table<pb::Container>) {
    let mut seen = BTreeSet::new();
    for container in table.rows.values().filter(|container| seen.insert(container.name.as_str())) {
        let labels: &[(&str, &[u8])] = &[("container", container.name.as_bytes())];
        text.add_all(&readings(container.readings.as_ref()), labels);
        state!(text, &m::CONTAINER_STATE, labels, ContainerState, container.state);
        state!(text, &m::CONTAINER_HEALTH, labels, HealthState, container.health);
        let labels: &[(&str, &[u8])] = &[
            ("container", container.name.as_bytes()),
            ("image", container.image.as_bytes()),
            ("service", container.service.as_bytes()),
            ("stack", container.stack.as_bytes()),
        ];
        text.add(&m::CONTAINER_INFO, labels, 1.0);
    }
}

fn swarm(text: &mut Exposition, swarm: &pb::Swarm) {
    state!(text, &m::SWARM_STATE, &[], SwarmState, swarm.state);
    text.add(&m::SWARM_MANAGER, &[], f64::from(swarm.manager));
    let Some(view) = &swarm.view else { return };
    for node in &view.nodes {
        let labels: &[(&str, &[u8])] = &[
            ("swarm_node", node.id.as_bytes()),
            ("hostname", node.hostname.as_bytes()),
            ("role", node.role.as_bytes()),
            ("availability", node.availability.as_bytes()),
            ("state", node.state.as_bytes()),
            ("reachability", node.reachability.as_bytes()),
        ];
        text.add(&m::SWARM_NODE_INFO, labels, 1.0);
    }
    for service in &view.services {
        let mut values = Readings::new();
        values.set_count(&m::SWARM_SERVICE_REPLICAS_DESIRED, service.desired);
        values.set_count(&m::SWARM_SERVICE_REPLICAS_RUNNING, service.running);
        text.add_all(&values, &[("service", service.name.as_bytes())]);
    }
    let mut tasks: BTreeMap<&str, f64> = BTreeMap::new();
    for task in &view.tasks {
        *tasks.entry(&task.state).or_default() += 1.0;
    }
    for (state, count) in tasks {
        text.add(&m::SWARM_TASKS, &[("state", state.as_bytes())], count);
    }
}

fn readings(wire: Option<&pb::Readings>) -> Readings {
    wire.map(|wire| Readings::from_lists(&wire.metric, &wire.value)).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_series_comes_once_even_for_two_containers_of_one_name() {
        let container = |id: &str| pb::Container {
            id: id.into(),
            name: "web\n\"1\"".into(),
            state: ContainerState::Running.number(),
            ..pb::Container::default()
        };
        let rows = ["a", "b"].map(|id| (id.as_bytes().to_vec(), container(id)));
        let snapshot = Snapshot {
            containers: Some(Arc::new(Table { rows: rows.into(), ..Table::default() })),
            host: Some(Arc::new(pb::Host { reboot_required: Some(true), ..pb::Host::default() })),
            ..Snapshot::default()
        };
        let own = Own { replicas: [("r:1".to_owned(), true)].into(), ..Own::default() };
        let text = expose(&snapshot, &own);
        assert!(
            text.contains("mainstay_container_state{container=\"web\\n\\\"1\\\"\",state=\"running\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("mainstay_reboot_required 1\n"));
        assert!(!text.contains("clock_synchronized"), "unknown is left out");
        assert!(text.contains("mainstay_agent_connected{replica=\"r:1\"} 1\n"));
        let series: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let names: BTreeSet<_> = series.iter().filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
        assert_eq!(names.len(), series.len());
    }

    #[test]
    fn what_is_unknown_is_not_there() {
        let text = expose(&Snapshot::default(), &Own::default());
        assert!(text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("mainstay_agent_info")));
    }
}
