//! The list of mounts, kept current for whoever looks at disks or mounts: read once for all, when the kernel says that
//! it changed.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Eyes, Once,
    mountinfo::{self, Mounts, Watch},
    within,
};
use crate::board::Snapshot;

/// Where the container engine keeps its things until it says otherwise.
pub const ENGINE_ROOT: &[u8] = b"/var/lib/docker";

/// The list takes half a millisecond; it waits while another process mounts.
const LIMIT: Duration = Duration::from_secs(5);
/// Containers that start change it often; more than this is not worth the time.
const REST: Duration = Duration::from_millis(250);
/// It is read again although nothing seems to have changed.
const AGAIN: Duration = Duration::from_secs(60);
/// The same, where the kernel cannot be asked to say so.
const UNFOLLOWED: Duration = Duration::from_secs(5);

/// What is known of the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// What is mounted; `None` until it was read once.
    pub mounts: Option<Arc<Mounts>>,
    /// Where the container engine keeps its things.
    pub engine_root: Vec<u8>,
    /// Why the list may be older than it should be.
    pub error: Option<String>,
}

/// Follows the list as long as the eyes are open.
pub fn follow(eyes: &Eyes, tasks: &mut JoinSet<()>) -> watch::Receiver<Listed> {
    let (told, listing) = watch::channel(Listed::default());
    tasks.spawn(keep(eyes.clone(), told));
    listing
}

async fn keep(eyes: Eyes, told: watch::Sender<Listed>) {
    let once = Once::default();
    let mut board = eyes.board.watch();
    let mut kernel = None;
    loop {
        let root = engine_root(&board.borrow_and_update()).to_vec();
        if kernel.is_none() {
            kernel = Watch::open(&eyes.config.proc_root).ok();
        }
        let began = Instant::now();
        let (proc_root, sort_root) = (eyes.config.proc_root.clone(), root.clone());
        let read = within(&once, LIMIT, move || mountinfo::read(&proc_root).map(|text| Mounts::of(&text, &sort_root)));
        let read = read.await.map_err(|late| late.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
        told.send_if_modified(|listed| renew(listed, read, &root));
        tokio::select! {
            () = eyes.stop.cancelled() => return,
            () = sleep_until(began + REST) => {}
        }
        let limit = if kernel.is_some() { AGAIN } else { UNFOLLOWED };
        let mut lost = false;
        tokio::select! {
            () = eyes.stop.cancelled() => return,
            change = changed(kernel.as_ref()) => lost = change.is_err(),
            moved = board.wait_for(|seen| engine_root(seen) != root) => if moved.is_err() { return },
            () = sleep(limit) => {}
        }
        if lost {
            kernel = None;
        }
    }
}

/// True where the list is another one than before.
fn renew(listed: &mut Listed, read: Result<Mounts, String>, engine_root: &[u8]) -> bool {
    let before = listed.clone();
    engine_root.clone_into(&mut listed.engine_root);
    match read {
        Ok(mounts) => {
            listed.error = None;
            if listed.mounts.as_deref() != Some(&mounts) {
                listed.mounts = Some(Arc::new(mounts));
            }
        }
        Err(error) => listed.error = Some(format!("cannot read the list of mounts: {error}")),
    }
    before != *listed
}

/// Waits for a change; for ever where the kernel cannot be asked.
async fn changed(kernel: Option<&Watch>) -> std::io::Result<()> {
    match kernel {
        Some(kernel) => kernel.changed().await,
        None => std::future::pending().await,
    }
}

fn engine_root(seen: &Snapshot) -> &[u8] {
    let told = seen.engine.as_ref().map(|engine| engine.root.as_bytes());
    told.filter(|root| !root.is_empty()).unwrap_or(ENGINE_ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_cannot_be_read_is_kept_with_a_complaint() {
        let mut listed = Listed::default();
        let list = Mounts::of(b"27 1 254:0 / / rw - ext4 /dev/vda rw\n", ENGINE_ROOT);
        assert!(renew(&mut listed, Ok(list.clone()), ENGINE_ROOT));
        assert!(!renew(&mut listed, Ok(list.clone()), ENGINE_ROOT), "nothing changed, nobody is woken");
        assert!(renew(&mut listed, Err("no answer".into()), ENGINE_ROOT));
        assert_eq!(listed.mounts.as_deref(), Some(&list));
        assert!(listed.error.as_ref().is_some_and(|error| error.contains("no answer")));
        assert!(renew(&mut listed, Ok(list), ENGINE_ROOT));
        assert_eq!(listed.error, None);
    }
}
