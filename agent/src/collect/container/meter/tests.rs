use mainstay_common::metric::catalogue as m;

use super::*;

const V1: (&str, u32, &str) = ("cgroup-v1", 4_711, "05fd5e1643ade8e88e1f08d1dff87df86c3f9904461ec49bb352028b13473493");
const V2: (&str, u32, &str) = ("cgroup-v2", 4_712, "c0ffee0000000000000000000000000000000000000000000000000000c0ffee");

#[test]
fn a_container_on_a_machine_of_version_1() {
    let usage = recorded(V1);
    let readings = usage.readings();
    assert_eq!(readings.get(&m::CONTAINER_CPU_SECONDS_TOTAL), Some(0.849_991_993));
    assert_eq!(readings.get(&m::CONTAINER_THROTTLED_SECONDS_TOTAL), Some(3.144_283_755));
    let count = |metric| readings.count(metric);
    // `docker stats` showed 644 KiB of 64 MiB.
    assert_eq!(count(&m::CONTAINER_MEMORY_USED_BYTES), Some(3_805_184 - 3_145_728));
    assert_eq!(count(&m::CONTAINER_MEMORY_LIMIT_BYTES), Some(64 << 20));
    assert_eq!((count(&m::CONTAINER_PIDS), usage.oom_kills), (Some(1), Some(0)));
    assert_eq!(count(&m::CONTAINER_BLOCK_READ_BYTES_TOTAL), Some(0));
    assert_eq!(count(&m::CONTAINER_NETWORK_RECEIVE_BYTES_TOTAL), Some(0), "only loopback: nothing came in");
}

#[test]
fn a_container_on_a_machine_of_version_2() {
    let usage = recorded(V2);
    let readings = usage.readings();
    assert_eq!(readings.get(&m::CONTAINER_CPU_SECONDS_TOTAL), Some(8.123_456));
    assert_eq!(readings.get(&m::CONTAINER_THROTTLED_SECONDS_TOTAL), Some(1.5));
    let count = |metric| readings.count(metric);
    assert_eq!(count(&m::CONTAINER_MEMORY_USED_BYTES), Some(73_400_320 - 20_971_520));
    assert_eq!(count(&m::CONTAINER_MEMORY_LIMIT_BYTES), Some(512 << 20));
    assert_eq!((count(&m::CONTAINER_PIDS), usage.oom_kills), (Some(11), Some(2)));
    assert_eq!(count(&m::CONTAINER_BLOCK_READ_BYTES_TOTAL), Some(27_262_976));
    assert_eq!(count(&m::CONTAINER_BLOCK_WRITTEN_BYTES_TOTAL), Some(12_288));
    assert_eq!(count(&m::CONTAINER_NETWORK_RECEIVE_BYTES_TOTAL), Some(735_299));
}

#[test]
fn on_the_hosts_network_bytes_are_unknown() {
    let (mut meters, mut target) = meters(V2);
    target.own_network = false;
    let round = meters.round(&[target], Instant::now());
    assert_eq!(round.read[0].1.readings().get(&m::CONTAINER_NETWORK_RECEIVE_BYTES_TOTAL), None);
}

#[test]
fn limits_are_read_once_a_minute_and_stay() {
    let place = copy_of_version_2();
    let (mut meters, target) = (Meters::new(&place.path().join("proc"), &place.path().join("sys")), target(V2));
    let start = Instant::now();
    let pids = |round: &Round| round.read[0].1.readings().count(&m::CONTAINER_PIDS);
    let used = |round: &Round| round.read[0].1.readings().count(&m::CONTAINER_MEMORY_USED_BYTES);
    assert_eq!(pids(&meters.round(std::slice::from_ref(&target), start)), Some(11));
    write(&place, "pids.current", "12\n");
    write(&place, "memory.current", "20971521\n");
    let soon = meters.round(std::slice::from_ref(&target), start + Duration::from_secs(10));
    assert_eq!((pids(&soon), used(&soon)), (Some(11), Some(1)));
    assert_eq!(pids(&meters.round(&[target], start + SLOW_EVERY)), Some(12));
}

#[test]
fn of_a_container_that_did_nothing_no_more_is_read() {
    let place = copy_of_version_2();
    let (mut meters, target) = (Meters::new(&place.path().join("proc"), &place.path().join("sys")), target(V2));
    let start = Instant::now();
    let mut read = |seconds: u64| {
        let round = meters.round(std::slice::from_ref(&target), start + Duration::from_secs(seconds));
        round.read[0].1.readings().count(&m::CONTAINER_BLOCK_READ_BYTES_TOTAL)
    };
    assert_eq!(read(0), Some(27_262_976));
    write(&place, "io.stat", "259:0 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n");
    assert_eq!(read(10), Some(27_262_976), "it did nothing");
    write(&place, "memory.current", "20971521\n");
    assert_eq!(read(20), Some(1), "its memory changed");
    write(&place, "io.stat", "259:0 rbytes=2 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n");
    write(&place, "cpu.stat", "usage_usec 9000000\n");
    assert_eq!(read(30), Some(2), "it ran");
    write(&place, "io.stat", "259:0 rbytes=3 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n");
    assert_eq!((read(50), read(60)), (Some(2), Some(3)), "once a minute everything is read");
}

#[test]
fn a_container_that_ended_is_lost_and_its_files_are_closed() {
    let (mut meters, target) = meters(V2);
    meters.round(std::slice::from_ref(&target), Instant::now());
    assert_eq!(meters.held, 4);
    meters.round(&[], Instant::now());
    assert_eq!((meters.held, meters.meters.len()), (0, 0));
    let gone = Target { pid: 1, ..target.clone() };
    let round = meters.round(std::slice::from_ref(&gone), Instant::now());
    assert_eq!((round.read.len(), round.lost), (0, vec![target.id]));
}

#[test]
fn many_containers_are_all_read_but_not_all_held() {
    let place = tempfile::tempdir().unwrap();
    let path = |of: &str| place.path().join(of);
    fs::create_dir_all(path("proc/self")).unwrap();
    fs::write(path("proc/self/mountinfo"), "26 24 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").unwrap();
    let targets: Vec<_> = (1..=100_u32)
        .map(|pid| {
            let id = format!("{pid:064x}");
            fs::create_dir_all(path(&format!("proc/{pid}"))).unwrap();
            fs::write(path(&format!("proc/{pid}/cgroup")), format!("0::/docker/{id}\n")).unwrap();
            let folder = path(&format!("sys/fs/cgroup/docker/{id}"));
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in [
                ("cpu.stat", format!("usage_usec {pid}000000\n")),
                ("memory.current", "1\n".into()),
                ("memory.stat", "inactive_file 0\n".into()),
                ("io.stat", String::new()),
            ] {
                fs::write(folder.join(name), text).unwrap();
            }
            Target { id: id.as_str().into(), pid, own_network: false }
        })
        .collect();
    let mut meters = Meters::new(&path("proc"), &path("sys"));
    for _ in 0..2 {
        let round = meters.round(&targets, Instant::now());
        let cpu: f64 = round.read.iter().filter_map(|(_, u)| u.readings().get(&m::CONTAINER_CPU_SECONDS_TOTAL)).sum();
        assert_eq!(cpu, 5_050.0);
        assert_eq!(meters.held, HELD_LIMIT);
    }
    meters.round(&targets[50..], Instant::now() + SLOW_EVERY);
    assert_eq!(meters.held, 200, "what is closed makes room for others");
}

fn recorded(tree: (&str, u32, &str)) -> Usage {
    let (mut meters, target) = meters(tree);
    let mut round = meters.round(&[target], Instant::now());
    assert!(round.lost.is_empty());
    round.read.pop().unwrap().1
}

fn meters(tree: (&str, u32, &str)) -> (Meters, Target) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(tree.0);
    (Meters::new(&root.join("proc"), &root.join("sys")), target(tree))
}

fn target((_, pid, id): (&str, u32, &str)) -> Target {
    Target { id: id.into(), pid, own_network: true }
}

fn copy_of_version_2() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cgroup-v2");
    let mut waiting = vec![from.clone()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let to = place.path().join(entry.path().strip_prefix(&from).unwrap());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir_all(to).unwrap();
                waiting.push(entry.path());
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    place
}

fn write(place: &tempfile::TempDir, name: &str, text: &str) {
    let folder = format!("sys/fs/cgroup/system.slice/docker-{}.scope", V2.2);
    fs::write(place.path().join(folder).join(name), text).unwrap();
}
