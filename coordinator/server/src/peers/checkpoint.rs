//! Fetching a checkpoint from a peer: over a connection of its own, from where it broke off, and to the disk as it comes.

use std::{sync::Arc, time::Duration};

use mainstay_core::{State, cluster};
use mainstay_proto::v1::{self as pb, replica_client::ReplicaClient};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{MAX_FRAMES_BYTES, Network, link};
use crate::raft::{Log, Position, store::NotReceived};

/// A connection that brings nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(5);
/// How often it goes on after it broke, without a byte in between.
const ATTEMPTS: u32 = 10;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Pieces that may wait for the disk: 2 MiB.
const IN_FLIGHT: usize = 8;

/// What the thread that writes is given.
enum Given {
    Piece(Vec<u8>),
    /// That was all.
    End,
}

/// Brings the body, and tells the log of it.
pub(super) async fn fetch(network: &Arc<Network>, from: u64, at: Position) {
    let Some(log) = network.log.get().cloned() else { return };
    let (pieces, todo) = mpsc::channel(IN_FLIGHT);
    // The disk may take its time.
    let writing = tokio::task::spawn_blocking(move || keep(&log, at, todo));
    let (mut bytes, mut failures) = (0, 0);
    while failures < ATTEMPTS {
        let before = bytes;
        match bring(network, from, at, &mut bytes, &pieces).await {
            Ok(()) => {
                // Whoever writes may have given up, and told why.
                pieces.send(Given::End).await.unwrap_or(());
                break;
            }
            Err(why) => {
                tracing::info!(index = at.index, got = bytes, why, "a checkpoint broke off");
                if pieces.is_closed() {
                    break;
                }
                failures = if bytes > before { 0 } else { failures + 1 };
                sleep(PAUSE).await;
            }
        }
    }
    // Without an end it is missed.
    drop(pieces);
    match writing.await {
        Ok(Ok(())) => tracing::info!(index = at.index, bytes, "a checkpoint came"),
        Ok(Err(error)) => {
            tracing::error!(%error, from = %cluster::numbered(from), "a checkpoint came that cannot be used");
        }
        Err(crash) => tracing::error!(%crash, "taking a checkpoint in crashed"),
    }
}

/// Writes what comes, and hands it to the log when that was all.
fn keep(log: &Log<State>, at: Position, mut todo: mpsc::Receiver<Given>) -> Result<(), NotReceived> {
    let mut receiving = log.receive_checkpoint(at)?;
    while let Some(given) = todo.blocking_recv() {
        match given {
            Given::Piece(bytes) => receiving.write(&bytes)?,
            Given::End => return receiving.finish(),
        }
    }
    tracing::info!(index = at.index, "a checkpoint did not come whole");
    Ok(())
}

async fn bring(
    network: &Network,
    from: u64,
    at: Position,
    bytes: &mut u64,
    pieces: &mpsc::Sender<Given>,
) -> Result<(), String> {
    let contact = network.contacts.borrow().0.get(&from).cloned().ok_or("nobody knows where it is")?;
    let channel = link::connect(network, from, &contact).await?;
    let mut client = ReplicaClient::new(channel).max_decoding_message_size(MAX_FRAMES_BYTES);
    let request = pb::FetchCheckpointRequest { index: at.index, term: at.term, offset: *bytes };
    let late = |_| "it went silent".to_owned();
    let answer = timeout(SILENCE, client.fetch_checkpoint(request)).await.map_err(late)?;
    let mut coming = answer.map_err(|status| status.message().replace('\n', "; "))?.into_inner();
    loop {
        let piece = timeout(SILENCE, coming.message()).await.map_err(late)?;
        match piece.map_err(|status| status.message().replace('\n', "; "))? {
            Some(piece) => {
                *bytes += piece.data.len() as u64;
                pieces.send(Given::Piece(piece.data)).await.map_err(|_| "nobody writes it")?;
            }
            None => return Ok(()),
        }
    }
}
