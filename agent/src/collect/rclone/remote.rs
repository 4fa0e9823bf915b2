//! The remote itself: rclone is asked to ask it for its quota, which is a request over the network.

use std::time::Duration;

use mainstay_common::state::RcState;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{access::Access, answers::About, follower::Teller};

/// Time between two questions.
const EVERY: Duration = Duration::from_secs(300);
/// The same, where the last one failed: that it works again is worth a request.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// The remote may take its time.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks every five minutes, as long as the remote control answers; one remote at a time among all mounts.
pub(super) async fn follow(access: &Access, teller: &Teller) {
    let mut client = teller.client(access);
    let mut known = teller.watch();
    loop {
        let fs = match known.wait_for(|known| known.rc_state == Some(RcState::Ok)).await {
            Ok(seen) => seen.fs.clone().unwrap_or_default(),
            Err(_) => return,
        };
        let Ok(turn) = teller.surroundings.shared.0.acquire().await else { return };
        let about = client.call::<About>("operations/about", &json!({ "fs": fs }), LIMIT).await;
        drop(turn);
        let pause =
            if about.as_ref().is_err_and(|error| !error.is_for_want_of_quota()) { AFTER_FAILURE } else { EVERY };
        teller.tell(|known| known.learn_of_remote(about, Instant::now()));
        // A remote control that was away is asked again as soon as it is back.
        let gone = known.wait_for(|known| known.rc_state != Some(RcState::Ok));
        if timeout(pause, gone).await.is_ok_and(|watched| watched.is_err()) {
            return;
        }
    }
}
