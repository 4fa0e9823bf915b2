//! A backup on its way out: the state as of now, and what opens the CA's key.

use std::{pin::Pin, sync::Arc};

use mainstay_common::process::now;
use mainstay_core::{Command, State, backup, cluster};
use mainstay_proto::v1 as pb;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use super::{Shared, failure};
use crate::log::By;

/// A backup, piece by piece.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<pb::BackupPiece, Status>> + Send>>;

/// Pieces that wait for the caller.
const WAITING: usize = 4;

/// Takes it. That somebody did is an entry first: the audit names them, and what everybody was answered before is in it.
pub(super) async fn take(shared: &Shared, by: By) -> Result<Pieces, Status> {
    let opener = shared.ca.opener().map_err(|error| failure::no_backup(&error))?;
    let log = &shared.log;
    let proposed = log.propose(by, Command::Cluster(cluster::Command::Backup)).await;
    proposed.map_err(|error| failure::proposal(&error, &log.read()))?;
    let state = log.read();
    // When this is answered the log has told up to where it had applied for that state: nothing in it is of a later entry.
    log.read_now().await.map_err(failure::not_readable)?;
    let at = log.raft().applied();
    let about = state.cluster.about();
    let head = backup::Head {
        cluster: about.id.clone(),
        name: about.name.clone(),
        generation: about.generation,
        index: at.index,
        term: at.term,
        taken_at: now(),
        opener: backup::Secret(opener),
    };
    let told = pb::BackupHead {
        cluster_id: head.cluster.to_string(),
        cluster: head.name.clone(),
        generation: head.generation,
        index: head.index,
        term: head.term,
        taken_at_ms: head.taken_at.0,
        replica: log.replica().to_string(),
    };
    let (pieces, stream) = mpsc::channel(WAITING);
    let first = pb::BackupPiece { head: Some(told), ..pb::BackupPiece::default() };
    tokio::task::spawn_blocking(move || send(&head, &state, first, &pieces));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// As fast as the caller takes it; one that went away wants no more.
fn send(
    head: &backup::Head,
    state: &Arc<State>,
    first: pb::BackupPiece,
    pieces: &mpsc::Sender<Result<pb::BackupPiece, Status>>,
) {
    let content = backup::frames(head, state).map(|data| pb::BackupPiece { data, ..pb::BackupPiece::default() });
    let last = pb::BackupPiece { last: true, ..pb::BackupPiece::default() };
    for piece in std::iter::once(first).chain(content).chain([last]) {
        if pieces.blocking_send(Ok(piece)).is_err() {
            return;
        }
    }
}
