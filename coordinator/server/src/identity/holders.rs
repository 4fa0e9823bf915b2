//! Who holds a certificate by the root that issues: gathered for a moment and brought into the log together. Every entry
//! wakes every session, and a fleet takes a step of a rotation over within seconds.

use std::{collections::BTreeSet, time::Duration};

use mainstay_common::process::shutdown::CancellationToken;
use mainstay_core::{
    Actor, Command,
    ca::{self, Holder, Phase},
};
use tokio::{sync::mpsc, time::sleep};

use crate::log::Log;

/// How long holders are gathered.
const GATHER: Duration = Duration::from_millis(250);
/// How many one entry names.
const TOGETHER: usize = 1_000;

/// Where a holder is noted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Holders(mpsc::UnboundedSender<(Holder, u64)>);

impl Holders {
    /// Where holders are noted, and the task that brings them into the log.
    pub(crate) fn start(log: Log, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (note, noted) = mpsc::unbounded_channel();
        (Self(note), gather(log, noted, stop))
    }

    /// This holder has taken that version over.
    pub(crate) fn note(&self, holder: Holder, version: u64) {
        // Nobody gathers any more only when the replica is ending.
        drop(self.0.send((holder, version)));
    }
}

async fn gather(log: Log, mut noted: mpsc::UnboundedReceiver<(Holder, u64)>, stop: CancellationToken) {
    let mut waiting: BTreeSet<(Holder, u64)> = BTreeSet::new();
    loop {
        tokio::select! {
            next = noted.recv() => match next {
                Some(next) => drop(waiting.insert(next)),
                None => return,
            },
            () = sleep(GATHER), if !waiting.is_empty() => {
                while let Ok(next) = noted.try_recv() {
                    waiting.insert(next);
                }
                bring(&log, &mut waiting).await;
            }
            () = stop.cancelled() => return,
        }
    }
}

/// Brings in what the state does not have yet; what the log does not take now stays for the next time.
async fn bring(log: &Log, waiting: &mut BTreeSet<(Holder, u64)>) {
    let state = log.read();
    let version = state.ca.version();
    let settled = state.ca.phase() == Phase::Settled;
    waiting.retain(|(holder, of)| !settled && *of == version && !state.ca.has_acknowledged(holder));
    let holders: Vec<Holder> = waiting.iter().take(TOGETHER).map(|(holder, _)| holder.clone()).collect();
    if holders.is_empty() {
        return;
    }
    let command = Command::Ca(ca::Command::Acknowledge(holders, version));
    if let Err(error) = log.propose(log.own(Actor::Replica(log.replica().clone())), command).await {
        tracing::debug!(%error, "holders are not noted yet");
    }
}
