//! Network and FUSE mounts: how each answers on this node, and for rclone what waits behind it.
//!
//! Every mount has a [`life`]; children ask, and a mount that hangs keeps its one child and nothing else. How the
//! process or server [`behind`] it fares is looked at before every question, without touching the mount. What rclone's
//! remote control tells is read apart, and joins the row.

mod behind;
mod life;
mod lookout;
mod missed;
mod mountstats;
mod row;
mod search;
mod teller;
mod verdict;

use tokio::sync::watch;

use self::lookout::Lookout;
use super::{Eyes, listing::Listed, sleep_until_some};

/// Follows all mounts until the eyes stop.
pub async fn run(eyes: Eyes, mut listing: watch::Receiver<Listed>) {
    let stop = eyes.stop.clone();
    let mut lookout = Lookout::new(eyes, listing.clone());
    loop {
        let turn_at = lookout.turn_at();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = listing.changed() => {
                if changed.is_err() {
                    return;
                }
                let listed = listing.borrow_and_update().clone();
                lookout.list(&listed);
            }
            Some(done) = lookout.work.join_next() => if let Ok(done) = done {
                lookout.take(done);
            },
            () = lookout.rclone_news.notified() => lookout.tell_soon(),
            () = sleep_until_some(turn_at) => lookout.turn(),
            () = sleep_until_some(lookout.tell_at) => lookout.tell(),
        }
    }
}
