//! One replica, as agents and operators meet it: real TLS, real gRPC, real files.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use mainstay_common::{
    ExitCode, Failure,
    identity::server_name,
    process::{
        context::Context,
        now,
        shutdown::CancellationToken,
        tls::{self, Credentials},
    },
    token::JoinToken,
};
use mainstay_coordinator::{InitConfig, Lives, ServeConfig, Started, init, run};
use mainstay_proto::v1::{
    self as pb, admin_client::AdminClient, agent_client::AgentClient, enrol_client::EnrolClient,
    operator_client::OperatorClient, report, viewer_client::ViewerClient,
};
use rcgen::KeyPair;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

struct Replica {
    listen: SocketAddr,
    http: SocketAddr,
    admin: Context,
    stop: CancellationToken,
    life: JoinHandle<Result<(), Failure>>,
    folder: tempfile::TempDir,
}

impl Replica {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = InitConfig {
            data_dir: folder.path().join("data"),
            cluster: "test".into(),
            advertise: "127.0.0.1:7443".into(),
        };
        let admin = init(&config).unwrap().context;
        Self::serve(folder, admin).await
    }

    async fn serve(folder: tempfile::TempDir, admin: Context) -> Self {
        let stop = CancellationToken::new();
        let (started, ready) = oneshot::channel();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = ServeConfig {
            data_dir: folder.path().join("data"),
            listen: any,
            http: any,
            announce_listen: false,
            lives: Lives::default(),
        };
        let life = tokio::spawn(run(config, stop.clone(), started));
        let Started { listen, http, .. } = ready.await.expect("the replica starts");
        Self { listen, http, admin, stop, life, folder }
    }

    async fn stop(self) -> (tempfile::TempDir, Context) {
        self.stop.cancel();
        self.life.await.unwrap().unwrap();
        (self.folder, self.admin)
    }

    async fn admin(&self) -> Channel {
        self.channel(&credentials(&self.admin)).await
    }

    async fn channel(&self, credentials: &Credentials) -> Channel {
        let name = server_name(&self.admin.cluster_id);
        self.dial(&name, tls::client_config(credentials).unwrap()).await.unwrap()
    }

    async fn anonymous(&self, pin: [u8; 32]) -> Result<Channel, tls::DialError> {
        self.dial("enrol.mainstay.internal", tls::pinned_config(pin)).await
    }

    async fn dial(&self, name: &str, config: Arc<rustls::ClientConfig>) -> Result<Channel, tls::DialError> {
        let stream = tls::dial(&self.listen.to_string(), name, config, Duration::from_secs(5)).await?;
        Ok(tls::channel(stream).await.unwrap())
    }

    async fn token(&self, uses: u32) -> JoinToken {
        let request = pb::CreateTokenRequest { role: "agent".into(), ttl_ms: 60_000, uses };
        let made = AdminClient::new(self.admin().await).create_token(request).await.unwrap();
        made.into_inner().token.parse().unwrap()
    }

    async fn redeem(&self, token: &JoinToken, key: &KeyPair, name: &str) -> Result<Credentials, tonic::Status> {
        let request = pb::RedeemRequest {
            token_id: token.id.to_string(),
            secret: token.secret.0.to_vec(),
            csr: tls::signing_request(key).unwrap(),
            name: name.into(),
        };
        let channel = self.anonymous(token.ca_pin).await.unwrap();
        let answer = EnrolClient::new(channel).redeem(request).await?.into_inner();
        Ok(Credentials { ca: answer.ca, certificate: answer.certificate, key: key.serialize_pem() })
    }
}

fn credentials(context: &Context) -> Credentials {
    Credentials { ca: context.ca.clone(), certificate: context.certificate.clone(), key: context.key.clone() }
}

/// A session that sends what it is given, and the node's stream of instructions.
async fn session(
    channel: Channel,
    reports: Vec<report::Report>,
) -> Result<(tokio::sync::mpsc::Sender<pb::Report>, tonic::Streaming<pb::Instruction>), tonic::Status> {
    let (send, receive) = tokio::sync::mpsc::channel(16);
    for report in reports {
        send.send(pb::Report { report: Some(report) }).await.unwrap();
    }
    let answer = AgentClient::new(channel).session(ReceiverStream::new(receive)).await?;
    Ok((send, answer.into_inner()))
}

fn hello() -> report::Report {
    let hello = pb::Hello { version: "t".into(), boot_id: "b".into(), interval_ms: 1_000, sent_at_ms: now().0 };
    report::Report::Hello(hello)
}

fn one_disk() -> report::Report {
    let disk = pb::Disk { mount: b"/data \xff".to_vec(), state: 1, ..pb::Disk::default() };
    let disks = pb::DiskTable { read_at_ms: now().0, whole: true, changed: vec![disk], removed: vec![] };
    report::Report::Sample(pb::Sample { disks: Some(disks), ..pb::Sample::default() })
}

async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut again = tokio::time::interval(Duration::from_millis(20));
    loop {
        again.tick().await;
        if let Some(value) = ask().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
    }
}

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
    let labels = HashMap::from([("zone".to_owned(), "a".to_owned())]);
    let mut operator = OperatorClient::new(replica.admin().await);
    operator.label_node(pb::LabelNodeRequest { name: "n1".into(), set: labels.clone() }).await.unwrap();
    let (folder, admin) = replica.stop().await;

    let replica = Replica::serve(folder, admin).await;
    let _session = session(replica.channel(&agent).await, vec![hello()]).await.unwrap();
    replica.redeem(&token, &tls::new_key(), "n2").await.expect("the token's second use is still there");
    let mut viewer = ViewerClient::new(replica.admin().await);
    let rows = viewer.list_nodes(pb::ListRequest::default()).await.unwrap().into_inner().rows;
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(rows[0].labels, labels);
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
    let fresh = mainstay_coordinator::admin_socket::request(&replica.folder.path().join("data")).await.unwrap();
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
