//! A Swarm, as its own managers see it.

use std::time::Duration;

use mainstay_tests::{
    Cluster, docker_lab, eventually,
    machine::has,
    swarm_lab::{NEEDS, SIZE, SwarmLab},
    wait::holds,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_manager_tells_what_docker_tells_of_its_swarm() {
    if !has(&docker_lab::NEEDS) || !has(&NEEDS) {
        return;
    }
    let (mut lab, mut cluster) = (SwarmLab::start(), Cluster::found());
    lab.serve("web", &["--replicas", "4"]);
    lab.serve("each", &["--mode", "global"]);
    for (name, node) in [("m1", 0), ("w2", 1)] {
        cluster.add_agent(name, &["--docker-socket", &lab.nodes[node].socket_text()]);
    }
    equal_docker(&lab, &cluster);
    let place = |name: &str| {
        let swarm = swarm(&cluster, name);
        ["state", "manager", "availability", "reachability"].map(|key| swarm[key].clone())
    };
    assert_eq!(place("m1"), [json!("active"), json!(true), json!("active"), json!("reachable")]);
    let worker = place("w2");
    assert_eq!(worker[..2], [json!("active"), json!(false)]);
    assert_eq!(swarm(&cluster, "w2")["nodes"], Value::Null, "a worker does not know its Swarm");
    let shown = |name: &str| cluster.mainstay(&["node", "show", name]).done();
    assert!(has_line(&shown("w2"), &["role", "worker"]), "{}", shown("w2"));
    let manager = shown("m1");
    for line in [["role", "manager"], ["nodes", "3"], ["services", "2"], ["tasks", "7"]] {
        assert!(has_line(&manager, &line), "{line:?} {manager}");
    }
    containers_name_their_service(&lab, &cluster);

    drop(lab.manager().docker(&["node", "promote", "node2"]).done());
    // The promotion is still on its way: the Swarm refuses what was made of an older version of the node.
    eventually("the Swarm takes the drain", Duration::from_secs(30), || {
        let told = lab.manager().docker(&["node", "update", "--availability", "drain", "node2"]);
        holds(told.code == 0, || told.stderr.clone())
    });
    swarm_becomes(&cluster, "node2 drains", |swarm| node(swarm, "node2")["availability"] == "drain");
    drop(lab.manager().docker(&["service", "scale", "-d", "web=1"]).done());
    equal_docker(&lab, &cluster);

    lab.nodes[2].kill_engine();
    swarm_becomes(&cluster, "node3 is down", |swarm| node(swarm, "node3")["state"] == "down");
    equal_docker(&lab, &cluster);

    // A worker that became a manager finds out by itself; its engine does not tell.
    eventually("w2 is a manager", Duration::from_secs(100), || {
        let place = place("w2");
        holds(place[1..] == [json!(true), json!("drain"), json!("reachable")], || format!("{place:?}"))
    });
}

/// Nodes, services and running tasks are those that the manager's own command line shows.
fn equal_docker(lab: &SwarmLab, cluster: &Cluster) {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("?").to_owned();
    let docker = |words: &[&str]| {
        let mut lines = lab.manager().lines(words);
        lines.sort();
        lines
    };
    swarm_becomes(cluster, "the Swarm is as docker node ls and docker service ls say", |swarm| {
        let nodes = |row: &Value| {
            let manager = match (row["leader"].as_bool(), text(row, "reachability").as_str()) {
                (Some(true), _) => "leader",
                (_, "reachable") => "reachable",
                _ => "",
            };
            format!("{} {} {} {manager}", text(row, "hostname"), text(row, "state"), text(row, "availability"))
        };
        let services = |row: &Value| {
            let count = format!("{}/{}", row["running"], row["desired"]);
            format!("{} {} {count} {}", text(row, "name"), text(row, "mode"), text(row, "image"))
        };
        let is_running = |row: &&Value| row["state"] == "running" && row["desired_state"] == "running";
        let tasks = all(swarm, "tasks").iter().filter(is_running).map(|row| text(row, "id")).collect();
        let node_format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}";
        let mut node_lines = docker(&["node", "ls", "--format", node_format]);
        node_lines.iter_mut().for_each(|line| *line = line.to_lowercase());
        let service_lines = docker(&["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}"]);
        let is_whole = service_lines.iter().all(|line| {
            let count = line.split(' ').nth(2).and_then(|count| count.split_once('/'));
            count.is_some_and(|(running, desired)| running == desired)
        });
        let filter = ["--filter", "desired-state=running", "-q", "--no-trunc"];
        let task_lines = docker(&[&["service", "ps", "web", "each"][..], &filter].concat());
        let by = |key: &str, line: &dyn Fn(&Value) -> String| all(swarm, key).iter().map(line).collect();
        let down = node_lines.iter().any(|line| line.contains(" down "));
        // While a machine is lost, its tasks are running on paper for a while.
        sorted(by("nodes", &nodes)) == node_lines
            && (down || is_whole && sorted(tasks) == task_lines)
            && sorted(by("services", &services)) == service_lines
    });
}

fn containers_name_their_service(lab: &SwarmLab, cluster: &Cluster) {
    let labels = r#"{{.Label "com.docker.swarm.service.name"}} {{.Label "com.docker.swarm.task.name"}}"#;
    for (node, agent) in [(0, "m1"), (1, "w2")] {
        let format = format!("{{{{.Names}}}} {labels}");
        let lines = lab.nodes[node].lines(&["ps", "--format", &format]);
        assert!(lines.len() >= 2, "{lines:?}");
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let which = format!("{agent}/{}", words[0]);
            eventually(&which, LIMIT, || {
                let shown = cluster.mainstay(&["container", "show", &which, "-o", "json"]);
                let notes = if shown.code == 0 { shown.json()["notes"].clone() } else { Value::Null };
                holds(notes["service"] == json!([words[1]]) && notes["task"] == json!([words[2]]), || {
                    format!("{notes}, docker says {line}")
                })
            });
        }
    }
}

fn swarm(cluster: &Cluster, node: &str) -> Value {
    cluster.mainstay(&["node", "show", node, "-o", "json"]).json()["swarm"].clone()
}

/// Waits until what the first manager tells is so.
fn swarm_becomes(cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) {
    eventually(what, LIMIT, || {
        let swarm = swarm(cluster, "m1");
        holds(all(&swarm, "nodes").len() == SIZE && is(&swarm), || swarm.to_string())
    });
}

fn node<'a>(swarm: &'a Value, hostname: &str) -> &'a Value {
    all(swarm, "nodes").iter().find(|node| node["hostname"] == hostname).unwrap_or(&Value::Null)
}

fn all<'a>(swarm: &'a Value, key: &str) -> &'a [Value] {
    swarm[key].as_array().map_or(&[], Vec::as_slice)
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn has_line(text: &str, words: &[&str]) -> bool {
    text.lines().any(|line| line.split_whitespace().eq(words.iter().copied()))
}
