//! `Replica`: what other replicas ask. Who may was decided at the gate.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use mainstay_common::{
    InvalidName, ReplicaId, UserName,
    identity::HumanRole,
    process::{data_dir::DataDir, now},
};
use mainstay_core::{Actor, Command, KeyFingerprint, Origin, State, cluster, user};
use mainstay_proto::v1 as pb;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{Network, Pins, greeting, pins::PINNED};
use crate::{
    VERSION,
    api::{caller, failure},
    gate::{self, Caller},
    identity::Opener,
    log::By,
    raft::{DiskFile, Log, StateHash, Unadmitted},
};

/// How long a peer may take until its greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a checkpoint that go together.
const PIECE: usize = 256 << 10;
/// How often the log hears that a peer takes more of its checkpoint.
const SENDING_EVERY: Duration = Duration::from_secs(1);

/// `Replica`.
pub(crate) struct ReplicaService {
    pub(crate) network: Arc<Network>,
    pub(crate) log: crate::log::Log,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) pins: Arc<Pins>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::replica_server::Replica for ReplicaService {
    type TalkStream = Answers<pb::Frames>;
    type FetchCheckpointStream = Answers<pb::CheckpointPiece>;

    async fn talk(&self, request: Request<Streaming<pb::Frames>>) -> Result<Response<Answers<pb::Frames>>, Status> {
        let (id, key) = replica(&request)?;
        let mut frames = request.into_inner();
        let first = timeout(GREETING_LIMIT, frames.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no greeting came"))??;
        let greeted = greeting::check(&self.network.own, first, &id).map_err(|why| failure::unwelcome(&id, &why))?;
        if self.log.read().cluster.replica(&id).is_none() {
            self.network.met(greeted.from, &greeted.address);
        }
        let (answers, stream) = mpsc::channel(2);
        let log = self.log.raft().clone();
        let visit = log.admit(greeted.from, greeting::shown(&greeted)).await.map_err(|why| {
            if !matches!(why, Unadmitted::Earlier(_) | Unadmitted::Ending) {
                tracing::error!(replica = %id, %why, "a replica is refused: it has to leave, and to join anew");
            }
            failure::unadmitted(&id, &why)
        })?;
        let stands = log.shown().await.ok_or_else(|| failure::unadmitted(&id, &Unadmitted::Ending))?;
        self.network.versions().note(greeted.from, greeted.entry_version);
        // Room for it was made above.
        answers.try_send(Ok(greeting::greeting(&self.network.own, greeted.from, stands))).unwrap_or(());
        tokio::spawn(async move {
            let _visit = visit;
            if let Err(status) = listen(&log, greeted.from, &id, key, frames).await {
                // The peer may be gone already.
                drop(answers.send(Err(status)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch_checkpoint(
        &self,
        request: Request<pb::FetchCheckpointRequest>,
    ) -> Result<Response<Answers<pb::CheckpointPiece>>, Status> {
        let (id, _) = replica(&request)?;
        let to = cluster::number(&id).ok_or_else(|| Status::internal("a replica has a number"))?;
        let asked = request.into_inner();
        let (log, pins) = (self.log.raft().clone(), Arc::clone(&self.pins));
        let open = move || pins.file(asked.index, Instant::now(), || log.open_checkpoint(asked.index));
        let opened = tokio::task::spawn_blocking(open).await;
        let file = match opened.map_err(|crash| Status::internal(crash.to_string()))? {
            Ok(file) => file,
            Err(error) => {
                self.log.raft().checkpoint_not_sent(to);
                return Err(failure::checkpoint_gone(asked.index, &error));
            }
        };
        let (pieces, stream) = mpsc::channel(4);
        let (log, pins) = (self.log.raft().clone(), Arc::downgrade(&self.pins));
        tokio::task::spawn_blocking(move || send(&log, to, &*file, asked.offset, &pieces));
        tokio::spawn(async move {
            sleep(PINNED).await;
            // It ends with the replica.
            if let Some(pins) = pins.upgrade() {
                pins.forget(Instant::now());
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn fetch_opener(
        &self,
        request: Request<pb::FetchOpenerRequest>,
    ) -> Result<Response<pb::FetchOpenerResponse>, Status> {
        let (id, key) = replica(&request)?;
        // Only who is a replica already, as far as this one knows: others ask again in a moment.
        if self.log.read().cluster.standing(&id, key) != cluster::Standing::Member {
            return Err(failure::replica_unknown_here(&id));
        }
        let opener =
            Opener::read(&self.dir).map_err(|why| failure::unsigned(&crate::identity::Unsigned::Closed(why)))?;
        tracing::info!(replica = %id, "a replica that joined was given the CA's opener");
        Ok(Response::new(pb::FetchOpenerResponse { opener: opener.bits().to_vec() }))
    }

    async fn announce(&self, request: Request<pb::AnnounceRequest>) -> Result<Response<pb::AnnounceResponse>, Status> {
        let (id, _) = replica(&request)?;
        let by = By::unnamed(Actor::Replica(id.clone()), crate::api::from(&request));
        let asked = request.into_inner();
        let visitor = cluster::number(&id).and_then(|number| self.log.raft().visitor(number));
        if asked.boot != 0 && visitor != Some(asked.boot) {
            // A copy of it must not lead the others to where it is.
            return Err(failure::replica_not_connected(&id));
        }
        let version = self.log.may_tell_versions().then_some(asked.entry_version.max(1));
        // Its key stays the one it joined with.
        let command = cluster::Command::Advertise(id.clone(), asked.address, Some(asked.peer_address), None, version);
        let proposed = self.log.propose(by, Command::Cluster(command)).await;
        proposed.map_err(|error| failure::proposal(&error, &self.log.read()))?;
        tracing::info!(replica = %id, "a replica says where it is, and what it knows");
        Ok(Response::new(pb::AnnounceResponse {}))
    }

    async fn reissue(&self, request: Request<pb::ReissueRequest>) -> Result<Response<pb::ReissueResponse>, Status> {
        let (id, key) = replica(&request)?;
        // Who joined a moment ago and is not known here yet has no administrator to serve.
        if self.log.read().cluster.standing(&id, key) != cluster::Standing::Member {
            return Err(failure::replica_unknown_here(&id));
        }
        let key =
            request.into_inner().key.try_into().map_err(|_| Status::invalid_argument("a SHA-256 has 32 bytes"))?;
        let command = reissue(KeyFingerprint(key)).map_err(|error| failure::invalid_name(&error))?;
        let by = By::unnamed(Actor::Root, Origin::Replica(id.clone()));
        self.log.propose(by, command).await.map_err(|error| failure::proposal(&error, &self.log.read()))?;
        tracing::info!(replica = %id, "administrator's name given to a new key, as root on a replica's machine wished");
        Ok(Response::new(pb::ReissueResponse {}))
    }
}

/// Root's wish for the administrator's name; asking twice with the same key is asking once.
pub(crate) fn reissue(key: KeyFingerprint) -> Result<Command, InvalidName> {
    let name: UserName = "admin".parse()?;
    let (role, added_by) = (HumanRole::Admin, name.clone());
    let user = user::User { role, key, added_at: now(), added_by, revoked_at: None };
    Ok(Command::User(user::Command::Reissue(name, user)))
}

/// Hands on what a peer says, until it ends or counts no more.
async fn listen(
    log: &Log<State>,
    from: u64,
    id: &ReplicaId,
    key: KeyFingerprint,
    mut frames: Streaming<pb::Frames>,
) -> Result<(), Status> {
    let mut state = log.watch();
    loop {
        tokio::select! {
            said = frames.message() => match said {
                Ok(Some(said)) => {
                    said.frames.into_iter().for_each(|frame| log.deliver(from, frame));
                    // Another version may write the same state in other bytes.
                    if let Some(hash) = said.state_hash.filter(|hash| hash.version == VERSION)
                        && let Ok(sha256) = hash.sha256.try_into()
                    {
                        log.state_hash(from, StateHash { index: hash.index, sha256 });
                    }
                }
                // A connection that was cut is an end like any other.
                Ok(None) | Err(_) => return Ok(()),
            },
            changed = state.changed() => {
                changed.map_err(|_| Status::unavailable("the replica is ending"))?;
                let state = Arc::clone(&state.borrow_and_update());
                match state.cluster.standing(id, key) {
                    cluster::Standing::Removed if gate::decides(&log.members().borrow(), id, key, &state) => {}
                    cluster::Standing::Removed => return Err(failure::replica_removed(id, &state)),
                    cluster::Standing::OtherKey => return Err(failure::other_replica_key(id)),
                    cluster::Standing::Member | cluster::Standing::Later | cluster::Standing::Unknown => {}
                }
            }
        }
    }
}

fn replica<T>(request: &Request<T>) -> Result<(ReplicaId, KeyFingerprint), Status> {
    match caller(request)? {
        Caller::Replica(id, key) => Ok((id, key)),
        Caller::Anonymous | Caller::Agent(..) | Caller::User(..) => {
            Err(Status::internal("the gate let somebody else in"))
        }
    }
}

/// Reads a checkpoint's file as fast as the peer takes it.
fn send(
    log: &Log<State>,
    to: u64,
    file: &dyn DiskFile,
    mut offset: u64,
    pieces: &mpsc::Sender<Result<pb::CheckpointPiece, Status>>,
) {
    let mut said: Option<Instant> = None;
    loop {
        let mut data = vec![0; PIECE];
        match file.read_at(offset, &mut data) {
            Ok(0) => return,
            Ok(length) => {
                data.truncate(length);
                offset += length as u64;
                if pieces.blocking_send(Ok(pb::CheckpointPiece { data })).is_err() {
                    // It went on to something else, or comes again with what it has.
                    return;
                }
            }
            Err(error) => {
                log.checkpoint_not_sent(to);
                // The peer may be gone already.
                drop(pieces.blocking_send(Err(Status::data_loss(error.to_string()))));
                return;
            }
        }
        if said.is_none_or(|at| at.elapsed() >= SENDING_EVERY) {
            said = Some(Instant::now());
            log.checkpoint_sending(to);
        }
    }
}
