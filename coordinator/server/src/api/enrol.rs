//! The one door without a certificate.

use mainstay_common::{
    NodeId, ReplicaId, TokenId,
    identity::Subject,
    process::{now, tls::Certificate},
    token::Secret,
};
use mainstay_core::{Actor, Command, Consequence, KeyFingerprint, ca, cluster, node, token};
use mainstay_proto::v1 as pb;
use tonic::{Request, Response, Status};

use super::{Shared, failure};
use crate::{gate::Peer, identity, log::By};

/// `Enrol`.
pub(crate) struct EnrolService(pub(crate) Shared);

#[tonic::async_trait]
impl pb::enrol_server::Enrol for EnrolService {
    async fn redeem(&self, request: Request<pb::RedeemRequest>) -> Result<Response<pb::RedeemResponse>, Status> {
        let from = request.extensions().get::<Peer>().map(|peer| tracing::field::display(peer.address));
        let origin = super::from(&request);
        let asked = request.into_inner();
        let signing = identity::Request::from_der(&asked.csr).map_err(|error| failure::unsigned(&error))?;
        let token: TokenId = asked.token_id.parse().map_err(|error| failure::invalid_name(&error))?;
        let node: NodeId = asked.name.parse().map_err(|error| failure::invalid_name(&error))?;
        let secret =
            asked.secret.try_into().map_err(|_| failure::invalid("not a token", "its secret has 16 bytes", ""))?;
        // Where nothing can be signed, no use is taken.
        self.0.ca.issuing().map_err(|error| failure::unsigned(&error))?;
        let secret_sha256 = KeyFingerprint(Secret(secret).sha256());
        let redeem = token::Redeem { token: token.clone(), secret_sha256, key: signing.key(), node };
        let by = By::unnamed(Actor::Token(token.clone()), origin);
        let command = Command::Token(token::Command::Redeem(redeem));
        let admitted = match self.0.log.propose(by, command).await {
            Ok(Consequence::Token(token::Consequence::Admitted(node, _))) => node,
            Ok(_) => return Err(Status::internal("a redeemed token admits somebody")),
            Err(error) => {
                tracing::warn!(token = %token, from, %error, "enrolment refused");
                return Err(failure::proposal(&error, &self.0.log.read()));
            }
        };
        let subject = Subject::Agent(admitted.clone());
        let certificate = self.0.ca.sign_client(&signing, subject, now()).map_err(|error| failure::unsigned(&error))?;
        tracing::info!(node = %admitted, token = %token, from, "node enrolled");
        Ok(Response::new(pb::RedeemResponse {
            cluster_id: self.0.cluster_id.to_string(),
            cluster: self.0.cluster.to_string(),
            certificate,
            ca: self.0.ca.bundle(),
            addresses: self.0.addresses(),
            sent_at_ms: now().0,
        }))
    }

    async fn reenrol(&self, request: Request<pb::ReenrolRequest>) -> Result<Response<pb::ReenrolResponse>, Status> {
        let from = request.extensions().get::<Peer>().map(|peer| tracing::field::display(peer.address));
        let refused = |status: Status| {
            tracing::warn!(from, why = %status.message().replace('\n', "; "), "a node may not come back");
            status
        };
        let (node, certificate) = self.come_back(&request.into_inner()).map_err(refused)?;
        tracing::info!(%node, from, "node came back with the key it had");
        Ok(Response::new(pb::ReenrolResponse {
            certificate,
            ca: self.0.ca.bundle(),
            addresses: self.0.addresses(),
            sent_at_ms: now().0,
            generation: self.0.log.read().cluster.about().generation,
        }))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let origin = super::from(&request);
        let asked = request.into_inner();
        let signing = identity::Request::from_der(&asked.csr).map_err(|error| failure::unsigned(&error))?;
        let token: TokenId = asked.token_id.parse().map_err(|error| failure::invalid_name(&error))?;
        let secret =
            asked.secret.try_into().map_err(|_| failure::invalid("not a token", "its secret has 16 bytes", ""))?;
        let tells = self.0.log.may_tell_versions();
        let version = asked.entry_version.max(1);
        if tells && version < 2 {
            return Err(failure::joins_too_old(version));
        }
        // Where nothing can be signed, no use is taken.
        self.0.ca.issuing().map_err(|error| failure::unsigned(&error))?;
        let join = token::Join {
            token: token.clone(),
            secret_sha256: KeyFingerprint(Secret(secret).sha256()),
            key: signing.key(),
            address: asked.address,
            peer_address: asked.peer_address,
            version: tells.then_some(version),
        };
        let id = self.take_in(By::unnamed(Actor::Token(token.clone()), origin), join).await?;
        let subject = Subject::Replica(id.clone());
        let certificate = self.0.ca.sign_joined(&signing, subject, now()).map_err(|error| failure::unsigned(&error))?;
        tracing::info!(replica = %id, %token, "replica joined");
        let state = self.0.log.read();
        let others = state.cluster.replicas().filter(|(other, _)| **other != id);
        let contact = |(id, replica): (&ReplicaId, &cluster::Replica)| {
            Some(pb::ReplicaContact { id: id.to_string(), peer_address: replica.peer_address.clone()? })
        };
        Ok(Response::new(pb::JoinResponse {
            cluster_id: self.0.cluster_id.to_string(),
            cluster: self.0.cluster.to_string(),
            generation: state.cluster.about().generation,
            replica: id.to_string(),
            certificate,
            ca: self.0.ca.bundle(),
            replicas: others.filter_map(contact).collect(),
        }))
    }
}

impl EnrolService {
    /// The state gives the id; who asks again with the same key has it already.
    async fn take_in(&self, by: By, join: token::Join) -> Result<ReplicaId, Status> {
        let (log, token) = (&self.0.log, join.token.clone());
        match log.propose(by, Command::Token(token::Command::Join(join))).await {
            Ok(Consequence::Token(token::Consequence::Joined(id))) => Ok(id),
            Ok(_) => Err(Status::internal("a join takes somebody in")),
            Err(error) => {
                tracing::warn!(%token, %error, "join refused");
                Err(failure::proposal(&error, &log.read()))
            }
        }
    }

    /// What is cheap to look at comes first: anybody may ask.
    fn come_back(&self, asked: &pb::ReenrolRequest) -> Result<(NodeId, String), Status> {
        let shown = Certificate::from_der(&asked.certificate).map_err(|error| {
            failure::invalid(
                "that is no certificate of a node",
                &error.to_string(),
                "mainstay-agent enroll with a new token",
            )
        })?;
        let key = KeyFingerprint(shown.spki_sha256);
        let Subject::Agent(node) = shown.identity.subject else {
            return Err(failure::not_ours("only nodes come back this way"));
        };
        match self.0.log.read().nodes.standing(&node, key) {
            node::Standing::Member => {}
            node::Standing::Removed => return Err(failure::node_removed(&node)),
            node::Standing::OtherKey => return Err(failure::other_key(&node)),
            node::Standing::Unknown => return Err(failure::node_unknown_here(&node)),
        }
        self.0.ca.issued(&asked.certificate, |_| true).map_err(|why| failure::not_ours(&why))?;
        let signing = identity::Request::from_der(&asked.csr).map_err(|error| failure::unsigned(&error))?;
        if signing.key() != key {
            return Err(failure::renewal_key());
        }
        if !ca::may_come_back(shown.not_after, now()) {
            return Err(failure::expired_long_ago(&node, shown.not_after, now()));
        }
        let certificate = self.0.ca.sign_client(&signing, Subject::Agent(node.clone()), now());
        Ok((node, certificate.map_err(|error| failure::unsigned(&error))?))
    }
}
