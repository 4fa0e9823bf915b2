//! `/metrics` and the replica's health, in plain http.

use std::sync::{Arc, atomic::Ordering};

use mainstay_common::{
    metric::{catalogue as m, openmetrics},
    process::{
        http::{Handler, Page},
        now,
    },
    state::NodeState,
};
use mainstay_core::{cluster, live::presence};

use tokio::sync::watch;

use crate::{
    VERSION,
    api::Shared,
    gate::{Census, Refusals},
    raft::Role,
};

/// What the address answers.
pub(crate) fn handler(shared: Shared, refusals: Arc<Refusals>, census: watch::Receiver<Census>) -> Handler {
    Arc::new(move |path| match path {
        "/" => Some(Page { content_type: "text/plain; charset=utf-8", body: front(&shared) }),
        "/metrics" => {
            Some(Page { content_type: openmetrics::CONTENT_TYPE, body: metrics(&shared, &refusals, *census.borrow()) })
        }
        "/healthz" => Some(Page { content_type: "text/plain; charset=utf-8", body: "ok\n".into() }),
        _ => None,
    })
}

/// How the replica stands in its group, and what its disk does.
#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 may lose their last digit")]
fn of_the_log(shared: &Shared, out: &mut openmetrics::Exposition) {
    let (log, pulse) = (shared.log.raft(), shared.log.raft().pulse());
    if let Some(standing) = log.standing() {
        let roles = [Role::Leader, Role::Follower, Role::Learner, Role::Candidate].map(Role::as_str);
        out.add_state(&m::COORDINATOR_RAFT_ROLE, &[], standing.role.as_str(), roles.into_iter());
        for (metric, value) in [
            (&m::COORDINATOR_RAFT_TERM, standing.term),
            (&m::COORDINATOR_RAFT_COMMITTED_INDEX, standing.commit),
            (&m::COORDINATOR_RAFT_APPLIED_INDEX, standing.applied.index),
            (&m::COORDINATOR_RAFT_ELECTIONS_TOTAL, standing.campaigns),
            (&m::COORDINATOR_CHECKPOINT_INDEX, standing.checkpoint.index),
        ] {
            out.add(metric, &[], value as f64);
        }
        out.add(&m::COORDINATOR_RAFT_LEADER_HEARD_SECONDS, &[], standing.heard.map(|heard| heard.as_secs_f64()));
        for member in standing.members.iter().filter(|member| member.id != standing.id) {
            let peer = cluster::numbered(member.id);
            let lag = member.matched.map(|matched| standing.commit.saturating_sub(matched) as f64);
            out.add(&m::COORDINATOR_RAFT_LAG_ENTRIES, &[("peer", peer.as_str().as_bytes())], lag);
        }
    }
    let (proposals, writes) = (pulse.proposals(), pulse.writes());
    for (outcome, count) in
        [("committed", proposals.committed), ("refused", proposals.refused), ("unknown", proposals.unknown)]
    {
        out.add(&m::COORDINATOR_PROPOSALS_TOTAL, &[("outcome", outcome.as_bytes())], count as f64);
    }
    out.add(&m::COORDINATOR_RAFT_LEADER_CHANGES_TOTAL, &[], pulse.leader_changes() as f64);
    out.add(&m::COORDINATOR_LOG_BYTES, &[], pulse.log_bytes() as f64);
    out.add(&m::COORDINATOR_LOG_WRITES_TOTAL, &[], writes.count as f64);
    out.add(&m::COORDINATOR_LOG_WRITE_SECONDS_TOTAL, &[], writes.total.as_secs_f64());
    out.add(&m::COORDINATOR_LOG_SLOWEST_WRITE_SECONDS, &[], writes.slowest.as_secs_f64());
    out.add(&m::COORDINATOR_CHECKPOINT_BYTES, &[], pulse.checkpoint_bytes() as f64);
    let made_at = pulse.checkpoint_made_at_ms().map(|at| at as f64 / 1_000.0);
    out.add(&m::COORDINATOR_CHECKPOINT_TIMESTAMP_SECONDS, &[], made_at);
}

fn front(shared: &Shared) -> String {
    format!(
        "Mainstay {VERSION}, cluster {}, replica {}\n\n/metrics   OpenMetrics\n/healthz   ok while this replica serves\n\nEverything else: mainstay status\n",
        shared.cluster,
        shared.log.replica()
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 may lose their last digit")]
fn metrics(shared: &Shared, refusals: &Refusals, census: Census) -> String {
    let (state, live, now) = (shared.log.read(), shared.view.read(), now());
    let mut out = openmetrics::Exposition::default();
    for possible in NodeState::ALL {
        let looks = |(id, node): &(&mainstay_common::NodeId, &mainstay_core::node::Node)| {
            presence(live.node(id), node.enrolled_at, live.listening_since, now).state == *possible
        };
        let count = state.nodes.members().filter(looks).count();
        out.add(&m::COORDINATOR_NODES, &[("state", possible.as_str().as_bytes())], count as f64);
    }
    let counts = &shared.view.counts;
    for (metric, value) in [
        (&m::COORDINATOR_SESSIONS, &counts.sessions),
        (&m::COORDINATOR_SAMPLES_TOTAL, &counts.samples),
        (&m::COORDINATOR_SAMPLE_BYTES_TOTAL, &counts.bytes),
    ] {
        out.add(metric, &[], value.load(Ordering::Relaxed) as f64);
    }
    for (role, count) in [("stranger", census.strangers), ("agent", census.agents), ("person", census.people)] {
        out.add(&m::COORDINATOR_CONNECTIONS, &[("role", role.as_bytes())], count as f64);
    }
    for (refusal, count) in refusals.read() {
        out.add(&m::COORDINATOR_REFUSALS_TOTAL, &[("reason", refusal.as_str().as_bytes())], count as f64);
    }
    for (limit, count) in counts.cuts() {
        out.add(&m::COORDINATOR_CUT_TOTAL, &[("what", limit.as_str().as_bytes())], count as f64);
    }
    out.add(&m::COORDINATOR_VIEW_BYTES, &[], shared.view.sessions.view_bytes() as f64);
    of_the_log(shared, &mut out);
    let replica = shared.log.replica().as_str().as_bytes();
    out.add(&m::COORDINATOR_INFO, &[("version", VERSION.as_bytes()), ("replica", replica)], 1.0);
    out.render()
}
