//! Agents without a machine: real enrolment, real TLS and real sessions, and samples that the story makes up.

use std::sync::Arc;

use mainstay_common::{
    process::{
        now,
        tls::{Credentials, channel, dial, new_key, pinned_config, signing_request},
    },
    token::JoinToken,
};
use mainstay_proto::v1::{
    self as pb, agent_client::AgentClient, enrol_client::EnrolClient, instruction::Instruction, report::Report,
};
use tokio::{sync::Semaphore, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{Cluster, caller::Caller};

/// Enrolments at once.
const AT_ONCE: usize = 16;

/// An enrolled node.
#[derive(Clone, Debug)]
pub struct FakeNode {
    /// Its name.
    pub name: String,
    /// What it enrolled with.
    pub credentials: Credentials,
    /// How it dials.
    pub caller: Caller,
    boot_id: String,
}

/// A session that stands.
#[derive(Debug)]
pub struct FakeSession {
    /// What the coordinator said first.
    pub welcome: pb::Welcome,
    reports: mpsc::Sender<pb::Report>,
    instructions: Streaming<pb::Instruction>,
}

/// Enrols nodes under these names, with one token.
///
/// # Panics
/// Where one is refused.
pub async fn enrol(cluster: &Cluster, names: Vec<String>) -> Vec<FakeNode> {
    let uses = names.len().to_string();
    let token: JoinToken = cluster.mainstay(&["token", "create", "--uses", &uses]).done().parse().expect("a token");
    enrol_at(&cluster.listen, token, names).await
}

/// The same with that token, at that address.
///
/// # Panics
/// Where one is refused.
pub async fn enrol_at(address: &str, token: JoinToken, names: Vec<String>) -> Vec<FakeNode> {
    let (token, turns) = (Arc::new(token), Arc::new(Semaphore::new(AT_ONCE)));
    let mut enrolling = JoinSet::new();
    for name in names {
        let (token, turns, address) = (Arc::clone(&token), Arc::clone(&turns), address.to_owned());
        enrolling.spawn(async move {
            let _turn = turns.acquire_owned().await;
            redeem(&address, &token, name).await
        });
    }
    let mut nodes = enrolling.join_all().await;
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    nodes
}

async fn redeem(address: &str, token: &JoinToken, name: String) -> FakeNode {
    let key = new_key();
    let limit = std::time::Duration::from_secs(60);
    let stream = dial(address, "enrol.mainstay.internal", pinned_config(token.ca_pin), limit).await;
    let channel = channel(stream.expect("a connection")).await.expect("HTTP/2");
    let request = pb::RedeemRequest {
        token_id: token.id.to_string(),
        secret: token.secret.0.to_vec(),
        csr: signing_request(&key).expect("a request"),
        name: name.clone(),
    };
    let answer = EnrolClient::new(channel).redeem(request).await;
    let answer = answer.unwrap_or_else(|status| panic!("{name}: {status}")).into_inner();
    let credentials = Credentials { ca: answer.ca, certificate: answer.certificate, key: key.serialize_pem() };
    let cluster = answer.cluster_id.parse().expect("a cluster's id");
    let caller = Caller::with(address, &cluster, &credentials);
    FakeNode { boot_id: format!("boot of {name}"), name, credentials, caller }
}

impl FakeNode {
    /// The same identity on another machine.
    #[must_use]
    pub fn stolen(&self) -> Self {
        Self { boot_id: "boot of a thief".into(), ..self.clone() }
    }

    /// Dials, says Hello and waits for the Welcome.
    ///
    /// # Errors
    /// What the coordinator said.
    pub async fn session(&self) -> Result<FakeSession, Status> {
        let channel = self.caller.channel().await.map_err(Status::unavailable)?;
        let (reports, outgoing) = mpsc::channel(4);
        let hello = pb::Hello {
            version: "0.1.0".into(),
            boot_id: self.boot_id.clone(),
            interval_ms: 10_000,
            sent_at_ms: now().0,
        };
        let hello = pb::Report { report: Some(Report::Hello(hello)) };
        reports.send(hello).await.map_err(|error| Status::internal(error.to_string()))?;
        let answer = AgentClient::new(channel).session(ReceiverStream::new(outgoing)).await?;
        let mut instructions = answer.into_inner();
        match instructions.message().await?.and_then(|first| first.instruction) {
            Some(Instruction::Welcome(welcome)) => Ok(FakeSession { welcome, reports, instructions }),
            other => Err(Status::internal(format!("no welcome but {other:?}"))),
        }
    }
}

impl FakeSession {
    /// Sends a sample; false where the session is over.
    pub async fn send(&self, sample: pb::Sample) -> bool {
        self.reports.send(pb::Report { report: Some(Report::Sample(sample)) }).await.is_ok()
    }

    /// Waits for the end, and gives what was said; `None` where the coordinator just ended it.
    pub async fn ended(&mut self) -> Option<Status> {
        loop {
            match self.instructions.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }
}

/// A whole table of so many containers.
#[must_use]
pub fn containers(count: usize, labels: usize) -> pb::Sample {
    let container = |n: usize| pb::Container {
        id: format!("{n:064x}").into_bytes(),
        name: format!("app.{n}"),
        image: "registry.example/app:1.0".into(),
        state: 2,
        labels: (0..labels).map(|label| (format!("com.example.label{label:02}"), "value".to_owned())).collect(),
        ..pb::Container::default()
    };
    let containers = pb::ContainerTable {
        read_at_ms: now().0,
        whole: true,
        changed: (0..count).map(container).collect(),
        ..pb::ContainerTable::default()
    };
    let engine = pb::Engine { read_at_ms: now().0, state: 1, ..pb::Engine::default() };
    pb::Sample { taken_at_ms: now().0, containers: Some(containers), engine: Some(engine), ..pb::Sample::default() }
}

/// What a small node tells at first: a machine, two disks, ten containers.
#[must_use]
pub fn small() -> pb::Sample {
    let disk = |mount: &str| pb::Disk {
        mount: mount.as_bytes().to_vec(),
        device: b"/dev/sda1".to_vec(),
        fs: "ext4".into(),
        state: 1,
        ..pb::Disk::default()
    };
    let host = pb::Host {
        read_at_ms: now().0,
        hostname: "node".into(),
        kernel: "6.1.0".into(),
        os: "Debian GNU/Linux 12".into(),
        ..pb::Host::default()
    };
    let changed = vec![disk("/"), disk("/data")];
    let disks = pb::DiskTable { read_at_ms: now().0, whole: true, changed, removed: Vec::new() };
    pb::Sample { host: Some(host), disks: Some(disks), ..containers(10, 3) }
}
