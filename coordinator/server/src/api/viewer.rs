//! What every person with a certificate may ask.

use std::sync::Arc;

use mainstay_common::{
    NodeId, Timestamp,
    identity::{HumanRole, Subject},
    process::now,
    state::NodeState,
};
use mainstay_core::{alert::AlertId, ca::Holder, live, notify::DeliveryId};
use mainstay_proto::v1 as pb;
use tonic::{Request, Response, Status};

use super::{
    Shared, caller,
    convert::{self, alert},
    failure,
};
use crate::{
    VERSION,
    audit::{self, Found, Wanted},
    gate::Caller,
    identity,
};

/// Lines of the audit trail that are shown unless somebody wants more.
const AUDIT_LINES: u32 = 1_000;
/// The most that one answer holds.
const MAX_AUDIT_LINES: u32 = 100_000;

/// `Viewer`.
pub(crate) struct ViewerService(pub(crate) Shared);

impl ViewerService {
    async fn reading<T: Sync>(&self, request: &Request<T>) -> Result<convert::Reading, Status> {
        Ok(convert::Reading { state: self.0.state(request).await?, live: self.0.view.read(), now: now() })
    }
}

fn replica(row: pb::ReplicaStanding) -> pb::ReplicaRow {
    pb::ReplicaRow { id: row.replica, address: row.address, role: row.role, healthy: row.healthy }
}

fn person<T>(
    request: &Request<T>,
) -> Result<(HumanRole, mainstay_common::UserName, mainstay_core::KeyFingerprint), Status> {
    match caller(request)? {
        Caller::User(role, name, key) => Ok((role, name, key)),
        Caller::Anonymous | Caller::Agent(..) | Caller::Replica(..) => {
            Err(Status::internal("the gate let somebody else in"))
        }
    }
}

#[tonic::async_trait]
impl pb::viewer_server::Viewer for ViewerService {
    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let reading = self.reading(&request).await?;
        let mut status = convert::status(&reading);
        status.cluster = self.0.cluster.to_string();
        status.version = VERSION.into();
        let standing = self.0.log.raft().status().await;
        let rows = standing.map_or_else(Vec::new, |standing| super::cluster::rows(&self.0, &reading.state, &standing));
        status.replicas = rows.into_iter().map(replica).collect();
        Ok(Response::new(status))
    }

    async fn list_nodes(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListNodesResponse>, Status> {
        let (reading, filter) = (self.reading(&request).await?, request.into_inner());
        let rows =
            reading.nodes(&filter.node)?.map(|(id, node, view)| convert::node(&reading, id, node, view)).collect();
        Ok(Response::new(pb::ListNodesResponse { rows }))
    }

    async fn get_node(&self, request: Request<pb::GetNodeRequest>) -> Result<Response<pb::GetNodeResponse>, Status> {
        let (reading, name) = (self.reading(&request).await?, request.into_inner().name);
        let unknown = || failure::node_unknown(&name, &reading.state);
        let id: NodeId = name.parse().map_err(|_| unknown())?;
        let node = reading.state.nodes.member(&id).ok_or_else(unknown)?;
        Ok(Response::new(convert::node_detail(&reading, &id, node, reading.live.node(&id))))
    }

    async fn list_disks(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListDisksResponse>, Status> {
        let (reading, filter) = (self.reading(&request).await?, request.into_inner());
        let mut rows = Vec::new();
        for at in reading.seen_nodes(&filter.node)? {
            rows.extend(
                at.rows(at.view.disks.as_ref(), &filter).map(|(key, row)| convert::disk(&at, key, row, filter.detail)),
            );
        }
        Ok(Response::new(pb::ListDisksResponse { rows }))
    }

    async fn list_mounts(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListMountsResponse>, Status> {
        let (reading, filter) = (self.reading(&request).await?, request.into_inner());
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
        let (reading, filter) = (self.reading(&request).await?, request.into_inner());
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
        let (reading, filter) = (self.reading(&request).await?, request.into_inner());
        let (mut rows, mut unknown) = (Vec::new(), Vec::new());
        for at in reading.seen_nodes(&filter.node)? {
            unknown.extend(convert::engine_unknown(&at));
            let all = at.view.containers.iter().flat_map(|seen| seen.rows.iter());
            let named = all.filter(|(_, row)| filter.name.is_empty() || row.name.as_bytes() == filter.name);
            rows.extend(named.map(|(key, row)| convert::container(&at, key, row, filter.detail)));
        }
        Ok(Response::new(pb::ListContainersResponse { rows, unknown }))
    }

    async fn list_alerts(
        &self,
        request: Request<pb::ListAlertsRequest>,
    ) -> Result<Response<pb::ListAlertsResponse>, Status> {
        let (reading, filter) = (self.reading(&request).await?, request.into_inner());
        let alerts = &reading.state.alerts;
        let means = |pattern: &str, text: &str| pattern.is_empty() || glob_match::glob_match(pattern, text);
        let wanted = |id: &AlertId| means(&filter.node, id.node.as_str()) && means(&filter.rule, id.rule.as_str());
        let open = alerts.open().filter(|(id, _)| wanted(id)).map(|(id, alert)| alert::open(&reading, id, alert));
        let over =
            alerts.resolved().filter(|(id, _)| filter.all && wanted(id)).map(|(id, over)| alert::resolved(id, over));
        Ok(Response::new(pb::ListAlertsResponse { rows: open.chain(over).collect() }))
    }

    async fn get_alert(&self, request: Request<pb::GetAlertRequest>) -> Result<Response<pb::GetAlertResponse>, Status> {
        let (reading, asked) = (self.reading(&request).await?, request.into_inner().id);
        let alerts = &reading.state.alerts;
        let open = alerts.open().find(|(id, _)| id.to_string() == asked);
        let over = || alerts.resolved().filter(|(id, _)| id.to_string() == asked).max_by_key(|(_, over)| over.at);
        let found = open.map(|(id, it)| (id, it.since, alert::open(&reading, id, it)));
        let found = found.or_else(|| over().map(|(id, it)| (id, it.alert.since, alert::resolved(id, it))));
        // Whoever asks lists the names to find the nearest.
        let Some((id, since, row)) = found else { return Ok(Response::new(pb::GetAlertResponse::default())) };
        Ok(Response::new(pb::GetAlertResponse {
            row: Some(row),
            rule: Some(alert::applied_rule(&reading, id)),
            deliveries: alert::deliveries(&reading, |delivery| alert::is_about(delivery, id, since)),
        }))
    }

    async fn list_rules(
        &self,
        request: Request<pb::ListRulesRequest>,
    ) -> Result<Response<pb::ListRulesResponse>, Status> {
        Ok(Response::new(pb::ListRulesResponse { rows: alert::rules(&self.reading(&request).await?) }))
    }

    async fn list_receivers(
        &self,
        request: Request<pb::ListReceiversRequest>,
    ) -> Result<Response<pb::ListReceiversResponse>, Status> {
        let reading = self.reading(&request).await?;
        let receivers = reading.state.notifications.receivers();
        let rows = receivers.map(|(name, it, standing)| alert::receiver(&reading, name, it, standing)).collect();
        Ok(Response::new(pb::ListReceiversResponse { rows }))
    }

    async fn get_delivery(
        &self,
        request: Request<pb::GetDeliveryRequest>,
    ) -> Result<Response<pb::GetDeliveryResponse>, Status> {
        let (reading, asked) = (self.reading(&request).await?, request.into_inner());
        let wanted = |id: &DeliveryId| id.receiver.as_str() == asked.receiver && id.to_string() == asked.id;
        let row = alert::deliveries(&reading, wanted).pop();
        row.map_or_else(
            || Err(failure::delivery_unknown(&asked.id)),
            |row| Ok(Response::new(pb::GetDeliveryResponse { row: Some(row) })),
        )
    }

    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        // The trail follows the state: what was answered somewhere is in it here, too.
        self.0.state(&request).await?;
        let asked = request.into_inner();
        let limit = if asked.limit == 0 { AUDIT_LINES } else { asked.limit.min(MAX_AUDIT_LINES) };
        let wanted = Wanted { since: Timestamp(asked.since_ms), actor: asked.actor, limit: limit as usize };
        let folder = Arc::clone(&self.0.data_dir);
        self.0.log.audited().await;
        // Files are read where nothing else waits for them.
        let found = tokio::task::spawn_blocking(move || audit::read(&folder, &wanted)).await;
        let found = found.map_err(|crash| Status::internal(crash.to_string()))?;
        let Found { lines, more } = found.map_err(|error| failure::audit_unreadable(&error))?;
        Ok(Response::new(pb::ListAuditResponse { rows: lines.into_iter().map(alert::audit_row).collect(), more }))
    }

    async fn get_context(
        &self,
        request: Request<pb::GetContextRequest>,
    ) -> Result<Response<pb::GetContextResponse>, Status> {
        let (role, name, _) = person(&request)?;
        Ok(Response::new(pb::GetContextResponse {
            cluster: self.0.cluster.to_string(),
            cluster_id: self.0.cluster_id.to_string(),
            addresses: self.0.addresses(),
            name: name.to_string(),
            role: role.to_string(),
            ca: self.0.ca.bundle(),
            ca_issuer: self.0.ca.pin().to_vec(),
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
        super::ca::note_holder(&self.0, Holder::User(name.clone()));
        tracing::info!(user = %name, "certificate renewed");
        Ok(Response::new(pb::UserRenewResponse { certificate }))
    }

    async fn get_cluster(
        &self,
        request: Request<pb::GetClusterRequest>,
    ) -> Result<Response<pb::GetClusterResponse>, Status> {
        let rows = super::cluster::standing(&self.0, super::is_stale(&request)).await?;
        Ok(Response::new(pb::GetClusterResponse { rows }))
    }

    async fn get_ca(&self, _request: Request<pb::GetCaRequest>) -> Result<Response<pb::GetCaResponse>, Status> {
        Ok(Response::new(super::ca::shown(&self.0)))
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
