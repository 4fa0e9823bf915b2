//! One file per gRPC service: convert, one call, convert. Who may call was decided at the gate.

mod admin;
mod convert;
mod enrol;
pub(crate) mod failure;
mod operator;
mod viewer;

pub(crate) use admin::AdminService;
pub(crate) use enrol::EnrolService;
pub(crate) use operator::OperatorService;
pub(crate) use viewer::ViewerService;

use std::sync::Arc;

use mainstay_common::ClusterId;
use tonic::{Request, Status};

use crate::{gate::Caller, identity::Ca, ingest::View, log::Log};

/// What every service is given.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) view: View,
    pub(crate) ca: Arc<Ca>,
    pub(crate) cluster: Arc<str>,
    pub(crate) cluster_id: ClusterId,
    pub(crate) replica: mainstay_common::ReplicaId,
    pub(crate) addresses: Arc<[String]>,
}

/// Who calls, as the gate found out.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("the gate named no caller"))
}
