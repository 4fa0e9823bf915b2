//! Volumes, as a real Docker keeps them.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use mainstay_tests::{
    Cluster, DockerLab,
    docker_lab::NEEDS,
    eventually,
    machine::has,
    shell::sh,
    unix_http::{Answer, UnixHttp},
    wait::holds,
};
use serde_json::{Value, json};

/// A walk waits while others wait for the disk, as other stories do.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn volumes_are_those_of_docker_and_sizes_those_of_du() {
    if !has(&NEEDS) {
        return;
    }
    let (lab, mut cluster) = (DockerLab::start(), Cluster::found());
    let _vault = vault(&lab);
    for name in ["data", "rests", "free"] {
        drop(lab.docker(&["volume", "create", name]).done());
    }
    let memory = ["volume", "create", "memory", "-o", "type=tmpfs", "-o", "device=tmpfs"];
    let share = ["volume", "create", "share", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=192.0.2.1"];
    drop((lab.docker(&memory).done(), lab.docker(&share).done()));
    let fill = "cd /v && mkdir -p a/b && head -c 3000000 /dev/zero > a/big && echo small > a/b/small &&
        ln a/big twice && ln -s /proc away && dd if=/dev/zero of=sparse bs=1 count=1 seek=50000000";
    drop(lab.docker(&["run", "--rm", "-v", "data:/v", "bb:1", "sh", "-c", fill]).done());
    drop(lab.docker(&["run", "--name", "ended", "-v", "rests:/v", "bb:1", "true"]).done());
    lab.run("web", &["-v", "data:/one", "-v", "data:/two"], &[]);
    cluster.add_agent("n1", &["--docker-socket", &lab.socket_text()]);
    drop(lab.docker(&["volume", "create", "--driver", "vault", "safe"]).done());

    equal_docker(&lab, &cluster);
    for (name, in_use) in [("data", true), ("rests", true), ("free", false), ("memory", false), ("safe", false)] {
        becomes(&cluster, name, |row| row["in_use"] == in_use);
    }
    let used_by = |name: &str| show(&cluster, name)["notes"]["used_by"].clone();
    assert_eq!((used_by("data"), used_by("rests")), (json!(["web"]), json!(["ended"])));
    for (name, why) in [("memory", "memory"), ("share", "server"), ("safe", "driver")] {
        let shown = show(&cluster, name);
        assert_eq!(shown["size_bytes"], Value::Null, "{shown}");
        assert!(shown["notes"]["reason"][0].as_str().unwrap().contains(why), "{shown}");
    }
    for name in ["data", "free"] {
        let row = becomes(&cluster, name, |row| row["size_bytes"].is_u64());
        let folder = folder(&lab, name);
        assert_eq!(row["size_bytes"], du(&folder, "-sx --block-size=1"), "{name}");
        let readings = show(&cluster, name)["readings"].clone();
        assert_eq!(readings["mainstay_volume_apparent_bytes"], du(&folder, "-sbx"), "{name}");
    }

    // What is written later is not known before the next measure, and the row says of when it is.
    let before = becomes(&cluster, "data", |row| row["size_bytes"].as_u64() > Some(3_000_000));
    drop(lab.docker(&["exec", "web", "sh", "-c", "head -c 4000000 /dev/zero > /one/more"]).done());
    let after = becomes(&cluster, "data", |row| row["read_at"] != before["read_at"]);
    for key in ["size_bytes", "measured_at"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    let moment = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    assert!(moment(&after, "measured_at") < moment(&after, "read_at"), "{after}");
    cluster.add_agent("n2", &["--docker-socket", &lab.socket_text()]);
    let fresh = eventually("another agent measures anew", LIMIT, || {
        let rows = cluster.rows("volume").into_iter();
        let mut found = rows.filter(|row| row["node"] == "n2" && row["name"] == "data");
        found.next().filter(|row| row["size_bytes"].is_u64()).ok_or("not measured yet")
    });
    assert_eq!(fresh["size_bytes"], du(&folder(&lab, "data"), "-sx --block-size=1"));
    assert!(moment(&fresh, "measured_at") > moment(&before, "measured_at"));
    cluster.take_agent("n2").stop();
    drop(cluster.mainstay(&["node", "rm", "n2", "--yes"]).done());

    // A measure outlives the agent, with its moment.
    cluster.take_agent("n1").stop();
    cluster.start_agent("n1", &["--docker-socket", &lab.socket_text()]);
    let again = becomes(&cluster, "data", |row| row["read_at"].as_str() > after["read_at"].as_str());
    assert_eq!((&again["size_bytes"], &again["measured_at"]), (&before["size_bytes"], &before["measured_at"]));

    // Volumes come and go by events.
    drop(lab.docker(&["volume", "create", "late"]).done());
    becomes(&cluster, "late", |row| row["in_use"] == false);
    drop(lab.docker(&["volume", "rm", "free", "late", "safe"]).done());
    drop(lab.docker(&["rm", "-f", "-v", "web", "ended"]).done());
    becomes(&cluster, "data", |row| row["in_use"] == false);
    equal_docker(&lab, &cluster);
}

/// A driver of its own kind, where the lab's engine looks for plugins. It keeps one volume at most.
fn vault(lab: &DockerLab) -> UnixHttp {
    let plugins = lab.folder().join("run/docker/plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    let kept = AtomicBool::new(false);
    UnixHttp::serve(&plugins.join("vault.sock"), move |asked| {
        let volume = json!({ "Name": "safe", "Mountpoint": "" });
        let is_kept = kept.load(Ordering::SeqCst);
        let told = match asked.path.as_str() {
            "/Plugin.Activate" => json!({ "Implements": ["VolumeDriver"] }),
            "/VolumeDriver.Capabilities" => json!({ "Capabilities": { "Scope": "local" } }),
            "/VolumeDriver.Get" if is_kept => json!({ "Volume": volume, "Err": "" }),
            "/VolumeDriver.Get" => json!({ "Err": "no such volume" }),
            "/VolumeDriver.List" if is_kept => json!({ "Volumes": [volume], "Err": "" }),
            "/VolumeDriver.List" => json!({ "Volumes": [], "Err": "" }),
            change => {
                match change {
                    "/VolumeDriver.Create" => kept.store(true, Ordering::SeqCst),
                    "/VolumeDriver.Remove" => kept.store(false, Ordering::SeqCst),
                    _ => {}
                }
                json!({ "Err": "" })
            }
        };
        Answer::Json(200, told.to_string())
    })
}

fn equal_docker(lab: &DockerLab, cluster: &Cluster) {
    eventually("volumes are those of docker volume ls", LIMIT, || {
        let mut theirs = lab.lines(&["volume", "ls", "--format", "{{.Name}} {{.Driver}}"]);
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("?").to_owned();
        let rows = cluster.rows("volume").into_iter().filter(|row| row["node"] == "n1");
        let mut ours: Vec<String> =
            rows.map(|row| format!("{} {}", text(&row, "name"), text(&row, "driver"))).collect();
        ours.sort();
        theirs.sort();
        holds(ours == theirs, || format!("{ours:?} {theirs:?}"))
    });
}

fn becomes(cluster: &Cluster, name: &str, is: impl FnMut(&Value) -> bool) -> Value {
    cluster.row_becomes(("volume", "name", name), LIMIT, is)
}

fn show(cluster: &Cluster, name: &str) -> Value {
    cluster.mainstay(&["volume", "show", &format!("n1/{name}"), "-o", "json"]).json()
}

fn folder(lab: &DockerLab, volume: &str) -> String {
    lab.folder().join("data/volumes").join(volume).join("_data").to_string_lossy().into_owned()
}

fn du(folder: &str, flags: &str) -> u64 {
    assert!(Path::new(folder).is_dir(), "{folder}");
    sh(&format!("du {flags} {folder}")).split_whitespace().next().unwrap().parse().unwrap()
}
