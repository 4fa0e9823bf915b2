//! From core's words to the wire's.

pub(crate) mod alert;
pub(crate) mod declare;
mod node;

pub(crate) use node::{node, node_detail};

use std::sync::Arc;

use mainstay_common::{
    NodeId, Timestamp,
    metric::{Readings, catalogue as m},
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, RemoteState},
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
    status.backed_up_at_ms = reading.state.cluster.about().backed_up_at.map(|at| at.0);
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
    use mainstay_common::state::{NodeState, RcState, SwarmState};
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
