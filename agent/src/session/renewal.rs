//! A fresh certificate for the same key before the one in use runs out.

use std::{sync::Arc, time::Duration};

use mainstay_common::{
    Timestamp,
    process::{
        now,
        shutdown::CancellationToken,
        tls::{Certificate, dial, explain, signing_request, watched_channel},
    },
    text::Shown,
    time,
};
use mainstay_proto::v1::{self as pb, agent_client::AgentClient};
use tokio::time::{sleep, timeout};

use super::{
    NODE_REMOVED,
    comeback::{NoWayBack, come_back},
    retry::dice,
};
use crate::identity::Identity;

/// The clock is looked at this often: it may jump, and machines sleep.
const LOOK: Duration = Duration::from_secs(60);
/// Longest wait for one replica's answer.
const ANSWER: Duration = Duration::from_secs(10);

/// When a certificate should be renewed: after a random 50 to 80 percent of its life.
fn renew_at(certificate: &Certificate, dice: f64) -> Timestamp {
    let life = certificate.not_after.since(certificate.not_before);
    certificate.not_before.plus(life.mul_f64(0.5 + 0.3 * dice.clamp(0.0, 1.0)))
}

/// Renews the certificate whenever its time comes, until `stop`; never gives up.
pub async fn renew_in_time(identity: Arc<Identity>, stop: CancellationToken) {
    let mut at = renew_at(&identity.certificate(), dice());
    let mut said = String::new();
    let mut wishes = identity.watch_wish();
    wishes.mark_changed();
    loop {
        let wait = at.since(now()).min(LOOK);
        tokio::select! {
            () = sleep(wait) => {}
            Ok(()) = wishes.changed() => {
                let wish = wishes.borrow_and_update().clone();
                if wish.issuer.is_some_and(|issuer| !identity.held().is_by(&issuer)) {
                    at = at.min(now().plus(wish.spread.mul_f64(dice())));
                }
            }
            () = stop.cancelled() => return,
        }
        if now() < at {
            continue;
        }
        let tried = tokio::select! {
            tried = ask_anyone(&identity) => tried,
            () = stop.cancelled() => return,
        };
        match tried {
            Ok(()) => {
                let certificate = identity.certificate();
                tracing::info!(not_after = %certificate.not_after, "certificate renewed");
                at = renew_at(&certificate, dice());
                said.clear();
                // A clock far ahead would ask again at once, and so would a replica that lags behind.
                at = at.max(now().plus(LOOK));
                let wish = wishes.borrow().clone();
                if wish.issuer.is_some_and(|issuer| !identity.held().is_by(&issuer)) {
                    at = now().plus(LOOK.mul_f64(0.5 + dice()));
                }
            }
            Err(reason) => {
                let advice = advice(&identity.certificate(), now());
                if said != reason {
                    tracing::warn!(reason, advice, "the certificate could not be renewed; trying on");
                    said = reason;
                }
                at = now().plus(LOOK.mul_f64(0.5 + dice()));
            }
        }
    }
}

fn advice(certificate: &Certificate, now: Timestamp) -> String {
    if now > certificate.not_after {
        format!(
            "it ran out at {} (this machine's clock: {now}); the sessions ask for a new one with the same key",
            certificate.not_after
        )
    } else {
        format!("it still counts for {}", time::span(certificate.not_after.since(now)))
    }
}

/// Asks one replica after the other: only the leader signs, and any may be away.
async fn ask_anyone(identity: &Identity) -> Result<(), String> {
    let enrolment = identity.enrolment();
    let mut addresses = enrolment.addresses;
    addresses.push(enrolment.coordinator);
    addresses.dedup();
    let mut reasons = Vec::new();
    for address in &addresses {
        match timeout(ANSWER * 2, ask(identity, address)).await.unwrap_or_else(|_| Err("no answer".into())) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(format!("{address}: {reason}")),
        }
    }
    Err(reasons.join("; "))
}

/// Where the replica does not take the certificate any more (a rotation that did not wait, a clock), the key still shows
/// who this is.
async fn ask(identity: &Identity, address: &str) -> Result<(), String> {
    let held = identity.held();
    let csr = signing_request(&identity.key()?).map_err(|error| error.to_string())?;
    let stream = dial(address, &identity.server_name(), held.client(), ANSWER).await.map_err(|e| e.to_string())?;
    let (channel, verdict) = watched_channel(stream).await.map_err(|error| error.to_string())?;
    match AgentClient::new(channel).renew(pb::AgentRenewRequest { csr }).await {
        Ok(answer) => identity.renew(&answer.into_inner().certificate),
        Err(_) if verdict.is_out_of_date() => come_back(identity, address, &held).await.map_err(|why| match why {
            // The sessions hear of it too, and end.
            NoWayBack::Removed(_) => NODE_REMOVED.to_owned(),
            NoWayBack::Because(why) => why,
        }),
        Err(status) => {
            Err(explain(&status)
                .unwrap_or_else(|| format!("{}: {}", status.code(), Shown::new(status.message()).cut(300))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_between_half_and_four_fifths_of_a_life() {
        let certificate = Certificate {
            identity: "spiffe://c1/agent/n1".parse().unwrap(),
            spki_sha256: [0; 32],
            not_before: Timestamp(0),
            not_after: Timestamp(1_000_000),
        };
        assert_eq!(renew_at(&certificate, 0.0), Timestamp(500_000));
        assert_eq!(renew_at(&certificate, 1.0), Timestamp(800_000));
        assert!(advice(&certificate, Timestamp(1_000_001)).contains("same key"));
    }
}
