//! Keeping a context file fresh: addresses as the cluster tells them, a certificate that does not run out in use.

use std::{path::Path, time::Duration};

use mainstay_common::{
    ExitCode, Failure, Timestamp,
    process::{
        context::Context,
        now,
        tls::{Certificate, Channel, issuer_of, pins_of, signing_request},
    },
};
use mainstay_proto::v1::{self as pb, viewer_client::ViewerClient};
use rcgen::KeyPair;
use tokio::time::timeout;

use super::{Located, lock::Lock};

/// Longest wait for an answer: nobody waits for this.
const ANSWER: Duration = Duration::from_secs(5);
/// More addresses than any coordinator has replicas.
const ADDRESSES_MAX: usize = 16;

/// Asks the cluster what a context should say, and writes what is different. `answered` is the address that this
/// command line reached: it stays, also where the cluster knows itself by other addresses.
///
/// # Errors
/// Why nothing was kept. The context in use is good all the same.
pub(crate) async fn fresh(channel: Channel, located: &Located, answered: Option<&str>) -> Result<(), Failure> {
    let told = timeout(ANSWER, ViewerClient::new(channel.clone()).get_context(pb::GetContextRequest {})).await;
    let told = told.map_err(|_| kept_not("no answer"))?.map_err(|status| kept_not(status.message()))?.into_inner();
    let addresses = addresses(&located.context.addresses, &told.addresses, answered);
    let roots = roots(&located.context, &told.ca);
    let is_due = |context: &Context| is_due(context, now()) || is_by_another(context, &told.ca_issuer);
    if addresses.is_none() && roots.is_none() && !is_due(&located.context) {
        return Ok(());
    }
    // Whoever has the lock does the same at this moment.
    let folder = located.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(_lock) = Lock::try_take(folder) else { return Ok(()) };
    let mut there = Context::load(&located.path)?;
    if !is_same(&there, &located.context) {
        return Ok(());
    }
    let before = there.clone();
    if let Some(addresses) = addresses {
        there.addresses = addresses;
    }
    if let Some(roots) = roots {
        there.ca = roots;
    }
    if is_due(&there) {
        there.certificate = renewed(channel, &there).await?;
    }
    if there != before {
        there.save(&located.path).map_err(|error| kept_not(&error.to_string()))?;
    }
    Ok(())
}

/// The addresses to keep, if they are others than those that are there.
fn addresses(there: &[String], told: &[String], answered: Option<&str>) -> Option<Vec<String>> {
    let sane = |address: &&String| mainstay_agent::identity::is_address(address);
    let mut fresh: Vec<String> = told.iter().filter(sane).take(ADDRESSES_MAX).cloned().collect();
    if fresh.is_empty() {
        return None;
    }
    if let Some(answered) = answered.filter(|answered| !fresh.iter().any(|address| address == answered)) {
        fresh.insert(0, answered.to_owned());
    }
    let sorted = |addresses: &[String]| {
        let mut sorted = addresses.to_vec();
        sorted.sort_unstable();
        sorted
    };
    (sorted(&fresh) != sorted(there)).then_some(fresh)
}

/// The roots to keep, if they are others than those that are there. Older coordinators tell none.
fn roots(context: &Context, told: &str) -> Option<String> {
    let other = told != context.ca && pins_of(told, &context.cluster_id).is_ok();
    other.then(|| told.to_owned())
}

/// A rotation of the cluster's CA made another root issue.
fn is_by_another(context: &Context, issuer: &[u8]) -> bool {
    !issuer.is_empty() && issuer_of(&context.certificate).is_none_or(|by| by[..] != *issuer)
}

/// Over half of the certificate's life is gone.
pub(crate) fn is_due(context: &Context, now: Timestamp) -> bool {
    Certificate::from_pem(&context.certificate).is_ok_and(|certificate| {
        let life = certificate.not_after.since(certificate.not_before);
        now > certificate.not_before.plus(life / 2)
    })
}

/// Still the same person's key for the same cluster.
fn is_same(there: &Context, ours: &Context) -> bool {
    there.cluster_id == ours.cluster_id && there.user == ours.user && there.key == ours.key
}

/// A fresh certificate for the same key.
async fn renewed(channel: Channel, context: &Context) -> Result<String, Failure> {
    let key = KeyPair::from_pem(&context.key).map_err(|error| kept_not(&error.to_string()))?;
    let csr = signing_request(&key).map_err(|error| kept_not(&error.to_string()))?;
    let answer = timeout(ANSWER, ViewerClient::new(channel).renew(pb::UserRenewRequest { csr })).await;
    let answer = answer.map_err(|_| kept_not("no answer"))?.map_err(|status| kept_not(status.message()))?;
    let fresh = answer.into_inner().certificate;
    let read = |pem: &str| Certificate::from_pem(pem).map_err(|error| kept_not(&error.to_string()));
    let (old, new) = (read(&context.certificate)?, read(&fresh)?);
    if new.identity != old.identity || new.spki_sha256 != old.spki_sha256 {
        return Err(kept_not("the renewed certificate is for somebody else"));
    }
    Ok(fresh)
}

fn kept_not(why: &str) -> Failure {
    let why = mainstay_common::text::Shown::new(why).to_string();
    Failure::new(
        ExitCode::Failed,
        "the context file was not refreshed",
        why,
        "mainstay context ls shows when it expires",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_addresses_replace_others_and_the_one_that_answered_stays() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let case = |there: &str, told: &str, answered| addresses(&list(there), &list(told), answered);
        assert_eq!(case("a:1 b:1", "b:1 a:1", Some("a:1")), None, "only their order is different");
        assert_eq!(case("a:1", "a:1 b:1", Some("a:1")), Some(list("a:1 b:1")));
        assert_eq!(case("gone:1 a:1", "a:1", Some("a:1")), Some(list("a:1")));
        assert_eq!(case("tunnel:9", "a:1", Some("tunnel:9")), Some(list("tunnel:9 a:1")));
        assert_eq!(case("tunnel:9 a:1", "a:1", Some("tunnel:9")), None);
        assert_eq!(case("a:1", "", Some("a:1")), None, "a coordinator that tells nothing takes nothing away");
        assert_eq!(case("a:1", "\u{1b}:1", None), None);
    }
}
