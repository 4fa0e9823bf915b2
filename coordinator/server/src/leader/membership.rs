//! The leader makes of those who decide those whom the state lists: one change at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mainstay_common::process::shutdown::CancellationToken;
use mainstay_core::cluster;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use crate::{
    log::Log,
    raft::{Change, ConfState},
};

/// How often it is looked at what was refused before.
const AGAIN: Duration = Duration::from_millis(500);

/// What the leader works with.
pub(crate) struct Membership {
    pub(crate) log: Log,
    /// Held by whoever changes members: the list and those who decide are two things, and change one after the other.
    pub(crate) alone: Arc<Mutex<()>>,
}

impl Membership {
    /// Reconciles whenever this replica leads, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut state, mut leader) = (self.log.watch(), self.log.raft().leader());
        let mut last = None;
        loop {
            let mut next = Instant::now() + Duration::from_secs(3_600);
            if self.log.leads() {
                let _alone = self.alone.lock().await;
                if self.is_unlisted() {
                    // It was removed when it led already: another one has to carry that out.
                    next = Instant::now() + AGAIN;
                    self.log.hand_over(None).await;
                } else if let Some(change) = self.due() {
                    next = Instant::now() + AGAIN;
                    match self.log.raft().change(change).await {
                        Ok(()) => {
                            tracing::info!(?change, "the members changed");
                            (last, next) = (None, Instant::now());
                        }
                        // The driver asks for patience, or for a majority: both come by themselves, or not.
                        Err(why) => {
                            let why = why.to_string();
                            if last.as_ref() != Some(&why) {
                                tracing::info!(?change, why, "the members stay as they are for now");
                            }
                            last = Some(why);
                        }
                    }
                }
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                changed = leader.changed() => if changed.is_err() { return },
                () = sleep_until(next) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The next change, if there is one.
    fn due(&self) -> Option<Change> {
        due(&self.listed(), &self.log.raft().members().borrow(), self.log.number())
    }

    fn is_unlisted(&self) -> bool {
        let listed = self.listed();
        !listed.is_empty() && !listed.contains(&self.log.number())
    }

    fn listed(&self) -> BTreeSet<u64> {
        let state = Arc::clone(&self.log.watch().borrow());
        state.cluster.replicas().filter_map(|(id, _)| cluster::number(id)).collect()
    }
}

fn due(listed: &BTreeSet<u64>, members: &ConfState, own: u64) -> Option<Change> {
    let all = members.all();
    let goes = all.difference(listed).find(|number| **number != own).map(|number| Change::Remove(*number));
    goes.or_else(|| listed.difference(&all).next().map(|number| Change::Add(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_listed_comes_in_and_who_is_not_goes() {
        let members = |voters: &[u64], learners: &[u64]| ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..ConfState::default()
        };
        let listed = |numbers: &[u64]| numbers.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(due(&listed(&[1, 2]), &members(&[1], &[]), 1), Some(Change::Add(2)));
        assert_eq!(due(&listed(&[1, 2]), &members(&[1], &[2]), 1), None, "the driver promotes by itself");
        assert_eq!(due(&listed(&[1, 3]), &members(&[1, 2], &[]), 1), Some(Change::Remove(2)), "one change at a time");
        assert_eq!(due(&listed(&[2]), &members(&[1, 2], &[]), 1), None, "a leader does not remove itself");
    }
}
