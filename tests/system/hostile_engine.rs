//! What stands behind the Docker socket is not to be trusted: it may be silent, talk nonsense, or attack the reader.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use mainstay_tests::{Cluster, eventually, fake_engine, wait::holds};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn silence_and_rubbish_are_states_and_delay_nothing() {
    let mut cluster = Cluster::found();
    let place = cluster.folder().to_owned();
    let path = |name: &str| -> PathBuf { place.join(format!("{name}.sock")) };
    let _engines = [
        fake_engine::silent(&path("silent")),
        fake_engine::rubbish(&path("rubbish")),
        fake_engine::other_world(&path("world")),
        fake_engine::refusing(&path("refusing")),
    ];
    let expected = [("silent", "timeout"), ("rubbish", "error"), ("world", "error"), ("refusing", "denied")];
    for (node, _) in expected {
        cluster.add_agent(node, &["--docker-socket", &path(node).to_string_lossy()]);
        let begun = Instant::now();
        cluster.row_becomes(("disk", "node", node), LIMIT, |row| row["total_bytes"].is_u64());
        assert!(begun.elapsed() < Duration::from_secs(5), "disks of {node} waited {:?}", begun.elapsed());
    }
    for (node, state) in expected {
        eventually(&format!("the engine of {node} is {state}"), LIMIT, || {
            let engine = cluster.mainstay(&["node", "show", node, "-o", "json"]).json()["engine"].clone();
            holds(engine["state"] == state && engine["reason"] != "", || engine.to_string())
        });
        let shown = cluster.mainstay(&["node", "show", node]).done();
        assert!(is_harmless(&shown) && shown.contains(state), "{shown:?}");
    }
    let listing = cluster.mainstay(&["container", "ls"]);
    assert!(is_harmless(&listing.stderr) && listing.stderr.lines().count() >= 4, "{listing:?}");
    let for_scripts = cluster.mainstay(&["container", "ls", "-o", "json"]);
    assert_eq!(for_scripts.stdout.trim(), "[]");
    for (node, _) in expected {
        let note = format!("containers of {node} are unknown");
        assert!(for_scripts.stderr.contains(&note), "no containers and not knowing are two things: {for_scripts:?}");
    }
    let status = cluster.mainstay(&["status"]).done();
    assert!(is_harmless(&status) && status.contains("denied"), "{status:?}");
}

#[test]
fn a_thousand_hostile_names_are_shown_harmlessly_and_told_exactly() {
    let mut cluster = Cluster::found();
    let containers: Vec<Value> = (0..1_000).map(hostile).collect();
    let _engine = fake_engine::with_containers(cluster.folder(), containers.clone());
    let socket = cluster.folder().join("fake.sock").to_string_lossy().into_owned();
    let config = cluster.folder().join("agent.toml");
    std::fs::write(&config, "container-labels = [\"*\"]\n").unwrap();
    cluster.add_agent("n1", &["--docker-socket", &socket, "--config", &config.to_string_lossy()]);
    let rows = eventually("all thousand are there and inspected", LIMIT, || {
        let rows = cluster.rows("container");
        let inspected = rows.iter().filter(|row| row["restarts"] == 2).count();
        let all = rows.len() == 1_000 && inspected == 1_000;
        if all { Ok(rows) } else { Err(format!("{} rows, {inspected} inspected", rows.len())) }
    });

    let mut ours: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    let mut theirs: Vec<String> = (0..1_000).map(name).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs, "JSON has names exactly");
    assert!(rows.iter().all(|row| row["image"] == IMAGE));
    for format in ["table", "wide", "name"] {
        let begun = Instant::now();
        let table = cluster.mainstay(&["container", "ls", "-o", format]).done();
        println!("container ls -o {format} of 1,000: {:?}", begun.elapsed());
        assert!(is_harmless(&table), "a byte that terminals act upon in -o {format}");
        let titles = usize::from(format != "name");
        assert_eq!(table.lines().count(), 1_000 + titles, "a name breaks no line");
    }
    let begun = Instant::now();
    drop(cluster.rows("container"));
    println!("container ls -o json of 1,000: {:?}", begun.elapsed());

    // One is shown by its exact name, and by its name as the table writes it.
    for word in [name(1), r"red\x1b[31m1".to_owned()] {
        let shown = cluster.mainstay(&["container", "show", &word]).done();
        assert!(is_harmless(&shown), "{shown:?}");
        let labels = cluster.mainstay(&["container", "show", &word, "-o", "json"]).json()["notes"]["label"].clone();
        let expected = [format!("big={}", "€".repeat(85)), "e=\u{1b}]0;owned\u{7}".to_owned()];
        let labels: Vec<&str> = labels.as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(expected.iter().all(|label| labels.contains(&label.as_str())), "{labels:?}");
    }
}

const IMAGE: &str = "evil\u{1b}[2J/\u{202e}bb:1";

/// One of a thousand, as the engine lists it.
fn hostile(number: usize) -> Value {
    let state = if number.is_multiple_of(2) { "running" } else { "exited" };
    json!({
        "Id": format!("{number:064x}"), "Names": [format!("/{}", name(number))], "Image": IMAGE, "State": state,
        "Status": "Up 5 minutes (\u{1b}[31mhealthy)", "Mounts": [], "HostConfig": { "NetworkMode": "\u{9b}0m" },
        "Labels": { "e": "\u{1b}]0;owned\u{7}", "big": "€".repeat(3_400), "k\u{202e}\n": "v\r\n" },
    })
}

fn name(number: usize) -> String {
    match number % 8 {
        0 => format!("line\nn1    web{number}   running"),
        1 => format!("red\u{1b}[31m{number}"),
        2 => format!("title\u{1b}]0;owned\u{7}{number}"),
        3 => format!("\u{202e}gpj.exe{number}"),
        4 => format!("c1\u{9b}2J{number}"),
        5 => format!("zero\u{200b}\u{feff}\u{2066}width{number}"),
        6 => format!("tab\tcr\rback\u{8}\\x1b{number}"),
        _ => format!("容器🐳{number}"),
    }
}

/// Nothing that a terminal acts upon, hides, or turns around.
fn is_harmless(text: &str) -> bool {
    let is_bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    !text.chars().any(is_bad)
}
