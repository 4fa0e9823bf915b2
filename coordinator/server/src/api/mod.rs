//! One file per gRPC service: convert, one call, convert. Who may call was decided at the gate.

mod admin;
mod backup;
pub(crate) mod ca;
mod cluster;
mod convert;
mod enrol;
pub(crate) mod failure;
mod operator;
mod staleness;
mod viewer;

pub(crate) use admin::AdminService;
pub(crate) use enrol::EnrolService;
pub(crate) use operator::OperatorService;
pub(crate) use staleness::StalenessLayer;
pub(crate) use viewer::ViewerService;

use std::{path::Path, sync::Arc};

use mainstay_common::{ClusterId, ReplicaId, process::now};
use mainstay_core::{Actor, Consequence, Origin, State, request::Named};
use prost::Name;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tonic::{Request, Status};

use crate::{
    gate::{Caller, Peer, Renewals},
    identity::{Authority, Holders},
    ingest::View,
    log::{Asked, By, Log},
    peers::Network,
};

/// What every service is given.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) view: View,
    pub(crate) ca: Arc<Authority>,
    pub(crate) cluster: Arc<str>,
    pub(crate) cluster_id: ClusterId,
    /// What agents and operators dial here, where that is not what the state says: for `mainstay dev`.
    pub(crate) announced: Option<Arc<str>>,
    /// The links to other replicas.
    pub(crate) network: Arc<Network>,
    /// Held by whoever changes who decides.
    pub(crate) membership: Arc<Mutex<()>>,
    /// Where holders of certificates are noted.
    pub(crate) holders: Holders,
    /// Tells the gate of certificates that were renewed on a connection that stands.
    pub(crate) renewals: Renewals,
    /// Where the audit trail lies.
    pub(crate) data_dir: Arc<Path>,
}

impl Shared {
    /// What agents and operators dial: every replica's address.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let state = self.log.read();
        state.cluster.replicas().map(|(id, replica)| self.address_of(id, replica)).collect()
    }

    fn address_of(&self, id: &ReplicaId, replica: &mainstay_core::cluster::Replica) -> String {
        let announced = self.announced.as_ref().filter(|_| id == self.log.replica());
        announced.map_or_else(|| replica.address.clone(), ToString::to_string)
    }

    /// The state to answer from: with all in it that anybody was answered before, unless the caller asks for this
    /// replica's own view.
    pub(crate) async fn state<T>(&self, request: &Request<T>) -> Result<Arc<State>, Status> {
        if is_stale(request) {
            return Ok(self.log.read());
        }
        self.log.read_now().await.map_err(failure::not_readable)
    }

    /// What came of this request, where it was answered before: what it did is no reason to refuse it now.
    pub(crate) fn recall(&self, by: &By, state: &State) -> Result<Option<Consequence>, Status> {
        let Some(Asked { name, digest }) = by.asked.clone() else { return Ok(None) };
        let named = Named { actor: by.actor.clone(), name };
        state.requests.recall(named, digest, now()).map_err(|why| failure::refused(&why.into(), state))
    }
}

fn is_stale<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(staleness::STALE)
}

/// Who calls, as the gate found out.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("the gate named no caller"))
}

/// The caller's own name for what it asks for.
const REQUEST: &str = "mainstay-request";

/// The name under which this is asked for, where it has one.
fn asked<T: Name>(request: &Request<T>) -> Result<Option<Asked>, Status> {
    let Some(name) = request.metadata().get(REQUEST) else { return Ok(None) };
    let name = name.to_str().map_err(|_| failure::request_name())?.to_owned();
    let hash = Sha256::new().chain_update(T::NAME).chain_update([0]).chain_update(request.get_ref().encode_to_vec());
    let digest = hash.finalize();
    let (first, _) = digest.split_first_chunk().ok_or_else(|| Status::internal("a digest has 32 bytes"))?;
    Ok(Some(Asked { name, digest: u64::from_be_bytes(*first) }))
}

/// Who calls, as the log keeps it.
pub(crate) fn by<T: Name>(request: &Request<T>) -> Result<By, Status> {
    let actor = match caller(request)? {
        Caller::User(role, name, _) => Actor::Human(name, role),
        Caller::Agent(node, _) => Actor::Agent(node),
        Caller::Anonymous | Caller::Replica(..) => return Err(Status::internal("nobody may decide that")),
    };
    Ok(By { actor, from: from(request), asked: asked(request)? })
}

/// Where a call comes from.
pub(crate) fn from<T>(request: &Request<T>) -> Origin {
    let peer = request.extensions().get::<Peer>();
    Origin::Peer(peer.map_or_else(String::new, |peer| peer.address.to_string()))
}
