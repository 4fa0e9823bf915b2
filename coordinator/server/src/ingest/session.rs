//! One agent's stream.

use std::{
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use mainstay_common::{NodeId, identity::Subject, process::now, text::Shown};
use mainstay_core::{KeyFingerprint, node};
use mainstay_proto::v1::{self as pb, instruction, report};
use prost::Message as _;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Limit, Observation, convert,
    sessions::{Begun, Origin},
    trust::Trust,
};
use crate::{
    api::{Shared, caller, failure},
    gate::{Caller, Peer, Refusal, Refusals},
    identity,
};

/// How long an agent may take until its Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// `Agent`.
pub(crate) struct AgentService {
    pub(crate) shared: Shared,
    pub(crate) refusals: Arc<Refusals>,
}

type Instructions = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Instruction, Status>> + Send>>;

#[tonic::async_trait]
impl pb::agent_server::Agent for AgentService {
    type SessionStream = Instructions;

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Result<Response<Instructions>, Status> {
        let (node, key) = agent(&request)?;
        let address = request.extensions().get::<Peer>().map(|peer| peer.address);
        let address = address.ok_or_else(|| Status::internal("the gate named no peer"))?;
        let trust = Trust::new(node.clone(), key);
        let mut reports = request.into_inner();
        let knock = self.shared.view.sessions.knock(&node).ok_or_else(|| failure::too_many_hellos(&node))?;
        let first = tokio::time::timeout(HELLO_LIMIT, reports.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(pb::Report { report: Some(report::Report::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("a session begins with a Hello"));
        };
        let sent_at = mainstay_common::Timestamp(hello.sent_at_ms);
        let hello = convert::hello(hello);
        drop(knock);
        let begun = self.begin(&node, &Origin { address, boot_id: hello.boot_id.clone() })?;
        tracing::info!(%node, version = %Shown::new(&hello.version), "agent connected");
        self.shared.view.send(Observation::Hello(node.clone(), hello, sent_at)).await;

        let (instructions, answer) = mpsc::channel(4);
        let session = Session { shared: self.shared.clone(), node, key, begun, trust, instructions, paused: None };
        tokio::spawn(session.run(reports));
        Ok(Response::new(Box::pin(ReceiverStream::new(answer))))
    }

    async fn renew(&self, request: Request<pb::AgentRenewRequest>) -> Result<Response<pb::AgentRenewResponse>, Status> {
        let (node, key) = agent(&request)?;
        let signing =
            identity::Request::from_der(&request.into_inner().csr).map_err(|error| failure::unsigned(&error))?;
        if signing.key() != key {
            return Err(failure::renewal_key());
        }
        let certificate = self.shared.ca.sign_client(&signing, Subject::Agent(node.clone()), now());
        let certificate = certificate.map_err(|error| failure::unsigned(&error))?;
        tracing::info!(%node, "certificate renewed");
        Ok(Response::new(pb::AgentRenewResponse { certificate }))
    }
}

impl AgentService {
    /// The newest session of a node is the one that counts.
    fn begin(&self, node: &NodeId, origin: &Origin) -> Result<Begun, Status> {
        let refuse = |address, why: &str| {
            self.refusals.refuse(Refusal::Superseded, address, &Subject::Agent(node.clone()).to_string(), why);
        };
        match self.shared.view.sessions.begin(node, origin, Instant::now().into_std()) {
            Ok(begun) => {
                if let Some(before) = &begun.replaces {
                    let place = if before.is_one_machine(origin) {
                        "the same machine began anew before its last session had ended"
                    } else {
                        "identity used from 2 addresses: the newer is"
                    };
                    refuse(before.address, &format!("{place} {}", origin.address));
                }
                Ok(begun)
            }
            Err(contested) => {
                refuse(origin.address, &format!("identity used from 2 addresses: {} speaks", contested.by.address));
                Err(failure::contested(node, contested.by.address, contested.wait))
            }
        }
    }
}

fn agent<T>(request: &Request<T>) -> Result<(NodeId, KeyFingerprint), Status> {
    match caller(request)? {
        Caller::Agent(node, key) => Ok((node, key)),
        Caller::Anonymous | Caller::User(..) | Caller::Replica(..) => {
            Err(Status::internal("the gate let somebody else in"))
        }
    }
}

struct Session {
    shared: Shared,
    node: NodeId,
    key: KeyFingerprint,
    begun: Begun,
    trust: Trust,
    instructions: mpsc::Sender<Result<pb::Instruction, Status>>,
    /// Until when the node has sent enough.
    paused: Option<Instant>,
}

impl Session {
    async fn run(mut self, reports: Streaming<pb::Report>) {
        let counts = Arc::clone(&self.shared.view.counts);
        counts.sessions.fetch_add(1, Ordering::Relaxed);
        let end = self.serve(reports).await;
        counts.sessions.fetch_sub(1, Ordering::Relaxed);
        self.shared.view.sessions.end(&self.node, &self.begun);
        match end {
            Ok(()) => tracing::info!(node = %self.node, "agent disconnected"),
            Err(status) => {
                tracing::info!(node = %self.node, code = ?status.code(), why = %status.message().replace('\n', "; "), "session ended");
                // The agent may be gone already.
                drop(self.instructions.send(Err(status)).await);
            }
        }
    }

    async fn serve(&mut self, mut reports: Streaming<pb::Report>) -> Result<(), Status> {
        let mut addresses = self.addresses().await.unwrap_or_default();
        self.instruct(instruction::Instruction::Welcome(self.welcome(addresses.clone()))).await;
        let (mut state, mut reporters) = (self.shared.log.watch(), self.shared.view.reporters.clone());
        // An agent reports its Swarm only when told to.
        let mut reports_swarm = false;
        self.tell_roots().await;
        reporters.mark_changed();
        loop {
            let pause = async |until: Option<Instant>| match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            };
            tokio::select! {
                report = reports.message(), if self.paused.is_none() => match report {
                    Ok(Some(report)) => self.take(report).await?,
                    Ok(None) => return Ok(()),
                    // A connection that was cut is an end like any other.
                    Err(status) if status.code() == tonic::Code::OutOfRange => return Err(status),
                    Err(_) => return Ok(()),
                },
                () = pause(self.paused) => self.paused = None,
                by = &mut self.begun.replaced => {
                    // Without a word, the node was removed: the state says so.
                    if let Ok(by) = by {
                        return Err(failure::superseded(&self.node, by.address));
                    }
                    self.check(&self.shared.log.read())?;
                    return Ok(());
                }
                changed = state.changed() => {
                    changed.map_err(|_| Status::unavailable("the replica is ending"))?;
                    self.check(&state.borrow_and_update())?;
                    self.tell_roots().await;
                    if self.shared.addresses() != addresses
                        && let Some(now) = self.addresses().await
                        && now != addresses
                    {
                        addresses = now;
                        self.instruct(instruction::Instruction::Welcome(self.welcome(addresses.clone()))).await;
                    }
                }
                changed = reporters.changed() => {
                    changed.map_err(|_| Status::unavailable("the replica is ending"))?;
                    let reports = reporters.borrow_and_update().contains(&self.node);
                    if reports != reports_swarm {
                        reports_swarm = reports;
                        self.instruct(instruction::Instruction::SwarmReporter(pb::SwarmReporter { reports })).await;
                    }
                }
            }
        }
    }

    async fn take(&mut self, report: pb::Report) -> Result<(), Status> {
        let bytes = report.encoded_len();
        match report.report {
            Some(report::Report::Sample(sample)) => {
                let counts = &self.shared.view.counts;
                counts.sample(bytes);
                let (mut sample, mut cuts) = convert::sample(sample);
                let now = Instant::now();
                let fresh = {
                    let mut share = self.begun.share.lock().unwrap_or_else(PoisonError::into_inner);
                    // What comes too fast waits in the agent, which sends what is newer once there is room.
                    let wait = share.pay(bytes, now.into_std());
                    if !wait.is_zero() {
                        cuts.add(Limit::Pace, 1);
                        self.paused = Some(now + wait);
                    }
                    share.admit(&mut sample, &mut cuts);
                    share.complain(&mut sample, &cuts, now.into_std())
                };
                counts.cut(&cuts);
                for limit in fresh {
                    tracing::warn!(node = %self.node, limit = limit.as_str(), "{}", limit.sentence());
                }
                self.shared.view.send(Observation::Sample(self.node.clone(), Box::new(sample))).await;
                Ok(())
            }
            Some(report::Report::Holding(holding)) => {
                self.trust.holds(&self.shared, &holding);
                Ok(())
            }
            Some(report::Report::Hello(_)) => Err(Status::invalid_argument("a session has one Hello")),
            // A newer agent says more than this version understands.
            None => Ok(()),
        }
    }

    /// A node that was removed while it was connected is told so and cut.
    fn check(&self, state: &mainstay_core::State) -> Result<(), Status> {
        match state.nodes.standing(&self.node, self.key) {
            node::Standing::Member => Ok(()),
            node::Standing::Removed => Err(failure::node_removed(&self.node)),
            node::Standing::OtherKey => Err(failure::other_key(&self.node)),
            node::Standing::Unknown => Err(failure::node_unknown_here(&self.node)),
        }
    }

    /// Which roots count, as soon as that changes.
    async fn tell_roots(&mut self) {
        let state = self.shared.log.read();
        // 200 agents have their certificates made anew each second.
        let spread_ms = self.shared.view.counts.sessions.load(Ordering::Relaxed) * 5;
        if let Some(trust) = self.trust.news(&self.shared, &state, spread_ms) {
            self.instruct(instruction::Instruction::Trust(trust)).await;
        }
    }

    /// The replicas' addresses, if it is certain that they are not of the past: an agent believes who tells it last, and
    /// a replica that lags would lead it back to where nobody is any more.
    async fn addresses(&self) -> Option<Vec<String>> {
        self.shared.log.read_now().await.ok().map(|_| self.shared.addresses())
    }

    fn welcome(&self, addresses: Vec<String>) -> pb::Welcome {
        pb::Welcome {
            cluster: self.shared.cluster.to_string(),
            replica: self.shared.log.replica().to_string(),
            sent_at_ms: now().0,
            addresses,
            spread_ms: u64::try_from(self.shared.view.sessions.spread().as_millis()).unwrap_or(u64::MAX),
            generation: self.shared.log.read().cluster.about().generation,
        }
    }

    async fn instruct(&self, instruction: instruction::Instruction) {
        // The agent may be gone already; its end is noticed on the other half of the stream.
        drop(self.instructions.send(Ok(pb::Instruction { instruction: Some(instruction) })).await);
    }
}
