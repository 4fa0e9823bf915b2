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
use mainstay_core::live::presence;

use tokio::sync::watch;

use crate::{
    VERSION,
    api::Shared,
    gate::{Census, Refusals},
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
    let replica = shared.log.replica().as_str().as_bytes();
    out.add(&m::COORDINATOR_INFO, &[("version", VERSION.as_bytes()), ("replica", replica)], 1.0);
    out.render()
}
