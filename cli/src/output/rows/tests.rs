//! How listings look, recorded; and that no name from outside reaches a terminal raw.

use mainstay_common::{
    Timestamp,
    state::{ContainerState, DiskState, HealthState, MountState, NodeState, RemoteState},
};
use mainstay_proto::v1 as pb;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::output::{
    Format, json,
    listing::Listing,
    look::{Look, Size},
    row::Row,
};

const NOON: Timestamp = Timestamp(1_785_500_000_000);
const GIB: u64 = 1 << 30;

fn look(columns: Option<usize>) -> Look {
    Look { size: columns.map(|columns| Size { columns, lines: 24 }), colour: false, unicode: true }
}

fn at(seconds_ago: i64) -> Option<i64> {
    Some(NOON.0 - seconds_ago * 1_000)
}

/// The listing at every width that matters, one under the other.
fn widths<R: Row>(listing: &Listing<R>) -> String {
    let table = |title: &str, format, columns| {
        let text = listing.text(format, NOON, &look(columns)).unwrap();
        let widest = text.lines().map(mainstay_common::text::columns).max().unwrap_or(0);
        assert!(columns.is_none_or(|columns| widest <= columns), "{widest} columns at {title}");
        format!("# {title}\n{text}\n")
    };
    [
        table("50 columns", Format::Table, Some(50)),
        table("80 columns", Format::Table, Some(80)),
        table("120 columns, wide", Format::Wide, Some(120)),
        table("pipe, wide", Format::Wide, None),
        table("names", Format::Name, None),
    ]
    .concat()
}

fn keys(row: &impl Row) -> String {
    let line = json::line(row).unwrap();
    let object: serde_json::Map<String, Value> = serde_json::from_str(&line).unwrap();
    let place = |key: &String| (line.find(&format!("\"{key}\":")).unwrap(), key.clone());
    let mut found: Vec<(usize, String)> = object.keys().map(place).collect();
    found.sort();
    found.into_iter().map(|(_, key)| key).collect::<Vec<_>>().join(" ")
}

fn nodes() -> Listing<NodeRow> {
    let row = |name: &str, state: NodeState, since, seen: Option<i64>, memory_bytes| {
        let labels = [("zone".to_owned(), "a".to_owned()), ("rack".to_owned(), "r7".to_owned())].into();
        NodeRow::from(pb::NodeRow {
            name: name.into(),
            state: state.number(),
            state_since_ms: at(since),
            version: if seen.is_some() { "0.1.0".into() } else { String::new() },
            last_seen_ms: seen.and_then(at),
            labels,
            cpus: seen.map(|_| 8),
            memory_bytes,
        })
    };
    let rows = vec![
        row("n1", NodeState::Ready, 400_000, Some(3), Some(32 * GIB)),
        row("db-1.example.internal", NodeState::Unreachable, 125, Some(215), Some(256 * GIB)),
        row("n7", NodeState::Stale, 12, Some(42), None),
        row("new", NodeState::Pending, 60, None, None),
    ];
    Listing::new(rows, "nothing").sorted(NodeOrder::default())
}

fn disks() -> Listing<DiskRow> {
    let row = |node: &str, mount: &[u8], state: DiskState, used: Option<u64>, total: Option<u64>, ago| {
        DiskRow::from(pb::DiskRow {
            node: node.into(),
            mount: mount.to_vec(),
            device: b"/dev/mapper/vg0-data".to_vec(),
            fs: "ext4".into(),
            total_bytes: total,
            used_bytes: used,
            avail_bytes: total.zip(used).map(|(total, used)| total - used),
            inodes_used: used.map(|_| 34),
            inodes_total: used.map(|_| 100),
            state: state.number(),
            read_at_ms: at(ago),
            detail: None,
        })
    };
    let rows = vec![
        row("n3", b"/var/lib/docker", DiskState::Ok, Some(182 * GIB), Some(200 * GIB), 4),
        row("n9", b"/data", DiskState::Error, None, Some(2_048 * GIB), 4),
        row("n9", b"/srv/a very long path/with spaces/and more/of it", DiskState::Ok, Some(GIB), Some(3 * GIB), 400),
        row("n4", b"/mnt/\x1b[31mred\xff", DiskState::Readonly, Some(GIB), Some(GIB), 4),
    ];
    Listing::new(rows, "nothing").sorted(DiskOrder::default())
}

fn mounts() -> Listing<MountRow> {
    let row = |node: &str, path: &str, state: MountState, since, latency_ms, queue| {
        MountRow::from(pb::MountRow {
            node: node.into(),
            path: path.into(),
            source: b"gdrive:media".to_vec(),
            fs: "fuse.rclone".into(),
            state: state.number(),
            state_since_ms: at(since),
            remote_state: RemoteState::Unknown.number(),
            latency_ms,
            total_bytes: Some(1_000 * GIB),
            used_bytes: Some(10 * GIB),
            avail_bytes: Some(990 * GIB),
            upload_queue: queue,
            cache_bytes: queue.map(|_| 5 * GIB),
            read_at_ms: at(since),
            detail: None,
        })
    };
    let rows = vec![
        row("n7", "/mnt/media", MountState::Hung, 250, None, Some(12)),
        row("n1", "/mnt/backup", MountState::Ok, 90_000, Some(0.31), Some(0)),
        row("n1", "/mnt/slow", MountState::Slow, 15, Some(1_512.0), None),
        row("n2", "/mnt/gone", MountState::Gone, 3_700, None, None),
    ];
    Listing::new(rows, "nothing").sorted(MountOrder::default())
}

fn volumes() -> Listing<VolumeRow> {
    let row = |node: &str, name: &str, size: Option<u64>, measured: Option<i64>, in_use| {
        VolumeRow::from(pb::VolumeRow {
            node: node.into(),
            name: name.into(),
            driver: "local".into(),
            size_bytes: size,
            measured_at_ms: measured.and_then(at),
            in_use,
            read_at_ms: at(5),
            detail: None,
        })
    };
    let rows = vec![
        row("n1", "pgdata", Some(48 * GIB), Some(7_200), Some(true)),
        row("n1", "media-cache", None, None, None),
        row("n2", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0", Some(0), Some(60), Some(false)),
    ];
    Listing::new(rows, "nothing").sorted(VolumeOrder::default())
}

fn containers() -> Listing<ContainerRow> {
    let row = |node: &str, name: &str, state: ContainerState, health: HealthState, cpu_percent, memory_bytes| {
        ContainerRow::from(pb::ContainerRow {
            node: node.into(),
            name: name.into(),
            image: "registry.example/team/web:1.2.3".into(),
            state: state.number(),
            health: health.number(),
            cpu_percent,
            memory_bytes,
            restarts: Some(0),
            read_at_ms: at(5),
            detail: None,
        })
    };
    let rows = vec![
        row("n1", "web.1.x7k2m", ContainerState::Running, HealthState::Healthy, Some(3.27), Some(GIB / 2)),
        row("n1", "job", ContainerState::Exited, HealthState::None, None, None),
        row("n2", "db", ContainerState::Running, HealthState::Unhealthy, Some(187.0), Some(9 * GIB)),
        row("n3", "lost", ContainerState::Unknown, HealthState::Unknown, None, None),
    ];
    Listing::new(rows, "nothing").sorted(ContainerOrder::default())
}

#[test]
fn listings_fit_every_width_and_look_as_recorded() {
    insta::assert_snapshot!("node", widths(&nodes()));
    insta::assert_snapshot!("disk", widths(&disks()));
    insta::assert_snapshot!("mount", widths(&mounts()));
    insta::assert_snapshot!("volume", widths(&volumes()));
    insta::assert_snapshot!("container", widths(&containers()));
}

/// Scripts rely on names and order.
#[test]
fn rows_have_the_keys_that_were_promised() {
    assert_eq!(keys(&nodes().rows[0]), "name state state_since version last_seen labels cpus memory_bytes");
    assert_eq!(
        keys(&disks().rows[0]),
        "node mount device fs total_bytes used_bytes avail_bytes inodes_used inodes_total state read_at"
    );
    assert_eq!(
        keys(&mounts().rows[0]),
        "node path source fs state state_since remote_state latency_ms total_bytes used_bytes avail_bytes upload_queue \
         cache_bytes read_at"
    );
    assert_eq!(keys(&volumes().rows[0]), "node name driver size_bytes measured_at in_use read_at");
    assert_eq!(keys(&containers().rows[0]), "node name image state health cpu_percent memory_bytes restarts read_at");
}

#[test]
fn json_is_exact_and_unknown_is_null() {
    insta::assert_snapshot!("disk_json", disks().text(Format::Json, NOON, &look(None)).unwrap());
    insta::assert_snapshot!("volume_yaml", volumes().text(Format::Yaml, NOON, &look(None)).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn no_name_reaches_a_terminal_as_control(name in proptest::collection::vec(any::<u8>(), 0..60), width in 20usize..140) {
        let disk = pb::DiskRow { mount: name.clone(), device: name.clone(), ..pb::DiskRow::default() };
        let mount = pb::MountRow { path: name.clone(), source: name.clone(), ..pb::MountRow::default() };
        let text = String::from_utf8_lossy(&name).into_owned();
        let container = pb::ContainerRow { name: text.clone(), image: text.clone(), ..pb::ContainerRow::default() };
        let node = pb::NodeRow { name: text.clone(), labels: [(text.clone(), text)].into(), ..pb::NodeRow::default() };
        let texts = [
            Listing::new(vec![DiskRow::from(disk)], "").text(Format::Wide, NOON, &look(Some(width))),
            Listing::new(vec![MountRow::from(mount)], "").text(Format::Wide, NOON, &look(Some(width))),
            Listing::new(vec![ContainerRow::from(container)], "").text(Format::Name, NOON, &look(None)),
            Listing::new(vec![NodeRow::from(node)], "").text(Format::Wide, NOON, &look(Some(width))),
        ];
        for text in texts {
            prop_assert!(text.unwrap().chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
