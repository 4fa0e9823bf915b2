//! Containers, as a real Docker runs them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
    time::{Duration, Instant},
};

use mainstay_tests::{
    Cluster, Daemon, DockerLab,
    docker_lab::{IMAGE, NEEDS},
    eventually,
    machine::{Need, free_port, has},
    shell::sh,
    wait::{holds, throughout},
};
use serde_json::Value;

/// Machines that run stories are shared.
const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn rows_are_what_docker_says() {
    if !has(&NEEDS) {
        return;
    }
    let (mut lab, mut cluster) = (DockerLab::start(), Cluster::found());
    lab.run("web", &["-m", "64m"], &["sh", "-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 1000000; :"]);
    lab.run("busy", &["--cpus", "0.2"], &["sh", "-c", "while :; do :; done"]);
    lab.run("done", &[], &["sh", "-c", "exit 3"]);
    lab.run("again", &["--restart", "always"], &["false"]);
    lab.run("waits", &[], &[]);
    let check = ["--health-interval", "1s", "--health-retries", "1", "--health-cmd"];
    lab.run("fit", &[&check[..], &["true"]].concat(), &[]);
    lab.run("ill", &[&check[..], &["false"]].concat(), &[]);
    lab.run("unsure", &["--health-cmd", "sleep 1000", "--health-interval", "1s"], &[]);
    lab.run("hungry", &["-m", "12m"], &["sh", "-c", "tail /dev/zero; sleep 1000000"]);
    drop(lab.docker(&["create", "--name", "new", IMAGE]).done());
    drop(lab.docker(&["pause", "waits"]).done());
    cluster.add_agent("n1", &["--docker-socket", &lab.socket_text()]);

    eventually("states are those of docker ps -a", LIMIT, || {
        let mut theirs = lab.lines(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Image}}"]);
        let mut ours: Vec<String> = cluster.rows("container").iter().map(state_and_image).collect();
        ours.sort();
        theirs.sort();
        holds(ours == theirs, || format!("{ours:?} {theirs:?}"))
    });
    for (name, health) in [("fit", "healthy"), ("ill", "unhealthy"), ("unsure", "starting"), ("web", "none")] {
        becomes(&cluster, name, |row| row["health"] == health);
    }
    eventually("restarts are those of docker inspect", LIMIT, || {
        let theirs = lab.docker(&["inspect", "-f", "{{.RestartCount}}", "again"]).done();
        let theirs: u64 = theirs.trim().parse().unwrap();
        let ours = row(&cluster, "again")["restarts"].as_u64();
        holds(theirs > 1 && ours == Some(theirs), || format!("{ours:?} {theirs}"))
    });
    eventually("an exit code is that of docker inspect", LIMIT, || {
        let notes = show(&cluster, "done")["notes"].clone();
        holds(notes["exit_code"] == serde_json::json!(["3"]), || notes.to_string())
    });
    eventually("a process that was killed for lack of memory is counted", LIMIT, || {
        let readings = show(&cluster, "hungry")["readings"].clone();
        holds(readings["mainstay_container_oom_kills_total"] == 1, || readings.to_string())
    });
    eventually("CPU and memory are near those of docker stats", LIMIT, || {
        let stats = stats(&lab);
        for (name, (cpu, memory)) in ["web", "busy", "fit"].map(|name| (name, stats[name])) {
            let row = row(&cluster, name);
            let (Some(our_cpu), Some(our_memory)) = (row["cpu_percent"].as_f64(), row["memory_bytes"].as_f64()) else {
                return Err(format!("no numbers: {row}"));
            };
            let near = (our_cpu - cpu).abs() < 6.0 && (our_memory - memory).abs() < 0.1 * memory + 500_000.0;
            holds(near, || format!("{row}, docker stats says {cpu} % {memory}"))?;
        }
        holds(stats["busy"].0 > 5.0 && stats["web"].1 > 20e6, || format!("the story is too weak: {stats:?}"))
    });

    // What happens is told by events, long before the next list.
    let begun = Instant::now();
    drop(lab.docker(&["unpause", "waits"]).done());
    becomes(&cluster, "waits", |row| row["state"] == "running");
    drop(lab.docker(&["kill", "waits"]).done());
    becomes(&cluster, "waits", |row| row["state"] == "exited" && row["memory_bytes"].is_null());
    drop(lab.docker(&["rename", "waits", "rests"]).done());
    becomes(&cluster, "rests", |row| row["state"] == "exited");
    drop(lab.docker(&["rm", "rests"]).done());
    eventually("a container that was removed is gone", LIMIT, || {
        holds(cluster.row("container", "name", "rests").is_none(), || "it is still there".to_owned())
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "that took {:?}", begun.elapsed());

    // An engine that was killed leaves its socket behind.
    lab.kill_engine();
    engine_becomes(&cluster, "n1", &["refused"]);
}

#[test]
fn a_hundred_containers_and_texts_that_deceive() {
    if !has(&NEEDS) {
        return;
    }
    let (lab, mut cluster) = (DockerLab::start(), Cluster::found());
    let long = format!("x{}", ".-_".repeat(80));
    let deceit = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n\u{202e}gpj.exe\u{200b}\u{9b}31m\\x";
    let label = format!("evil={deceit}");
    lab.run("liar", &["--label", &label, "--label", "com.docker.compose.project=\u{1b}[31mred"], &[]);
    lab.run(&long, &["--label", &format!("evil.long={}", "y".repeat(10_000))], &[]);
    let docker = format!("docker -H unix://{}", lab.socket_text());
    let create = format!("{docker} create --stop-signal KILL --name c{{}} {IMAGE}");
    drop(sh(&format!("seq 98 | xargs -P 4 -I {{}} {create} && seq 10 | xargs -P 4 -I {{}} {docker} start c{{}}")));
    let config = cluster.folder().join("agent.toml");
    std::fs::write(&config, "container-labels = [\"evil*\"]\n").unwrap();
    cluster.add_agent("n1", &["--config", &config.to_string_lossy(), "--docker-socket", &lab.socket_text()]);

    eventually("all hundred are there, and those that run are measured", LIMIT, || {
        let rows = cluster.rows("container");
        let measured = rows.iter().filter(|row| row["memory_bytes"].as_u64().is_some()).count();
        holds(rows.len() == 100 && measured == 12, || format!("{} rows, {measured} measured", rows.len()))
    });
    let liar = show(&cluster, "liar");
    let labels = liar["notes"]["label"].as_array().unwrap();
    assert!(labels.contains(&label.into()), "JSON has it exactly: {labels:?}");
    assert_eq!(liar["notes"]["stack"], serde_json::json!(["\u{1b}[31mred"]));
    let cut = row(&cluster, &long[..128]);
    assert_eq!(cut["state"], "running", "a longer name is cut");
    let long_label = show(&cluster, &long[..128])["notes"]["label"].clone();
    assert_eq!(long_label, serde_json::json!([format!("evil.long={}", "y".repeat(256))]), "a longer label is cut");
    for words in [&["container", "ls"][..], &["container", "ls", "-o", "wide"], &["container", "show", "liar"]] {
        let table = cluster.mainstay(words).done();
        assert!(table.contains("liar") && is_harmless(&table), "{words:?}: {table:?}");
    }
    let shown = cluster.mainstay(&["container", "show", "liar"]).done();
    assert!(shown.contains(r"\x1b[2J\x1b]0;owned\x07\r\n\u{202e}gpj.exe\u{200b}\x9b31m\\x"), "{shown}");
}

#[test]
fn an_engine_that_stops_makes_containers_unknown_and_nothing_else() {
    if !has(&NEEDS) {
        return;
    }
    let (mut lab, mut cluster) = (DockerLab::start(), Cluster::found());
    lab.run("web", &["--restart", "always"], &[]);
    lab.run("job", &[], &[]);
    drop(lab.docker(&["volume", "create", "data"]).done());
    cluster.add_agent("n1", &["--docker-socket", &lab.socket_text()]);
    for name in ["web", "job"] {
        becomes(&cluster, name, |row| row["state"] == "running" && row["memory_bytes"].is_u64());
    }
    cluster.row_becomes(("volume", "name", "data"), LIMIT, |row| row["in_use"] == false);

    lab.stop_engine();
    // Docker takes its socket with it.
    let engine = engine_becomes(&cluster, "n1", &["missing", "refused"]);
    assert!(engine["reason"].as_str().unwrap().contains(&lab.socket_text()), "{engine}");
    let unknown = row(&cluster, "web");
    assert_eq!((&unknown["state"], &unknown["health"]), (&"unknown".into(), &"unknown".into()), "{unknown}");
    assert_eq!((&unknown["cpu_percent"], &unknown["memory_bytes"]), (&Value::Null, &Value::Null));
    assert_eq!(cluster.row("volume", "name", "data").unwrap()["in_use"], Value::Null, "nobody can know");
    let listing = cluster.mainstay(&["container", "ls"]);
    assert!(listing.stderr.contains("containers of n1 are unknown"), "{listing:?}");
    let trouble = cluster.mainstay(&["status", "-o", "json"]).json()["troubles"].clone();
    assert!(trouble.as_array().unwrap().iter().any(|one| one["noun"] == "engine"), "{trouble}");
    stays_fresh(&cluster, Duration::from_secs(5));

    lab.start_engine();
    becomes(&cluster, "web", |row| row["state"] == "running" && row["memory_bytes"].is_u64());
    becomes(&cluster, "job", |row| row["state"] == "exited");
    engine_becomes(&cluster, "n1", &["ok"]);
    cluster.row_becomes(("volume", "name", "data"), LIMIT, |row| row["in_use"] == false);
    assert_eq!(cluster.mainstay(&["container", "ls"]).stderr, "");
    let complaints = cluster.mainstay(&["node", "show", "n1", "-o", "json"]).json()["complaints"].clone();
    assert_eq!(complaints, serde_json::json!([]));
}

#[test]
fn what_a_frozen_engine_said_ages_and_then_is_unknown() {
    if !has(&NEEDS) {
        return;
    }
    let (lab, mut cluster) = (DockerLab::start(), Cluster::found());
    lab.run("web", &[], &[]);
    let address = format!("127.0.0.1:{}", free_port());
    cluster.add_agent("n1", &["--docker-socket", &lab.socket_text(), "--metrics", &address]);
    becomes(&cluster, "web", |row| row["state"] == "running" && row["cpu_percent"].is_number());
    assert!(metrics(&address).contains("mainstay_container_memory_used_bytes{"));
    lab.freeze();
    let frozen = Instant::now();
    let engine = engine_becomes(&cluster, "n1", &["timeout"]);
    assert!(frozen.elapsed() < Duration::from_secs(20), "noticed after {:?}", frozen.elapsed());
    assert!(engine["reason"].as_str().unwrap().contains("no answer"), "{engine}");
    let unknown = becomes(&cluster, "web", |row| row["state"] == "unknown");
    assert!(unknown["cpu_percent"].is_null() && unknown["memory_bytes"].is_null(), "{unknown}");
    // On the machine itself what the kernel told last counts a while longer: half a minute after the last answer.
    eventually("the agent itself forgets", LIMIT, || {
        let metrics = metrics(&address);
        let is_forgotten = metrics.contains("mainstay_engine_state{") && !metrics.contains("mainstay_container_");
        holds(is_forgotten, || metrics.clone())
    });
    assert!(frozen.elapsed() < Duration::from_secs(45), "forgotten after {:?}", frozen.elapsed());
    assert_ne!(row(&cluster, "web")["state"], "running");
    stays_fresh(&cluster, Duration::from_secs(3));
    lab.thaw();
    becomes(&cluster, "web", |row| row["state"] == "running" && row["cpu_percent"].is_number());
    engine_becomes(&cluster, "n1", &["ok"]);
}

#[test]
fn a_socket_that_is_missing_or_refuses_is_a_state() {
    let mut cluster = Cluster::found();
    let place = cluster.folder().to_owned();
    let path = |name: &str| place.join(name).to_string_lossy().into_owned();
    std::fs::write(path("file"), "no socket").unwrap();
    drop(UnixListener::bind(path("left-over")).unwrap());
    let _nobody_may = UnixListener::bind(path("forbidden")).unwrap();
    std::fs::set_permissions(path("forbidden"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for (name, socket) in [("missing", "none/none"), ("file", "file"), ("left-over", "left-over")] {
        cluster.add_agent(name, &["--docker-socket", &path(socket)]);
    }
    let mut expected = BTreeMap::from([("missing", "missing"), ("file", "refused"), ("left-over", "refused")]);
    let mut humble = None;
    if has(&[Need::Root]) {
        cluster.enroll("denied");
        drop(sh(&format!("chmod 711 {0} {0}/agents && chown -R 65534:65534 {0}/agents/denied", place.display())));
        let mut run = cluster.agent_command("denied", &["--docker-socket", &path("forbidden")]);
        let mut daemon = Daemon::start("agent denied", run.uid(65_534).gid(65_534));
        daemon.is_ready();
        humble = Some(daemon);
        expected.insert("denied", "denied");
    }
    for (node, state) in &expected {
        let engine = engine_becomes(&cluster, node, &[state]);
        let reason = engine["reason"].as_str().unwrap();
        assert!(reason.contains(&place.to_string_lossy().into_owned()), "it says which socket: {reason}");
        cluster.row_becomes(("disk", "node", node), LIMIT, |row| row["total_bytes"].is_u64());
    }
    assert_eq!(cluster.rows("container"), Vec::<Value>::new());
    let listing = cluster.mainstay(&["container", "ls"]);
    for node in expected.keys() {
        assert!(listing.stderr.contains(&format!("containers of {node} are unknown")), "{listing:?}");
    }
    drop(humble);
}

fn row(cluster: &Cluster, name: &str) -> Value {
    cluster.row("container", "name", name).unwrap_or_else(|| panic!("no container {name}"))
}

fn show(cluster: &Cluster, name: &str) -> Value {
    cluster.mainstay(&["container", "show", name, "-o", "json"]).json()
}

fn becomes(cluster: &Cluster, name: &str, is: impl FnMut(&Value) -> bool) -> Value {
    cluster.row_becomes(("container", "name", name), LIMIT, is)
}

fn state_and_image(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or("?").to_owned();
    format!("{} {} {}", text("name"), text("state"), text("image"))
}

/// What the agent serves to Prometheus.
fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Waits until the engine of a node is in one of these states; what is known of it.
fn engine_becomes(cluster: &Cluster, node: &str, states: &[&str]) -> Value {
    eventually(&format!("the engine of {node} is {states:?}"), LIMIT, || {
        let engine = cluster.mainstay(&["node", "show", node, "-o", "json"]).json()["engine"].clone();
        let is = engine["state"].as_str().is_some_and(|state| states.contains(&state));
        if is { Ok(engine) } else { Err(engine.to_string()) }
    })
}

/// Whatever Docker does, disks are read on.
fn stays_fresh(cluster: &Cluster, span: Duration) {
    let read_at = || cluster.rows("disk")[0]["read_at"].as_str().unwrap().to_owned();
    let (mut last, mut since) = (read_at(), Instant::now());
    throughout("disks are fresh", span, || {
        let now = read_at();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        holds(since.elapsed() < Duration::from_secs(5), || format!("read at {last} for {:?}", since.elapsed()))
    });
}

/// CPU in percent of one processor and memory in bytes, by container.
fn stats(lab: &DockerLab) -> BTreeMap<String, (f64, f64)> {
    let lines = lab.lines(&["stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}"]);
    let number = |text: &str| text.trim_end_matches(|c: char| c.is_alphabetic() || c == '%').parse::<f64>().unwrap();
    let parse = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let factor = match words[2].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "GiB" => 1_073_741_824.0,
            "MiB" => 1_048_576.0,
            "KiB" => 1_024.0,
            _ => 1.0,
        };
        (words[0].to_owned(), (number(words[1]), number(words[2]) * factor))
    };
    lines.iter().map(parse).collect()
}

/// Nothing that a terminal acts upon, nor what turns its order around.
fn is_harmless(text: &str) -> bool {
    !text.chars().any(|c| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c))
}
