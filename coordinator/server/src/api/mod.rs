//! One file per gRPC service: convert, one call, convert. Who may call was decided at the gate.

mod admin;
pub(crate) mod ca;
mod convert;
mod enrol;
pub(crate) mod failure;
mod operator;
mod viewer;

pub(crate) use admin::AdminService;
pub(crate) use enrol::EnrolService;
pub(crate) use operator::OperatorService;
pub(crate) use viewer::ViewerService;

use std::{path::Path, sync::Arc};

use mainstay_common::ClusterId;
use tonic::{Request, Status};

use mainstay_core::{Actor, Origin};

use crate::{
    gate::{Caller, Peer, Renewals},
    identity::{Authority, Holders},
    ingest::View,
    log::{By, Log},
};

/// What every service is given.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) view: View,
    pub(crate) ca: Arc<Authority>,
    pub(crate) cluster: Arc<str>,
    pub(crate) cluster_id: ClusterId,
    pub(crate) addresses: Arc<[String]>,
    /// Where holders of certificates are noted.
    pub(crate) holders: Holders,
    /// Tells the gate of certificates that were renewed on a connection that stands.
    pub(crate) renewals: Renewals,
    /// Where the audit trail lies.
    pub(crate) data_dir: Arc<Path>,
}

/// Who calls, as the gate found out.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("the gate named no caller"))
}

/// Who calls, as the log keeps it.
pub(crate) fn by<T>(request: &Request<T>) -> Result<By, Status> {
    let actor = match caller(request)? {
        Caller::User(role, name, _) => Actor::Human(name, role),
        Caller::Agent(node, _) => Actor::Agent(node),
        Caller::Anonymous => return Err(Status::internal("nobody may decide that")),
    };
    Ok(By { actor, from: from(request) })
}

/// Where a call comes from.
pub(crate) fn from<T>(request: &Request<T>) -> Origin {
    let peer = request.extensions().get::<Peer>();
    Origin::Peer(peer.map_or_else(String::new, |peer| peer.address.to_string()))
}
