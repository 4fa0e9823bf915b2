//! What an operator may do beyond looking.

use mainstay_common::NodeId;
use mainstay_core::{Command, Consequence, node};
use mainstay_proto::v1 as pb;
use tonic::{Request, Response, Status};

use super::{Shared, caller, failure};

/// `Operator`.
pub(crate) struct OperatorService(pub(crate) Shared);

#[tonic::async_trait]
impl pb::operator_server::Operator for OperatorService {
    async fn label_node(
        &self,
        request: Request<pb::LabelNodeRequest>,
    ) -> Result<Response<pb::LabelNodeResponse>, Status> {
        let actor = caller(&request)?;
        let asked = request.into_inner();
        let log = &self.0.log;
        let id: NodeId = asked.name.parse().map_err(|_| failure::node_unknown(&asked.name, &log.read()))?;
        let command = Command::Node(node::Command::Label(id.clone(), asked.set.into_iter().collect()));
        match log.propose(command).await.map_err(|error| failure::proposal(&error, &log.read()))? {
            Consequence::Node(node::Consequence::Labelled(labels)) => {
                tracing::info!(node = %id, ?actor, "node labelled");
                Ok(Response::new(pb::LabelNodeResponse { labels: labels.into_iter().collect() }))
            }
            Consequence::Node(_)
            | Consequence::Token(_)
            | Consequence::User(_)
            | Consequence::Cluster(_)
            | Consequence::Alert(_)
            | Consequence::Notify(_)
            | Consequence::Declared(_) => Err(Status::internal("a label command labels")),
        }
    }
}
