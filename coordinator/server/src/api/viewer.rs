//! What every person with a certificate may ask.

use mainstay_common::{
    NodeId,
    identity::{HumanRole, Subject},
    process::now,
    state::NodeState,
};
use mainstay_core::live;
use mainstay_proto::v1 as pb;
use tonic::{Request, Response, Status};

use super::{Shared, caller, convert, failure};
use crate::{VERSION, gate::Caller, identity};

/// `Viewer`.
pub(crate) struct ViewerService(pub(crate) Shared);

impl ViewerService {
    fn reading(&self) -> convert::Reading {
        convert::Reading { state: self.0.log.read(), live: self.0.view.read(), now: now() }
    }
}

fn person<T>(
    request: &Request<T>,
) -> Result<(HumanRole, mainstay_common::UserName, mainstay_core::KeyFingerprint), Status> {
    match caller(request)? {
        Caller::User(role, name, key) => Ok((role, name, key)),
        Caller::Anonymous | Caller::Agent(..) => Err(Status::internal("the gate let somebody else in")),
    }
}

#[tonic::async_trait]
impl pb::viewer_server::Viewer for ViewerService {
    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let reading = self.reading();
        let mut status = convert::status(&reading);
        status.cluster = self.0.cluster.to_string();
        status.version = VERSION.into();
        status.replicas = vec![pb::ReplicaRow {
            id: self.0.replica.to_string(),
            address: self.0.addresses.first().cloned().unwrap_or_default(),
            role: "leader".into(),
            healthy: true,
        }];
        Ok(Response::new(status))
    }

    async fn list_nodes(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListNodesResponse>, Status> {
        let (reading, filter) = (self.reading(), request.into_inner());
        let rows =
            reading.nodes(&filter.node)?.map(|(id, node, view)| convert::node(&reading, id, node, view)).collect();
        Ok(Response::new(pb::ListNodesResponse { rows }))
    }

    async fn get_node(&self, request: Request<pb::GetNodeRequest>) -> Result<Response<pb::GetNodeResponse>, Status> {
        let (reading, name) = (self.reading(), request.into_inner().name);
        let unknown = || failure::node_unknown(&name, &reading.state);
        let id: NodeId = name.parse().map_err(|_| unknown())?;
        let node = reading.state.nodes.member(&id).ok_or_else(unknown)?;
        Ok(Response::new(convert::node_detail(&reading, &id, node, reading.live.node(&id))))
    }

    async fn list_disks(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListDisksResponse>, Status> {
        let (reading, filter) = (self.reading(), request.into_inner());
        let mut rows = Vec::new();
        for at in reading.seen_nodes(&filter.node)? {
            rows.extend(
                at.rows(at.view.disks.as_ref(), &filter).map(|(key, row)| convert::disk(&at, key, row, filter.detail)),
            );
        }
        Ok(Response::new(pb::ListDisksResponse { rows }))
    }

    async fn list_mounts(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListMountsResponse>, Status> {
        let (reading, filter) = (self.reading(), request.into_inner());
        let mut rows = Vec::new();
        for at in reading.seen_nodes(&filter.node)? {
            rows.extend(
                at.rows(at.view.mounts.as_ref(), &filter)
                    .map(|(key, row)| convert::mount(&at, key, row, filter.detail)),
            );
        }
        Ok(Response::new(pb::ListMountsResponse { rows }))
    }

    async fn list_volumes(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListVolumesResponse>, Status> {
        let (reading, filter) = (self.reading(), request.into_inner());
        let (mut rows, mut unknown) = (Vec::new(), Vec::new());
        for at in reading.seen_nodes(&filter.node)? {
            unknown.extend(convert::engine_unknown(&at));
            rows.extend(
                at.rows(at.view.volumes.as_ref(), &filter)
                    .map(|(key, row)| convert::volume(&at, key, row, filter.detail)),
            );
        }
        Ok(Response::new(pb::ListVolumesResponse { rows, unknown }))
    }

    async fn list_containers(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<pb::ListContainersResponse>, Status> {
        let (reading, filter) = (self.reading(), request.into_inner());
        let (mut rows, mut unknown) = (Vec::new(), Vec::new());
        for at in reading.seen_nodes(&filter.node)? {
            unknown.extend(convert::engine_unknown(&at));
            let all = at.view.containers.iter().flat_map(|seen| seen.rows.iter());
            let named = all.filter(|(_, row)| filter.name.is_empty() || row.name.as_bytes() == filter.name);
            rows.extend(named.map(|(key, row)| convert::container(&at, key, row, filter.detail)));
        }
        Ok(Response::new(pb::ListContainersResponse { rows, unknown }))
    }

    async fn get_context(
        &self,
        request: Request<pb::GetContextRequest>,
    ) -> Result<Response<pb::GetContextResponse>, Status> {
        let (role, name, _) = person(&request)?;
        Ok(Response::new(pb::GetContextResponse {
            cluster: self.0.cluster.to_string(),
            cluster_id: self.0.cluster_id.to_string(),
            addresses: self.0.addresses.to_vec(),
            name: name.to_string(),
            role: role.to_string(),
        }))
    }

    async fn renew(&self, request: Request<pb::UserRenewRequest>) -> Result<Response<pb::UserRenewResponse>, Status> {
        let (role, name, key) = person(&request)?;
        let signing =
            identity::Request::from_der(&request.into_inner().csr).map_err(|error| failure::unsigned(&error))?;
        if signing.key() != key {
            return Err(failure::renewal_key());
        }
        let certificate = self.0.ca.sign_client(&signing, Subject::User(role, name.clone()), now());
        let certificate = certificate.map_err(|error| failure::unsigned(&error))?;
        tracing::info!(user = %name, "certificate renewed");
        Ok(Response::new(pb::UserRenewResponse { certificate }))
    }
}

impl convert::Reading {
    /// Nodes whose view says anything, with their presence.
    fn seen_nodes<'a>(&'a self, pattern: &'a str) -> Result<Vec<convert::At<'a>>, Status> {
        Ok(self
            .nodes(pattern)?
            .filter_map(|(id, node, view)| {
                let view = view?;
                let presence = live::presence(Some(view), node.enrolled_at, self.live.listening_since, self.now);
                Some(convert::At { id, view, lost: presence.state == NodeState::Unreachable })
            })
            .collect())
    }
}
