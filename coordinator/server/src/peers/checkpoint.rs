//! Fetching a checkpoint from a peer: over a connection of its own, and from where it broke off.

use std::{sync::Arc, time::Duration};

use mainstay_core::cluster;
use mainstay_proto::v1::{self as pb, replica_client::ReplicaClient};
use tokio::time::{sleep, timeout};

use super::{MAX_FRAMES_BYTES, Network, link};
use crate::raft::Position;

/// A connection that brings nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// How often it goes on after it broke, without a byte in between.
const ATTEMPTS: u32 = 10;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Brings the body, and tells the log of it.
pub(super) async fn fetch(network: &Arc<Network>, from: u64, at: Position) {
    let Some(log) = network.log.get() else { return };
    let mut bytes = Vec::new();
    let mut failures = 0;
    while failures < ATTEMPTS {
        let before = bytes.len();
        match bring(network, from, at, &mut bytes).await {
            Ok(()) => {
                tracing::info!(index = at.index, bytes = bytes.len(), "a checkpoint came");
                let log = log.clone();
                // It is long, and its checksums are looked at.
                let parsed = tokio::task::spawn_blocking(move || log.checkpoint_arrived(at, &bytes)).await;
                if let Ok(Err(error)) = parsed {
                    tracing::error!(%error, from = %cluster::numbered(from), "a checkpoint came that cannot be used");
                }
                return;
            }
            Err(why) => {
                tracing::info!(index = at.index, got = bytes.len(), why, "a checkpoint broke off");
                failures = if bytes.len() > before { 0 } else { failures + 1 };
                sleep(PAUSE).await;
            }
        }
    }
    log.checkpoint_missed(at);
}

async fn bring(network: &Network, from: u64, at: Position, bytes: &mut Vec<u8>) -> Result<(), String> {
    let contact = network.contacts.borrow().0.get(&from).cloned().ok_or("nobody knows where it is")?;
    let channel = link::connect(network, from, &contact).await?;
    let mut client = ReplicaClient::new(channel).max_decoding_message_size(MAX_FRAMES_BYTES);
    let request = pb::FetchCheckpointRequest { index: at.index, term: at.term, offset: bytes.len() as u64 };
    let late = |_| "it went silent".to_owned();
    let answer = timeout(SILENCE, client.fetch_checkpoint(request)).await.map_err(late)?;
    let mut pieces = answer.map_err(|status| status.message().replace('\n', "; "))?.into_inner();
    loop {
        let piece = timeout(SILENCE, pieces.message()).await.map_err(late)?;
        match piece.map_err(|status| status.message().replace('\n', "; "))? {
            Some(piece) => bytes.extend_from_slice(&piece.data),
            None => return Ok(()),
        }
    }
}
