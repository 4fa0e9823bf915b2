//! A replica in the test's own process, and whoever speaks to it.

#![allow(dead_code, reason = "no file of tests uses all of it")]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mainstay_common::{
    Failure,
    identity::server_name,
    process::{
        context::Context,
        now,
        shutdown::CancellationToken,
        tls::{self, Channel, Credentials},
    },
    token::JoinToken,
};
use mainstay_coordinator::{InitConfig, Lives, ServeConfig, Started, init, run};
use mainstay_proto::v1::{
    self as pb, admin_client::AdminClient, agent_client::AgentClient, enrol_client::EnrolClient, report,
};
use rcgen::KeyPair;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

/// One replica in this process, with its data directory.
pub(crate) struct Replica {
    pub(crate) listen: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) admin: Context,
    pub(crate) stop: CancellationToken,
    pub(crate) life: JoinHandle<Result<(), Failure>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Replica {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = InitConfig {
            data_dir: folder.path().join("data"),
            cluster: "test".into(),
            advertise: "127.0.0.1:7443".into(),
            peer_advertise: None,
        };
        let admin = init(&config).unwrap().context;
        Self::serve(folder, admin).await
    }

    /// Where the replica keeps what must not be lost.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) async fn serve(folder: tempfile::TempDir, admin: Context) -> Self {
        Self::serve_with(folder, admin, Lives::default()).await
    }

    /// Serves with certificates that live for so long.
    pub(crate) async fn serve_with(folder: tempfile::TempDir, admin: Context, lives: Lives) -> Self {
        let stop = CancellationToken::new();
        let (started, ready) = oneshot::channel();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = ServeConfig {
            data_dir: folder.path().join("data"),
            listen: any,
            peer_listen: any,
            advertise: None,
            peer_advertise: None,
            http: any,
            announce_listen: false,
            lives,
        };
        let life = tokio::spawn(run(config, stop.clone(), started));
        let Started { listen, http, .. } = ready.await.expect("the replica starts");
        Self { listen, http, admin, stop, life, folder }
    }

    pub(crate) async fn stop(self) -> (tempfile::TempDir, Context) {
        self.stop.cancel();
        self.life.await.unwrap().unwrap();
        (self.folder, self.admin)
    }

    pub(crate) async fn admin(&self) -> Channel {
        self.channel(&credentials(&self.admin)).await
    }

    pub(crate) async fn channel(&self, credentials: &Credentials) -> Channel {
        let name = server_name(&self.admin.cluster_id);
        self.dial(&name, tls::client_config(credentials).unwrap()).await.unwrap()
    }

    /// Whether a certificate is refused because it counts no more.
    pub(crate) async fn refuses(&self, credentials: &Credentials) -> bool {
        let (name, config) = (server_name(&self.admin.cluster_id), tls::client_config(credentials).unwrap());
        let stream = tls::dial(&self.listen.to_string(), &name, config, Duration::from_secs(5)).await.unwrap();
        let (channel, verdict) = tls::watched_channel(stream).await.unwrap();
        session(channel, vec![hello()]).await.is_err() && verdict.is_out_of_date()
    }

    pub(crate) async fn anonymous(&self, pin: [u8; 32]) -> Result<Channel, tls::DialError> {
        self.dial("enrol.mainstay.internal", tls::pinned_config(pin)).await
    }

    pub(crate) async fn dial(&self, name: &str, config: Arc<rustls::ClientConfig>) -> Result<Channel, tls::DialError> {
        let stream = tls::dial(&self.listen.to_string(), name, config, Duration::from_secs(5)).await?;
        Ok(tls::channel(stream).await.unwrap())
    }

    pub(crate) async fn token(&self, uses: u32) -> JoinToken {
        let request = pb::CreateTokenRequest { role: "agent".into(), ttl_ms: 60_000, uses, secret_sha256: Vec::new() };
        let made = AdminClient::new(self.admin().await).create_token(request).await.unwrap();
        made.into_inner().token.parse().unwrap()
    }

    pub(crate) async fn redeem(
        &self,
        token: &JoinToken,
        key: &KeyPair,
        name: &str,
    ) -> Result<Credentials, tonic::Status> {
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

pub(crate) fn credentials(context: &Context) -> Credentials {
    Credentials { ca: context.ca.clone(), certificate: context.certificate.clone(), key: context.key.clone() }
}

/// A session that sends what it is given, and the node's stream of instructions.
pub(crate) async fn session(
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

pub(crate) fn hello() -> report::Report {
    let hello = pb::Hello { version: "t".into(), boot_id: "b".into(), interval_ms: 1_000, sent_at_ms: now().0 };
    report::Report::Hello(hello)
}

pub(crate) fn one_disk() -> report::Report {
    let disk = pb::Disk { mount: b"/data \xff".to_vec(), state: 1, ..pb::Disk::default() };
    let disks = pb::DiskTable { read_at_ms: now().0, whole: true, changed: vec![disk], removed: vec![] };
    report::Report::Sample(pb::Sample { disks: Some(disks), ..pb::Sample::default() })
}

pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
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
