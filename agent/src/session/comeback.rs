//! Back in after the certificate ran out, or its root was rotated, while the agent was off: the key shows who it is.

use std::time::Duration;

use mainstay_common::{
    process::tls::{channel, dial, explain, signing_request},
    text::Shown,
};
use mainstay_proto::v1::{self as pb, enrol_client::EnrolClient};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::NODE_REMOVED;
use crate::identity::{Held, Identity};

/// Longest wait for a connection, and again for the answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum NoWayBack {
    /// The cluster removed this node; the rest of what it said.
    Removed(String),
    /// Anything else, with what to do.
    Because(String),
}

/// Asks the replica at `address` for a certificate in place of `refused`, over TLS without one. Several sessions may
/// find out at once: the first asks, and the others use what it got.
pub(super) async fn come_back(identity: &Identity, address: &str, refused: &Held) -> Result<(), NoWayBack> {
    let _asking = identity.one_comes_back().await;
    if identity.held().der() != refused.der() {
        return Ok(());
    }
    let because = |why: String| NoWayBack::Because(why);
    let csr = identity.key().and_then(|key| signing_request(&key).map_err(|error| error.to_string()));
    let request = pb::ReenrolRequest { certificate: refused.der(), csr: csr.map_err(because)? };
    let stream = dial(address, &identity.server_name(), identity.anonymous().map_err(because)?, ANSWER).await;
    let stream = stream.map_err(|error| NoWayBack::Because(error.to_string()))?;
    let channel = channel(stream).await.map_err(|error| NoWayBack::Because(error.to_string()))?;
    let answer = timeout(ANSWER, EnrolClient::new(channel).reenrol(request)).await;
    let answer = answer.map_err(|_| NoWayBack::Because("no answer".into()))?.map_err(|status| no_way(&status))?;
    let answer = answer.into_inner();
    identity.hear_generation(answer.generation).map_err(because)?;
    // The roots first: cut short in between, the old certificate brings the node back once more.
    identity.keep_roots(&answer.ca).and_then(|()| identity.renew(&answer.certificate)).map_err(because)?;
    identity.learn(&answer.addresses);
    tracing::info!(
        replica = address, ran_out = %refused.certificate.not_after, not_after = %identity.certificate().not_after,
        "a new certificate for the same key"
    );
    Ok(())
}

fn no_way(status: &Status) -> NoWayBack {
    let mut lines = status.message().lines();
    if status.code() == Code::PermissionDenied && lines.next() == Some(NODE_REMOVED) {
        return NoWayBack::Removed(Shown::new(&lines.collect::<Vec<_>>().join(" ")).cut(300).to_string());
    }
    if status.code() == Code::Unimplemented {
        return NoWayBack::Because("it is older than this agent: `mainstay-agent enroll` with a new token".into());
    }
    let words = status.message().replace('\n', "; ");
    NoWayBack::Because(explain(status).unwrap_or_else(|| Shown::new(&words).cut(400).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_words_mean_removed() {
        let removed = |status| matches!(no_way(&status), NoWayBack::Removed(_));
        assert!(removed(Status::permission_denied("node removed\nan administrator removed n1\nx")));
        assert!(!removed(Status::permission_denied("the name n1 belongs to another key\nnode removed\nx")));
        assert!(!removed(Status::unavailable("node removed")));
    }
}
