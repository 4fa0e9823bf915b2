//! One agent's stream.

use std::{pin::Pin, sync::atomic::Ordering, time::Duration};

use mainstay_common::{NodeId, identity::Subject, process::now};
use mainstay_core::{KeyFingerprint, node};
use mainstay_proto::v1::{self as pb, instruction, report};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Observation, convert};
use crate::{
    api::{Shared, caller, failure},
    gate::Caller,
    identity,
};

/// How long an agent may take until its Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// `Agent`.
pub(crate) struct AgentService(pub(crate) Shared);

type Instructions = Pin<Box<dyn tokio_stream::Stream<Item = Result<pb::Instruction, Status>> + Send>>;

#[tonic::async_trait]
impl pb::agent_server::Agent for AgentService {
    type SessionStream = Instructions;

    async fn session(&self, request: Request<Streaming<pb::Report>>) -> Result<Response<Instructions>, Status> {
        let (node, key) = agent(&request)?;
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(HELLO_LIMIT, reports.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(pb::Report { report: Some(report::Report::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("a session begins with a Hello"));
        };
        let sent_at = mainstay_common::Timestamp(hello.sent_at_ms);
        let version = convert::text(&hello.version);
        self.0.view.send(Observation::Hello(node.clone(), convert::hello(&hello), sent_at)).await;
        tracing::info!(%node, version, "agent connected");

        let (instructions, answer) = mpsc::channel(4);
        let session = Session { shared: self.0.clone(), node, key, instructions };
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
        let certificate = self.0.ca.sign_client(&signing, Subject::Agent(node.clone()), now());
        let certificate = certificate.map_err(|error| failure::unsigned(&error))?;
        tracing::info!(%node, "certificate renewed");
        Ok(Response::new(pb::AgentRenewResponse { certificate }))
    }
}

fn agent<T>(request: &Request<T>) -> Result<(NodeId, KeyFingerprint), Status> {
    match caller(request)? {
        Caller::Agent(node, key) => Ok((node, key)),
        Caller::Anonymous | Caller::User(..) => Err(Status::internal("the gate let somebody else in")),
    }
}

struct Session {
    shared: Shared,
    node: NodeId,
    key: KeyFingerprint,
    instructions: mpsc::Sender<Result<pb::Instruction, Status>>,
}

impl Session {
    async fn run(self, reports: Streaming<pb::Report>) {
        let counts = std::sync::Arc::clone(&self.shared.view.counts);
        counts.sessions.fetch_add(1, Ordering::Relaxed);
        let end = self.serve(reports).await;
        counts.sessions.fetch_sub(1, Ordering::Relaxed);
        match end {
            Ok(()) => tracing::info!(node = %self.node, "agent disconnected"),
            Err(status) => {
                tracing::info!(node = %self.node, code = ?status.code(), why = %status.message().replace('\n', "; "), "session ended");
                // The agent may be gone already.
                drop(self.instructions.send(Err(status)).await);
            }
        }
    }

    async fn serve(&self, mut reports: Streaming<pb::Report>) -> Result<(), Status> {
        self.instruct(instruction::Instruction::Welcome(self.welcome())).await;
        let (mut state, mut reporters) = (self.shared.log.watch(), self.shared.view.reporters.clone());
        // An agent reports its Swarm only when told to.
        let mut reports_swarm = false;
        reporters.mark_changed();
        loop {
            tokio::select! {
                report = reports.message() => match report {
                    Ok(Some(report)) => self.take(report).await?,
                    Ok(None) => return Ok(()),
                    // A connection that was cut is an end like any other.
                    Err(status) if status.code() == tonic::Code::OutOfRange => return Err(status),
                    Err(_) => return Ok(()),
                },
                changed = state.changed() => {
                    changed.map_err(|_| Status::unavailable("the replica is ending"))?;
                    self.check(&state.borrow_and_update())?;
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

    async fn take(&self, report: pb::Report) -> Result<(), Status> {
        let bytes = report.encoded_len();
        match report.report {
            Some(report::Report::Sample(sample)) => {
                self.shared.view.counts.sample(bytes);
                let sample = Box::new(convert::sample(sample));
                self.shared.view.send(Observation::Sample(self.node.clone(), sample)).await;
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

    fn welcome(&self) -> pb::Welcome {
        let sessions = self.shared.view.counts.sessions.load(Ordering::Relaxed);
        pb::Welcome {
            cluster: self.shared.cluster.to_string(),
            replica: self.shared.log.replica().to_string(),
            sent_at_ms: now().0,
            addresses: self.shared.addresses.to_vec(),
            // 500 agents come back each second, and nobody waits for less than 2 s of spread.
            spread_ms: (sessions * 2).max(2_000),
        }
    }

    async fn instruct(&self, instruction: instruction::Instruction) {
        // The agent may be gone already; its end is noticed on the other half of the stream.
        drop(self.instructions.send(Ok(pb::Instruction { instruction: Some(instruction) })).await);
    }
}
