//! One replica, as agents and operators meet it: real TLS, real gRPC, real files.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod lab;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use lab::{Replica, credentials, eventually, hello, one_disk, session};
use mainstay_common::{
    ExitCode,
    process::tls::{self, Channel, Credentials},
};
use mainstay_proto::v1::{
    self as pb, admin_client::AdminClient, operator_client::OperatorClient, report, viewer_client::ViewerClient,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_enrols_once_and_its_sample_becomes_a_row() {
    let replica = Replica::start().await;
    let token = replica.token(1).await;
    let key = tls::new_key();
    let agent = replica.redeem(&token, &key, "n1").await.unwrap();
    replica.redeem(&token, &key, "n1").await.expect("a lost reply is no second use");
    let refused = replica.redeem(&token, &tls::new_key(), "n2").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("the token was used already, by n1\n"), "{refused}");

    let mut viewer = ViewerClient::new(replica.admin().await);
    let pending = viewer.list_nodes(pb::ListRequest::default()).await.unwrap().into_inner().rows;
    assert_eq!(pending[0].state, pb::NodeState::Pending as i32);

    let _session = session(replica.channel(&agent).await, vec![hello(), one_disk()]).await.unwrap();
    let mut lister = viewer.clone();
    let row = eventually("the disk is listed", async || {
        lister.list_disks(pb::ListRequest::default()).await.unwrap().into_inner().rows.pop()
    });
    let row = row.await;
    assert_eq!((row.node.as_str(), row.mount.as_slice(), row.total_bytes), ("n1", b"/data \xff".as_slice(), None));
    let node = viewer.list_nodes(pb::ListRequest::default()).await.unwrap().into_inner().rows.remove(0);
    assert_eq!(node.state, pb::NodeState::Ready as i32);
    let known = viewer.get_node(pb::GetNodeRequest { name: "n1".into() }).await.unwrap().into_inner();
    assert_eq!((known.disks, known.mounts), (Some(1), None), "what was never read is not counted as none");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_every_decision() {
    let replica = Replica::start().await;
    let token = replica.token(2).await;
    let agent = replica.redeem(&token, &tls::new_key(), "n1").await.unwrap();
    let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let mut operator = OperatorClient::new(replica.admin().await);
    operator.label_node(pb::LabelNodeRequest { name: "n1".into(), set: labels.clone() }).await.unwrap();
    let (folder, admin) = replica.stop().await;

    let replica = Replica::serve(folder, admin).await;
    let _session = session(replica.channel(&agent).await, vec![hello()]).await.unwrap();
    replica.redeem(&token, &tls::new_key(), "n2").await.expect("the token's second use is still there");
    let mut viewer = ViewerClient::new(replica.admin().await);
    let rows = viewer.list_nodes(pb::ListRequest::default()).await.unwrap().into_inner().rows;
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(rows[0].labels.clone().into_iter().collect::<BTreeMap<_, _>>(), labels);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_cut_and_stays_out() {
    let replica = Replica::start().await;
    let (token, key) = (replica.token(1).await, tls::new_key());
    let agent = replica.redeem(&token, &key, "n1").await.unwrap();
    let (_send, mut instructions) = session(replica.channel(&agent).await, vec![hello()]).await.unwrap();
    assert!(instructions.message().await.unwrap().is_some(), "a welcome comes");
    let mut admin = AdminClient::new(replica.admin().await);
    admin.remove_node(pb::RemoveNodeRequest { name: "n1".into() }).await.unwrap();

    let end = async {
        loop {
            if let Err(status) = instructions.message().await {
                return status;
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(5), end).await.expect("the session is cut");
    assert_eq!((end.code(), end.message().lines().next()), (Code::PermissionDenied, Some("node removed")));
    let again = session(replica.channel(&agent).await, vec![hello()]).await.unwrap_err();
    assert_eq!(again.message().lines().next(), Some("node removed"));
    let back = replica.redeem(&token, &key, "n1").await.unwrap_err();
    assert_eq!(back.code(), Code::PermissionDenied, "{back}");
    let unknown = admin.remove_node(pb::RemoveNodeRequest { name: "n1".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_pins_the_cluster() {
    let (replica, other) = (Replica::start().await, Replica::start().await);
    let pin = other.token(1).await.ca_pin;
    let refused = replica.anonymous(pin).await.unwrap_err();
    assert!(refused.to_string().contains("another cluster"), "{refused}");
    replica.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_certificate_gets_more_than_health() {
    let replica = Replica::start().await;
    let pin = replica.token(1).await.ca_pin;
    let nobody = replica.anonymous(pin).await.unwrap();
    let denied = ViewerClient::new(nobody.clone()).list_nodes(pb::ListRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::Unauthenticated);
    let mut health = tonic_health::pb::health_client::HealthClient::new(nobody.clone());
    let healthy = health.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await.unwrap();
    assert_eq!(healthy.into_inner().status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    assert_eq!(services(nobody).await.unwrap_err().code(), Code::Unauthenticated);
    let listed = services(replica.admin().await).await.unwrap();
    assert!(listed.contains(&"mainstay.v1.Viewer".to_owned()), "{listed:?}");
    replica.stop().await;
}

/// Asks reflection for every service.
async fn services(channel: Channel) -> Result<Vec<String>, tonic::Status> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::iter([ask])).await?.into_inner();
    match answers.message().await?.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => Ok(list.service.into_iter().map(|s| s.name).collect()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_get_their_role_and_lose_it() {
    let replica = Replica::start().await;
    let mut admin = AdminClient::new(replica.admin().await);
    let key = tls::new_key();
    let add = |role: &str| pb::AddUserRequest {
        name: "eve".into(),
        role: role.into(),
        csr: tls::signing_request(&key).unwrap(),
    };
    let added = admin.add_user(add("viewer")).await.unwrap().into_inner();
    let eve = Credentials { ca: added.ca, certificate: added.certificate, key: key.serialize_pem() };
    let channel = replica.channel(&eve).await;
    ViewerClient::new(channel.clone()).list_nodes(pb::ListRequest::default()).await.unwrap();
    let denied = AdminClient::new(channel.clone()).list_tokens(pb::ListTokensRequest {}).await.unwrap_err();
    assert_eq!((denied.code(), denied.message().lines().nth(1)), (Code::PermissionDenied, Some("needs role admin")));

    let renewed = pb::UserRenewRequest { csr: tls::signing_request(&key).unwrap() };
    ViewerClient::new(channel.clone()).renew(renewed).await.unwrap();
    let foreign = pb::UserRenewRequest { csr: tls::signing_request(&tls::new_key()).unwrap() };
    let refused = ViewerClient::new(channel.clone()).renew(foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    admin.revoke_user(pb::RevokeUserRequest { name: "eve".into() }).await.unwrap();
    let out = ViewerClient::new(channel).list_nodes(pb::ListRequest::default()).await.unwrap_err();
    assert_eq!(out.code(), Code::Unauthenticated);
    let last = admin.revoke_user(pb::RevokeUserRequest { name: "admin".into() }).await.unwrap_err();
    assert_eq!(last.code(), Code::FailedPrecondition);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_refused_and_others_go_on() {
    let replica = Replica::start().await;
    let agent = replica.redeem(&replica.token(1).await, &tls::new_key(), "n1").await.unwrap();
    let huge = pb::Disk { mount: vec![b'x'; 5 * 1024 * 1024], ..pb::Disk::default() };
    let disks = pb::DiskTable { whole: true, changed: vec![huge], ..pb::DiskTable::default() };
    let sample = report::Report::Sample(pb::Sample { disks: Some(disks), ..pb::Sample::default() });
    let (_send, mut instructions) = session(replica.channel(&agent).await, vec![hello(), sample]).await.unwrap();
    let end = async {
        loop {
            match instructions.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the session ended without a reason"),
                Err(status) => return status,
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(5), end).await.expect("the session ends");
    assert_eq!(end.code(), Code::OutOfRange, "{end}");
    let mut viewer = ViewerClient::new(replica.admin().await);
    assert!(viewer.list_disks(pb::ListRequest::default()).await.unwrap().into_inner().rows.is_empty());
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_makes_a_new_administrator_and_the_old_context_ends() {
    let replica = Replica::start().await;
    let fresh = mainstay_coordinator::admin_socket::request(&replica.data()).await.unwrap();
    let channel = replica.channel(&credentials(&fresh)).await;
    AdminClient::new(channel).list_tokens(pb::ListTokensRequest {}).await.unwrap();
    let old = AdminClient::new(replica.admin().await).list_tokens(pb::ListTokensRequest {}).await.unwrap_err();
    assert_eq!(old.code(), Code::Unauthenticated);
    let nowhere = mainstay_coordinator::admin_socket::request(Path::new("/nonexistent")).await.unwrap_err();
    assert_eq!(nowhere.code, ExitCode::Unreachable);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_openmetrics() {
    let replica = Replica::start().await;
    let text = get(replica.http, "/metrics").await;
    assert!(text.contains("mainstay_coordinator_nodes{state=\"ready\"} 0\n"), "{text}");
    assert!(text.ends_with("# EOF\n"));
    assert!(get(replica.http, "/nothing").await.starts_with("HTTP/1.1 404"));
    replica.stop().await;
}

async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
