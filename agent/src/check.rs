//! `mainstay-agent check`: one sample for people, without coordinator or data directory.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use mainstay_common::{
    metric::{Metric, Readings, catalogue as m},
    process::shutdown::CancellationToken,
    state::{ContainerState, DiskState, EngineState, HealthState, MountState, RcState, RemoteState, SwarmState},
    text::{Shown, exact},
    unit,
};
use mainstay_proto::v1 as pb;
use serde_json::{Map, Value, json};
use tokio::{sync::watch, time::timeout};

use crate::{
    board::{Board, Snapshot, Table},
    collect::volume::NOT_YET,
    config::EyesConfig,
    run::start_eyes,
};

/// Whoever has not answered by then is shown as late.
const PATIENCE: Duration = Duration::from_secs(4);

/// Takes one sample and waits for everything in it, but not for long.
pub async fn look(config: EyesConfig) -> Snapshot {
    let board = Board::default();
    let stop = CancellationToken::new();
    let (_reporter, reports) = watch::channel(true);
    let config = EyesConfig { cache_dir: None, ..config };
    let eyes = start_eyes(Arc::new(config), &board, &stop, reports);
    let mut watch = board.watch();
    if !eyes.is_empty() {
        // Late or complete: what the board says is shown.
        let _complete = timeout(PATIENCE, watch.wait_for(complete)).await;
    }
    let seen = board.read();
    stop.cancel();
    seen
}

/// True when nothing is missing that could still come.
fn complete(seen: &Snapshot) -> bool {
    let no_engine = seen.engine.as_ref().is_some_and(|engine| engine.state != EngineState::Ok.number());
    let answered = |mount: &pb::Mount| {
        let known = mount.state != MountState::Unknown.number() || !mount.reason.is_empty();
        // A remote control that answers soon tells of its remote, too.
        known && mount.rclone.as_ref().is_none_or(|rclone| rclone.rc_state != 0 && mount.remote_state != 0)
    };
    let volumes = seen.volumes.as_ref();
    let measured = volumes.is_some_and(|volumes| volumes.rows.values().all(|volume| volume.reason != NOT_YET));
    seen.host.is_some()
        && seen.disks.is_some()
        && seen.mounts.as_ref().is_some_and(|mounts| mounts.rows.values().all(answered))
        && (no_engine || (measured && seen.containers.is_some() && seen.swarm.is_some()))
}

/// The sample as a sheet for a terminal; everything from outside is escaped.
#[must_use]
pub fn sheet(seen: &Snapshot) -> String {
    let mut out = String::new();
    match &seen.host {
        Some(host) => host_lines(&mut out, host),
        None => line(&mut out, "host        no answer in time"),
    }
    table(&mut out, "disks", seen.disks.as_deref(), "no answer in time", |disk| {
        let values = readings(disk.readings.as_ref());
        let sizes = used(&values, &m::DISK_USED_BYTES, &m::DISK_AVAILABLE_BYTES, &m::DISK_TOTAL_BYTES);
        let state = word(DiskState::from_number(disk.state));
        format!("{state:<9} {sizes:<34} {} on {}{}", shown(&disk.mount), shown(&disk.device), because(&disk.reason))
    });
    table(&mut out, "mounts", seen.mounts.as_deref(), "no answer in time", |mount| {
        let values = readings(mount.readings.as_ref());
        let sizes = used(&values, &m::MOUNT_USED_BYTES, &m::MOUNT_AVAILABLE_BYTES, &m::MOUNT_TOTAL_BYTES);
        let state = word(MountState::from_number(mount.state));
        let why = because(&mount.reason);
        let (path, source, fs) = (shown(&mount.path), shown(&mount.source), shown(&mount.fs));
        let from = if source.is_empty() { String::new() } else { format!(" from {source} ({fs})") };
        format!("{state:<9} {sizes:<34} {path}{from}{why}{}", behind(mount, &values))
    });
    let engine = seen.engine.as_ref().and_then(|engine| EngineState::from_number(engine.state));
    let reason = seen.engine.as_ref().map(|engine| because(&engine.reason)).unwrap_or_default();
    line(&mut out, &format!("engine      {}{reason}", engine.map_or("no answer in time", EngineState::as_str)));
    let absent =
        if engine.is_some_and(|state| state != EngineState::Ok) { "unknown: no engine" } else { "no answer in time" };
    table(&mut out, "volumes", seen.volumes.as_deref(), absent, |volume| {
        let size = readings(volume.readings.as_ref()).count(&m::VOLUME_SIZE_BYTES);
        let size = size.map_or_else(|| "not measured".to_owned(), unit::bytes);
        let in_use = volume.in_use.map_or("-", |in_use| if in_use { "in use" } else { "unused" });
        format!("{size:<13} {in_use:<7} {} ({}){}", shown(&volume.name), shown(&volume.driver), because(&volume.reason))
    });
    table(&mut out, "containers", seen.containers.as_deref(), absent, |container| {
        let memory = readings(container.readings.as_ref()).count(&m::CONTAINER_MEMORY_USED_BYTES);
        let memory = memory.map_or_else(|| "-".to_owned(), unit::bytes);
        let state = word(ContainerState::from_number(container.state));
        let health = word(HealthState::from_number(container.health));
        format!("{state:<10} {health:<9} {memory:<9} {} ({})", shown(&container.name), shown(&container.image))
    });
    match &seen.swarm {
        Some(swarm) => {
            let role = if swarm.manager { " manager" } else { "" };
            line(&mut out, &format!("swarm       {}{role}", word(SwarmState::from_number(swarm.state))));
        }
        None => line(&mut out, &format!("swarm       {absent}")),
    }
    for (collector, fare) in &seen.fares {
        if let Some((reason, _)) = &fare.error {
            line(&mut out, &format!("complaint   {}: {}", collector.as_str(), shown(reason)));
        }
    }
    out
}

/// What is known of the rclone behind a mount, on a line of its own.
fn behind(mount: &pb::Mount, values: &Readings) -> String {
    let Some(rclone) = &mount.rclone else { return String::new() };
    let version = if rclone.version.is_empty() { String::new() } else { format!(" {}", shown(&rclone.version)) };
    let remote = word(RemoteState::from_number(mount.remote_state));
    let mut line =
        format!("\n            rclone{version}: remote {remote}, rc {}", word(RcState::from_number(rclone.rc_state)));
    let waiting = values.count(&m::RCLONE_UPLOADS_QUEUED).zip(values.count(&m::RCLONE_UPLOADS_ACTIVE));
    if let Some((queued, active)) = waiting {
        line += &format!(", {queued} uploads queued, {active} active");
    }
    if let Some(failing) = values.count(&m::RCLONE_UPLOADS_FAILING).filter(|failing| *failing > 0) {
        line += &format!(", {failing} failing");
    }
    if values.count(&m::RCLONE_CACHE_FULL) == Some(1) {
        line += ", cache full";
    }
    if rclone.rc_open {
        line += ", rc open to anyone who reaches it";
    }
    if !rclone.last_error.is_empty() {
        line += &format!(", last error: {}", shown(&rclone.last_error));
    }
    line
}

fn host_lines(out: &mut String, host: &pb::Host) {
    let values = readings(host.readings.as_ref());
    let number = |metric: &Metric| values.get(metric).map_or_else(|| "-".to_owned(), |value| format!("{value}"));
    let (total, free) = (values.count(&m::MEMORY_TOTAL_BYTES), values.count(&m::MEMORY_AVAILABLE_BYTES));
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), unit::bytes);
    let (name, kernel) = (shown(&host.hostname), shown(&host.kernel));
    line(out, &format!("host        {name}, {}, kernel {kernel}, {}", shown(&host.os), shown(&host.architecture)));
    let load = [&m::LOAD1, &m::LOAD5, &m::LOAD15].map(number).join(" ");
    line(out, &format!("            {} CPUs, load {load}", number(&m::CPUS)));
    line(out, &format!("            memory {} available of {}", size(free), size(total)));
    if host.reboot_required == Some(true) {
        line(out, "            a reboot is required");
    }
}

fn table<R>(out: &mut String, name: &str, table: Option<&Table<R>>, absent: &str, row: impl Fn(&R) -> String) {
    match table {
        None => line(out, &format!("{name:<11} {absent}")),
        Some(table) if table.rows.is_empty() => line(out, &format!("{name:<11} none")),
        Some(table) => {
            line(out, &format!("{name:<11} {}", table.rows.len()));
            for one in table.rows.values() {
                line(out, &format!("  {}", row(one)));
            }
            if table.left_out > 0 {
                line(out, &format!("  and {} more", table.left_out));
            }
        }
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    writeln!(out, "{text}").unwrap_or(());
}

fn shown(text: &(impl AsRef<[u8]> + ?Sized)) -> String {
    Shown::new(text).cut(80).to_string()
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", shown(reason)) }
}

fn word<T: ToString>(state: Option<T>) -> String {
    state.map_or_else(|| "unknown".to_owned(), |state| state.to_string())
}

fn used(values: &Readings, used: &Metric, available: &Metric, total: &Metric) -> String {
    let (used, available, total) = (values.count(used), values.count(available), values.count(total));
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), unit::bytes);
    let percent = used.zip(available).and_then(|(used, available)| unit::percent_floor(used, available));
    let percent = percent.map_or_else(String::new, |percent| format!(" {percent}%"));
    format!("{} used of {}{percent}", size(used), size(total))
}

fn readings(wire: Option<&pb::Readings>) -> Readings {
    wire.map(|wire| Readings::from_lists(&wire.metric, &wire.value)).unwrap_or_default()
}

/// The sample as one JSON object: exact text, unknown is `null`.
#[must_use]
pub fn to_json(seen: &Snapshot) -> Value {
    let complaints = seen.fares.iter().filter_map(|(collector, fare)| {
        let (reason, since) = fare.error.as_ref()?;
        Some(json!({"collector": collector.as_str(), "reason": reason, "since": since.to_string()}))
    });
    json!({
        "host": seen.host.as_ref().map(|host| host_json(host)),
        "disks": rows(seen.disks.as_deref(), |disk| json!({
            "mount": exact(&disk.mount), "device": exact(&disk.device), "fs": disk.fs,
            "state": word(DiskState::from_number(disk.state)), "reason": known(&disk.reason),
            "aliases": disk.aliases.iter().map(|alias| exact(alias)).collect::<Vec<_>>(),
            "readings": values(disk.readings.as_ref()),
        })),
        "mounts": rows(seen.mounts.as_deref(), |mount| json!({
            "path": exact(&mount.path), "source": exact(&mount.source), "fs": mount.fs,
            "state": word(MountState::from_number(mount.state)), "reason": known(&mount.reason),
            "remote_state": word(RemoteState::from_number(mount.remote_state)),
            "rclone": mount.rclone.as_ref().map(|rclone| json!({
                "rc_state": word(RcState::from_number(rclone.rc_state)), "version": known(&rclone.version),
                "pid": (rclone.pid != 0).then_some(rclone.pid), "unit": known(&rclone.unit), "rc_open": rclone.rc_open,
                "last_error": known(&rclone.last_error),
            })),
            "readings": values(mount.readings.as_ref()),
        })),
        "engine": seen.engine.as_ref().map(|engine| json!({
            "state": word(EngineState::from_number(engine.state)), "version": known(&engine.version),
            "root": known(&engine.root), "reason": known(&engine.reason),
        })),
        "volumes": rows(seen.volumes.as_deref(), |volume| json!({
            "name": exact(&volume.name), "driver": volume.driver, "used_by": volume.used_by, "in_use": volume.in_use,
            "reason": known(&volume.reason), "readings": values(volume.readings.as_ref()),
        })),
        "containers": rows(seen.containers.as_deref(), |container| json!({
            "id": exact(&container.id), "name": container.name, "image": container.image,
            "state": word(ContainerState::from_number(container.state)),
            "health": word(HealthState::from_number(container.health)), "exit_code": container.exit_code,
            "labels": container.labels, "readings": values(container.readings.as_ref()),
        })),
        "swarm": seen.swarm.as_ref().map(|swarm| json!({
            "state": word(SwarmState::from_number(swarm.state)), "node_id": known(&swarm.node_id),
            "manager": swarm.manager, "error": known(&swarm.error),
        })),
        "complaints": complaints.collect::<Vec<_>>(),
    })
}

fn host_json(host: &pb::Host) -> Value {
    let links = host.links.iter().map(|link| json!({"name": link.name, "readings": values(link.readings.as_ref())}));
    let cpu: Map<String, Value> = host.cpu.iter().map(|mode| (mode.mode.clone(), json!(mode.seconds_total))).collect();
    json!({
        "hostname": host.hostname, "kernel": host.kernel, "os": host.os, "architecture": host.architecture,
        "reboot_required": host.reboot_required, "clock_synchronized": host.clock_synchronized,
        "cpu_seconds_total": cpu, "links": links.collect::<Vec<_>>(), "readings": values(host.readings.as_ref()),
    })
}

fn rows<R>(table: Option<&Table<R>>, row: impl Fn(&R) -> Value) -> Value {
    table.map_or(Value::Null, |table| table.rows.values().map(row).collect())
}

/// Readings by name, without the prefix that all have.
fn values(wire: Option<&pb::Readings>) -> Value {
    let name = |metric: &Metric| metric.name.trim_start_matches("mainstay_").to_owned();
    let known = readings(wire);
    let of = |(metric, value): (&'static Metric, f64)| {
        // What counts whole things is an integer in JSON too.
        let whole = known.count(metric).filter(|_| value.fract() == 0.0);
        (name(metric), whole.map_or_else(|| json!(value), |whole| json!(whole)))
    };
    known.iter().map(of).collect::<Map<_, _>>().into()
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_shown_as_late_and_names_are_escaped() {
        let mount = pb::Mount {
            path: b"/mnt/\x1b[31mred".to_vec(),
            state: MountState::Hung.number(),
            reason: "no answer".into(),
            ..pb::Mount::default()
        };
        let table = Table { rows: [(mount.path.clone(), mount)].into(), ..Table::default() };
        let seen = Snapshot { mounts: Some(Arc::new(table)), ..Snapshot::default() };
        let sheet = sheet(&seen);
        assert!(sheet.contains("host        no answer in time"), "{sheet}");
        assert!(sheet.contains("hung") && sheet.contains("\\x1b[31mred") && !sheet.contains('\x1b'), "{sheet}");
        assert!(sheet.contains("disks       no answer in time"), "{sheet}");
    }

    #[test]
    fn json_is_exact_and_unknown_is_null() {
        let mut sizes = Readings::new();
        sizes.set_count(&m::DISK_USED_BYTES, 12_345_678_901);
        let disk = pb::Disk {
            mount: b"/a\\\xff".to_vec(),
            state: DiskState::Ok.number(),
            readings: crate::collect::readings(&sizes),
            ..pb::Disk::default()
        };
        let table = Table { rows: [(disk.mount.clone(), disk)].into(), ..Table::default() };
        let json = to_json(&Snapshot { disks: Some(Arc::new(table)), ..Snapshot::default() });
        assert_eq!(json["disks"][0]["mount"], "/a\\\\xff");
        assert_eq!(json["disks"][0]["readings"]["disk_used_bytes"], 12_345_678_901_u64);
        assert!(json["mounts"].is_null() && json["host"].is_null() && json["disks"][0]["reason"].is_null());
    }
}
