//! What an operator may do beyond looking.

use mainstay_common::NodeId;
use mainstay_core::{Command, Consequence, node, notify};
use mainstay_proto::v1 as pb;
use tonic::{Request, Response, Status};

use super::{Shared, failure};

/// `Operator`.
pub(crate) struct OperatorService(pub(crate) Shared);

#[tonic::async_trait]
impl pb::operator_server::Operator for OperatorService {
    async fn label_node(
        &self,
        request: Request<pb::LabelNodeRequest>,
    ) -> Result<Response<pb::LabelNodeResponse>, Status> {
        let by = super::by(&request)?;
        let asked = request.into_inner();
        let log = &self.0.log;
        let id: NodeId = asked.name.parse().map_err(|_| failure::node_unknown(&asked.name, &log.read()))?;
        let command = Command::Node(node::Command::Label(id.clone(), asked.set.into_iter().collect()));
        let actor = by.actor.clone();
        let decided = log.propose(by, command).await.map_err(|error| failure::proposal(&error, &log.read()))?;
        let Consequence::Node(node::Consequence::Labelled(labels)) = decided else {
            return Err(Status::internal("a label command labels"));
        };
        // Programs may do this all day; the audit trail has it.
        tracing::debug!(node = %id, by = %actor, "node labelled");
        Ok(Response::new(pb::LabelNodeResponse { labels: labels.into_iter().collect() }))
    }

    async fn test_receiver(
        &self,
        request: Request<pb::TestReceiverRequest>,
    ) -> Result<Response<pb::TestReceiverResponse>, Status> {
        let by = super::by(&request)?;
        let name = request.into_inner().name;
        let log = &self.0.log;
        let receiver = name.parse().map_err(|_| failure::receiver_unknown(&name, &log.read()))?;
        let command = Command::Notify(notify::Command::Test(receiver));
        let decided = log.propose(by, command).await.map_err(|error| failure::proposal(&error, &log.read()))?;
        let Consequence::Notify(notify::Consequence::Owed(id)) = decided else {
            return Err(Status::internal("a test is owed"));
        };
        Ok(Response::new(pb::TestReceiverResponse { delivery: id.to_string() }))
    }
}
