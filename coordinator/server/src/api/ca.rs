//! The cluster's roots: what people see of them, and the steps of a rotation.

use mainstay_common::{UserName, process::now};
use mainstay_core::{
    Command, Consequence, State,
    ca::{self, Holder, Phase, Root, Standing, Step},
};
use mainstay_proto::v1 as pb;
use tonic::Status;

use super::{Shared, failure};
use crate::log::By;

/// What people see.
pub(crate) fn shown(shared: &Shared) -> pb::GetCaResponse {
    let state = shared.log.read();
    pb::GetCaResponse {
        phase: state.ca.phase().as_str().into(),
        version: state.ca.version(),
        roots: state.ca.roots().map(|(number, root)| root_row(number, root)).collect(),
        missing: state.ca.missing(&state.nodes).iter().map(ToString::to_string).collect(),
        missing_users: missing_users(&state).map(ToString::to_string).collect(),
        closed: shared.ca.issuing().err().map(|why| why.to_string()).unwrap_or_default(),
    }
}

fn root_row(number: u32, root: &Root) -> pb::CaRoot {
    let (standing, retired_at) = match root.standing {
        Standing::Issuing => ("issuing", None),
        Standing::Trusted => ("trusted", None),
        Standing::Retired(at) => ("retired", Some(at)),
    };
    pb::CaRoot {
        number,
        key: root.key.0.to_vec(),
        standing: standing.into(),
        made_at_ms: root.made_at.0,
        retired_at_ms: retired_at.map(|at| at.0),
    }
}

/// People whose certificates end with the old root, as far as is known: they hold up nothing.
fn missing_users(state: &State) -> impl Iterator<Item = &UserName> {
    let replacing = state.ca.phase() == Phase::Replacing;
    let active = state.users.iter().filter(|(_, user)| user.revoked_at.is_none()).map(|(name, _)| name);
    active.filter(move |name| replacing && !state.ca.has_acknowledged(&Holder::User((*name).clone())))
}

/// One step, onward or back.
pub(crate) async fn rotate(
    shared: &Shared,
    by: By,
    asked: &pb::RotateCaRequest,
) -> Result<pb::RotateCaResponse, Status> {
    let state = shared.log.read();
    if let Some(Consequence::Ca(ca::Consequence::Phase(phase))) = shared.recall(&by, &state)? {
        return Ok(pb::RotateCaResponse {
            phase: phase.as_str().into(),
            version: state.ca.version(),
            lost: Vec::new(),
        });
    }
    let step = Step { version: asked.version, force: asked.force };
    let command = match (asked.back, state.ca.phase()) {
        (true, _) => ca::Command::Back(step),
        (false, Phase::Settled) => {
            let root = shared.ca.next_root(&shared.cluster, now()).map_err(|error| failure::unsigned(&error))?;
            ca::Command::Begin(asked.version, root)
        }
        (false, Phase::Spreading) => ca::Command::Issue(step),
        (false, Phase::Replacing) => ca::Command::Finish(step),
    };
    let lost = if asked.force { state.ca.missing(&state.nodes) } else { Vec::new() };
    let proposed = shared.log.propose(by, Command::Ca(command)).await;
    let consequence = proposed.map_err(|error| failure::proposal(&error, &shared.log.read()))?;
    let Consequence::Ca(ca::Consequence::Phase(phase)) = consequence else {
        return Err(Status::internal("a step leads to a phase"));
    };
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    tracing::info!(phase = phase.as_str(), lost = lost.join(" "), "the cluster's CA is being rotated");
    Ok(pb::RotateCaResponse { phase: phase.as_str().into(), version: shared.log.read().ca.version(), lost })
}

/// Notes that somebody just got a certificate by the root that issues, where a rotation may wait for that.
pub(crate) fn note_holder(shared: &Shared, holder: Holder) {
    let state = shared.log.read();
    if state.ca.phase() != Phase::Settled {
        shared.holders.note(holder, state.ca.version());
    }
}
