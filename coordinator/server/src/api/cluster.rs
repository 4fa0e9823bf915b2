//! The replicas: how they stand, who leads, and who goes.

use mainstay_common::ReplicaId;
use mainstay_core::{Command, Consequence, State, cluster};
use mainstay_proto::v1 as pb;
use tonic::Status;

use super::{Shared, failure};
use crate::{
    failpoint,
    log::By,
    raft::{Change, ChangeError, ChangeRefused, MemberRole, ReadError, Role, Status as Standing},
};

/// How the replicas stand, as the leader knows it; `stale`: as this one does.
pub(super) async fn standing(shared: &Shared, stale: bool) -> Result<Vec<pb::ReplicaStanding>, Status> {
    let state = shared.log.read();
    if !stale && !shared.log.leads() {
        return Err(failure::not_leader(shared.log.known_leader(), &state));
    }
    let standing = shared.log.raft().status().await.ok_or_else(|| failure::not_readable(ReadError::Ending))?;
    Ok(rows(shared, &state, &standing))
}

/// One row for each replica that was not removed.
pub(super) fn rows(shared: &Shared, state: &State, standing: &Standing) -> Vec<pb::ReplicaStanding> {
    let links = shared.network.links();
    let row = |(id, replica): (&ReplicaId, &cluster::Replica)| {
        let number = cluster::number(id).unwrap_or(0);
        let is_own = number == standing.id;
        let member = standing.members.iter().find(|member| member.id == number);
        let role = if standing.leader == Some(number) {
            "leader"
        } else if member.is_none_or(|member| member.role == MemberRole::Learner) {
            "learner"
        } else {
            "follower"
        };
        let linked = is_own || links.get(&number).copied().unwrap_or(false);
        // A leader knows how far the others have its log, and that they can apply what is committed of it.
        let matched = if is_own { Some(standing.last.index) } else { member.and_then(|member| member.matched) };
        let applied =
            if is_own { Some(standing.applied.index) } else { matched.map(|matched| matched.min(standing.commit)) };
        pb::ReplicaStanding {
            replica: id.to_string(),
            address: shared.address_of(id, replica),
            peer_address: replica.peer_address.clone().unwrap_or_default(),
            role: role.into(),
            term: standing.term,
            applied_index: applied,
            lag_entries: applied.map(|applied| standing.commit.saturating_sub(applied)),
            healthy: member.and_then(|member| member.alive).unwrap_or(linked),
            generation: state.cluster.about().generation,
        }
    };
    state.cluster.replicas().map(row).collect()
}

/// A replica goes for good: first from the list, then from those that decide. The other way round whoever leads next could
/// take one that is listed for one that has yet to come in.
pub(super) async fn remove(shared: &Shared, by: By, asked: &str) -> Result<ReplicaId, Status> {
    let (log, state) = (&shared.log, shared.log.read());
    if !log.leads() {
        return Err(failure::not_leader(log.known_leader(), &state));
    }
    if let Some(Consequence::Cluster(cluster::Consequence::Removed(id))) = shared.recall(&by, &state)? {
        return Ok(id);
    }
    let (id, number) = find(&state, asked)?;
    let standing = log.raft().status().await.ok_or_else(|| failure::not_readable(ReadError::Ending))?;
    let voters = standing.members.iter().filter(|member| member.role == MemberRole::Voter).count();
    if number == log.number() && standing.role == Role::Leader && voters > 1 {
        // Whoever leads then removes it.
        let next = log.hand_over(None).await.ok_or_else(failure::not_transferred)?;
        return Err(failure::not_leader(Some(next), &state));
    }
    let _alone = shared.membership.lock().await;
    match log.raft().allows(Change::Remove(number)).await {
        // One that never came in.
        Ok(()) | Err(ChangeError::Refused(ChangeRefused::NoMember(_))) => {}
        Err(ChangeError::Refused(ChangeRefused::NotLeader(leader))) => return Err(failure::not_leader(leader, &state)),
        Err(error) => return Err(failure::change(&error, &id)),
    }
    let command = Command::Cluster(cluster::Command::Remove(id.clone()));
    let id = match log.propose(by, command).await {
        Ok(Consequence::Cluster(cluster::Consequence::Removed(id))) => id,
        Ok(_) => return Err(Status::internal("a removal removes")),
        Err(error) => return Err(failure::proposal(&error, &log.read())),
    };
    failpoint::reach("removal-decided");
    // Decided it is; whoever leads carries it out, now or when it can.
    if let Err(why) = log.raft().change(Change::Remove(number)).await
        && !matches!(why, ChangeError::Refused(ChangeRefused::NoMember(_)))
    {
        tracing::info!(replica = %id, %why, "it is removed, and decides until the members can change");
    }
    Ok(id)
}

/// Another replica leads; who.
pub(super) async fn transfer(shared: &Shared, asked: &str) -> Result<ReplicaId, Status> {
    let (log, state) = (&shared.log, shared.log.read());
    let target = if asked.is_empty() { None } else { Some(find(&state, asked)?) };
    if let Some((id, number)) = &target
        && log.known_leader() == Some(*number)
    {
        return Ok(id.clone());
    }
    if !log.leads() {
        return Err(failure::not_leader(log.known_leader(), &state));
    }
    let led = log.hand_over(target.map(|(_, number)| number)).await.ok_or_else(failure::not_transferred)?;
    Ok(cluster::numbered(led))
}

/// A replica by its id or one of its addresses.
fn find(state: &State, asked: &str) -> Result<(ReplicaId, u64), Status> {
    let means = |(id, replica): &(&ReplicaId, &cluster::Replica)| {
        id.as_str() == asked || replica.address == asked || replica.peer_address.as_deref() == Some(asked)
    };
    let found = state.cluster.replicas().find(means).map(|(id, _)| id.clone());
    let found = found.and_then(|id| cluster::number(&id).map(|number| (id, number)));
    found.ok_or_else(|| failure::replica_unknown(asked, state))
}
