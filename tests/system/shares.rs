//! What one node may have: its rows, its bytes, its one session.

use std::time::Duration;

use mainstay_proto::v1 as pb;
use mainstay_tests::{
    Cluster, eventually,
    fake_nodes::{containers, enrol},
    metrics,
    wait::holds,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_too_much_is_cut_told_of_once_and_counted() {
    let mut cluster = Cluster::found();
    let nodes = enrol(&cluster, vec!["greedy".into(), "modest".into()]).await;
    let (greedy, modest) = (nodes[0].session().await.unwrap(), nodes[1].session().await.unwrap());
    assert!(modest.send(containers(3, 70)).await);
    for _ in 0..3 {
        assert!(greedy.send(containers(2_500, 1)).await);
    }
    let show = |name: &str| cluster.mainstay(&["node", "show", name, "-o", "json"]).json();
    let node = eventually("2,000 containers are kept", Duration::from_secs(20), || {
        let node = show("greedy");
        holds(node["containers"] == 2_000, || node["containers"].to_string()).map(|()| node)
    });
    let complaints = |node: &serde_json::Value| node["complaints"].as_array().unwrap().clone();
    assert_eq!(complaints(&node)[0]["collector"], "limit containers", "{node}");
    let modest = complaints(&show("modest"));
    assert_eq!((modest.len(), &modest[0]["collector"]), (1, &"limit labels".into()), "each hears of its own");
    eventually("every cut is counted", Duration::from_secs(20), || {
        let cut = |what| metrics::value(&cluster.http, &format!("mainstay_coordinator_cut_total{{what=\"{what}\"}}"));
        let (rows, labels) = (cut("containers"), cut("labels"));
        holds(rows >= 1_500.0 && labels >= 18.0, || format!("{rows} rows, {labels} labels"))
    });
    assert!(metrics::value(&cluster.http, "mainstay_coordinator_view_bytes") > 500_000.0);
    let said = cluster.coordinator().said();
    let warnings = said.lines().filter(|line| line.contains("more than 2,000 containers")).count();
    assert_eq!(warnings, 1, "one warning, not a flood: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_machines_with_one_identity_the_newest_speaks_and_both_are_named() {
    let mut cluster = Cluster::found();
    let node = enrol(&cluster, vec!["n1".into()]).await.remove(0);
    let mut standing = node.session().await.unwrap();
    assert_eq!(standing.welcome.spread_ms, 2_000, "nobody's reconnect is spread over less");
    let (mut taken, mut refused) = (0, 0);
    for turn in 0..30 {
        let who = if turn % 2 == 0 { node.stolen() } else { node.clone() };
        match who.session().await {
            Ok(newer) => {
                let end = tokio::time::timeout(Duration::from_secs(5), standing.ended()).await.expect("it ends");
                let end = end.expect("with a reason");
                assert_eq!(end.code(), Code::Aborted);
                assert!(end.message().contains("identity used from 2 addresses"), "{end}");
                standing = newer;
                taken += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status}");
                assert!(status.message().contains("identity used from 2 addresses"), "{status}");
                refused += 1;
            }
        }
    }
    assert!((4..=6).contains(&taken) && refused == 30 - taken, "{taken} taken, {refused} refused");
    assert!(standing.send(pb::Sample::default()).await);
    cluster.node_becomes("n1", "ready");
    let counted = metrics::value(&cluster.http, "mainstay_coordinator_refusals_total{reason=\"superseded\"}");
    assert!((29.5..30.5).contains(&counted), "{counted}");
    let said = cluster.coordinator().said();
    let told: Vec<_> = said.lines().filter(|line| line.contains("refused") && line.contains("2 addresses")).collect();
    assert_eq!(told.len(), 1, "once, with both addresses: {said}");
    assert!(told[0].matches("127.0.0.1:").count() == 2, "{}", told[0]);
}
