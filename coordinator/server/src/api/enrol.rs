//! The one door without a certificate.

use mainstay_common::{NodeId, TokenId, identity::Subject, process::now, token::Secret};
use mainstay_core::{Actor, Command, Consequence, KeyFingerprint, token};
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
        let secret_sha256 = KeyFingerprint(Secret(secret).sha256());
        let redeem = token::Redeem { token: token.clone(), secret_sha256, key: signing.key(), node };
        let by = By { actor: Actor::Token(token.clone()), from: origin };
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
            ca: self.0.ca.pem().to_owned(),
            addresses: self.0.addresses.to_vec(),
            sent_at_ms: now().0,
        }))
    }
}
