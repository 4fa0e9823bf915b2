//! Decisions: proposed here, kept before they are answered, read from here.

mod follow;
mod machine;

pub(crate) use follow::line;

use std::{path::Path, sync::Arc, time::Duration};

use mainstay_common::{
    ExitCode, Failure, ReplicaId, Timestamp,
    process::{self, data_dir::DataDir},
};
use mainstay_core::{Actor, Command, Consequence, Entry, Origin, Rejected, State, audit::Record, cluster};
use tokio::{
    sync::{RwLock, watch},
    time::timeout,
};

use crate::{
    audit::{Line, Scribe, Trail, Written},
    failpoint,
    identity::OPENER_FILE,
    raft::{
        self, End, Observer, Peers, Position, Running, Settings,
        store::{CreateError, Identity, disk::Folder},
    },
    versions::Versions,
};

/// The log's folder within the data directory.
pub(crate) const FOLDER: &str = "log";
/// The file that says that there is a log, whole.
const IDENTITY: &str = "identity";

/// Why a proposal did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// The state's own rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] raft::ProposeError),
    /// A member would end where it meets it. Nothing changed.
    #[error("{member} knows entries of version {knows}, and {kind} is of version {needs}; nothing changed")]
    Behind {
        /// Who.
        member: ReplicaId,
        /// What it knows.
        knows: u32,
        /// What it is.
        kind: &'static str,
        /// What one has to know for it.
        needs: u32,
    },
}

/// Who wants something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) actor: Actor,
    pub(crate) from: Origin,
    /// What it is asked for under, where whoever asks may ask again.
    pub(crate) asked: Option<Asked>,
}

/// A request under a name of the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) name: String,
    /// Of all that is asked for: the same name for something else is refused.
    pub(crate) digest: u64,
}

impl By {
    /// Without a name: doing it twice is doing it once anyway, or nobody asks again.
    pub(crate) fn unnamed(actor: Actor, from: Origin) -> Self {
        Self { actor, from, asked: None }
    }
}

/// How long a change of leadership that was asked for may take.
const HAND_OVER: Duration = Duration::from_secs(2);

/// The log's handle: cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    raft: raft::Log<State>,
    replica: ReplicaId,
    /// Held by whoever proposes; all of it by whoever gives leadership away: what would be cut off in the middle waits,
    /// and is then told who leads.
    writes: Arc<RwLock<()>>,
    audited: Written,
    versions: Versions,
}

impl Log {
    /// Opens the log of this data directory, and takes part in its group; a replica that is its whole group leads.
    ///
    /// # Errors
    /// Three lines on what is wrong with it; nothing was changed.
    pub(crate) fn start(
        dir: &DataDir,
        peers: Arc<dyn Peers>,
        versions: Versions,
    ) -> Result<(Self, Running<State>), Failure> {
        refuse_missing(dir.path())?;
        let folder = dir.file(FOLDER);
        let unusable = |error: std::io::Error| process::data_dir::unusable(&folder, &error);
        let disk = Folder::at(&folder).map_err(unusable)?;
        let trail = Trail::open(dir.path()).map_err(unusable)?;
        let replica = cluster::numbered(identity(dir)?.replica);
        let (scribe, audited) = Scribe::start(trail).map_err(unusable)?;
        let observers: Vec<Box<dyn Observer<State>>> = vec![Box::new(scribe)];
        let mut settings = Settings::default();
        if let Some(entries) = failpoint::checkpoint_entries() {
            (settings.checkpoint_entries, settings.store.entries_behind) = (entries, entries / 4);
        }
        let started = raft::start_member(disk, settings, observers, peers, State::blank());
        let (raft, running) = started.map_err(|error| error.failure(&folder.display().to_string()))?;
        Ok((Self { raft, replica, writes: Arc::default(), audited, versions }, running))
    }

    /// Proposes a command; the answer comes when it is durable and applied.
    ///
    /// # Errors
    /// [`ProposeError`]: refused, or not taken.
    pub(crate) async fn propose(&self, by: By, command: Command) -> Result<Consequence, ProposeError> {
        let By { actor, from, asked } = by;
        let (request, asked) = asked.map(|asked| (asked.name, asked.digest)).unzip();
        let through = Some(self.replica.clone());
        let mut entry = Entry { at: process::now(), actor, from, request, command, asked, through };
        self.fit(&mut entry)?;
        let _writes = self.writes.read().await;
        Ok(self.raft.propose(entry).await??)
    }

    /// Makes of an entry what every member knows. While one is older nothing has a name: it would tell another request
    /// by other means, and states would part.
    fn fit(&self, entry: &mut Entry) -> Result<(), ProposeError> {
        let state = self.read();
        let behind = |entry: &Entry| self.versions.behind(entry.version(), self.number(), &state);
        if entry.asked.is_some() && behind(entry).is_some() {
            (entry.request, entry.asked) = (None, None);
        }
        let (kind, needs) = (entry.command.kind(), entry.version());
        behind(entry).map_or(Ok(()), |(member, knows)| Err(ProposeError::Behind { member, knows, kind, needs }))
    }

    /// Whether every member knows entries that tell versions.
    pub(crate) fn may_tell_versions(&self) -> bool {
        self.versions.behind(2, self.number(), &self.read()).is_none()
    }

    /// What others say they know.
    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Raft's own handle.
    pub(crate) fn raft(&self) -> &raft::Log<State> {
        &self.raft
    }

    /// Raft's number of this replica.
    pub(crate) fn number(&self) -> u64 {
        cluster::number(&self.replica).unwrap_or(0)
    }

    /// Whether this replica leads, and has applied all that earlier leaders committed.
    pub(crate) fn leads(&self) -> bool {
        self.raft.leader().borrow().is_some()
    }

    /// Who leads as far as this replica knows.
    pub(crate) fn known_leader(&self) -> Option<u64> {
        *self.raft.known_leader().borrow()
    }

    /// The state with everything in it that anybody was answered before.
    ///
    /// # Errors
    /// No leader answers.
    pub(crate) async fn read_now(&self) -> Result<Arc<State>, raft::ReadError> {
        self.raft.read_now().await
    }

    /// Another replica leads from now on, that one or whichever is best prepared; its number. Writes wait meanwhile.
    ///
    /// # Errors
    /// It did not come about in time.
    pub(crate) async fn hand_over(&self, to: Option<u64>) -> Option<u64> {
        let own = self.number();
        let all = timeout(HAND_OVER, self.writes.write()).await;
        self.raft.transfer(to);
        let mut leader = self.raft.known_leader();
        let other =
            |leader: &Option<u64>| leader.is_some_and(|leader| leader != own && to.is_none_or(|to| to == leader));
        let led = timeout(HAND_OVER, leader.wait_for(other)).await;
        drop(all);
        led.ok()?.ok().and_then(|leader| *leader)
    }

    /// By this replica's own doing.
    pub(crate) fn own(&self, actor: Actor) -> By {
        By::unnamed(actor, Origin::Replica(self.replica.clone()))
    }

    /// This replica.
    pub(crate) fn replica(&self) -> &ReplicaId {
        &self.replica
    }

    /// Waits until the audit trail has what is applied here.
    pub(crate) async fn audited(&self) {
        self.audited.wait().await;
    }

    /// The state as of now.
    pub(crate) fn read(&self) -> Arc<State> {
        self.raft.read()
    }

    /// Follows the state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.raft.watch()
    }

    /// The term in which this replica leads, from its first applied entry on.
    pub(crate) fn leader(&self) -> watch::Receiver<Option<u64>> {
        self.raft.leader()
    }

    /// Waits until the log ended; what the process has to end with, where nobody wished it.
    pub(crate) async fn failed(&self) -> Failure {
        let why = match self.raft.ended().await {
            End::Asked => return std::future::pending().await,
            End::Broken(why) => why,
            End::Newer(why) => {
                let what = "this replica is older than what the cluster decided, so it ends";
                let try_next = "start mainstay-coordinator of the version that the other replicas run; nothing is lost";
                return Failure::new(ExitCode::Failed, what, why, try_next);
            }
            End::Barred(why) => {
                let id = &self.replica;
                return Failure::new(
                    ExitCode::Denied,
                    format!("replica {id} may not take part any more"),
                    why,
                    format!(
                        "keep a copy of its --data-dir if you want to look into it; then mainstay cluster remove {id}, and bring the machine back: mainstay cluster add, and mainstay-coordinator join with an empty --data-dir"
                    ),
                );
            }
            End::Panicked => "a mistake in the program: the log above says which".into(),
        };
        let try_next = "check the disk (dmesg, smartctl), then start again; what was answered is on disk";
        Failure::new(ExitCode::Failed, "the log failed, so this replica ends", why, try_next)
    }
}

/// Makes the log of a new cluster.
///
/// # Errors
/// What the disk says.
pub(crate) fn found(dir: &DataDir, state: &State) -> Result<(), Failure> {
    let folder = dir.file(FOLDER);
    let about = state.cluster.about();
    let first = state.cluster.replicas().find_map(|(id, _)| cluster::number(id)).unwrap_or(1);
    let identity = Identity { cluster: about.id.clone(), generation: about.generation, replica: first };
    let disk = Folder::at(&folder).map_err(|error| process::data_dir::unusable(&folder, &error))?;
    raft::found(disk, identity, &Settings::default(), state).map_err(|error| {
        let code = if matches!(error, CreateError::Exists(_)) { ExitCode::Conflict } else { ExitCode::Failed };
        let try_next = "empty the data directory, make room, and run init again";
        Failure::new(code, format!("no log was made in {}", folder.display()), error.to_string(), try_next)
    })
}

/// Makes the log of a replica that joined: empty until the leader sends what it has.
///
/// # Errors
/// What the disk says.
pub(crate) fn join(dir: &DataDir, identity: Identity) -> Result<(), Failure> {
    let folder = dir.file(FOLDER);
    let disk = Folder::at(&folder).map_err(|error| process::data_dir::unusable(&folder, &error))?;
    raft::join(disk, identity, &Settings::default()).map_err(|error| {
        let try_next = "make room, and run join again with the same token";
        Failure::new(ExitCode::Failed, format!("no log was made in {}", folder.display()), error.to_string(), try_next)
    })
}

/// Makes the log of a cluster that goes on as `replica` alone: its first checkpoint stands at `at`.
///
/// # Errors
/// What the disk says.
pub(crate) fn found_at(dir: &DataDir, state: &State, replica: &ReplicaId, at: Position) -> Result<(), Failure> {
    let folder = dir.file(FOLDER);
    let about = state.cluster.about();
    let replica = cluster::number(replica).unwrap_or(0);
    let identity = Identity { cluster: about.id.clone(), generation: about.generation, replica };
    let disk = Folder::at(&folder).map_err(|error| process::data_dir::unusable(&folder, &error))?;
    raft::found_at(disk, identity, &Settings::default(), state, at).map_err(|error| {
        let try_next = "make room, and run restore again; nothing was changed";
        Failure::new(ExitCode::Failed, format!("no log was made in {}", folder.display()), error.to_string(), try_next)
    })
}

/// All that a log holds, whether or not anybody knows that it is committed.
pub(crate) struct Whole {
    pub(crate) state: State,
    pub(crate) identity: Identity,
    /// The last entry.
    pub(crate) last: Position,
    /// When the last command that is still in the log was proposed.
    pub(crate) until: Option<Timestamp>,
    /// The audit's lines from the one that was wanted on.
    pub(crate) lines: Vec<Line>,
}

/// Reads all that the log of this data directory holds, and changes nothing.
///
/// # Errors
/// Three lines on what is wrong with it.
pub(crate) fn read_whole(dir: &DataDir, wanted: u64) -> Result<Whole, Failure> {
    refuse_missing(dir.path())?;
    let folder = dir.file(FOLDER);
    let disk = Folder::at(&folder).map_err(|error| process::data_dir::unusable(&folder, &error))?;
    let (mut until, mut lines) = (None, Vec::new());
    let seen = |at: Position, entry: &Entry, outcome: &Result<Consequence, Rejected>| {
        until = until.max(Some(entry.at));
        if at.index >= wanted {
            lines.push(line(at.term, Record::of(at.index, entry, outcome)));
        }
    };
    let whole = raft::read_whole(&disk, State::blank(), seen);
    let raft::Whole { state, identity, last } = whole.map_err(|error| error.failure(&folder.display().to_string()))?;
    Ok(Whole { state, identity, last, until, lines })
}

/// Whose log this data directory holds.
///
/// # Errors
/// Three lines on what is wrong with it.
pub(crate) fn identity(dir: &DataDir) -> Result<Identity, Failure> {
    let folder = dir.file(FOLDER);
    let disk = Folder::at(&folder).map_err(|error| process::data_dir::unusable(&folder, &error))?;
    raft::store::identity_of(&disk).map_err(|error| error.failure(&folder.display().to_string()))
}

/// Whether a data directory holds a cluster that was made whole.
#[must_use]
pub fn holds_cluster(data_dir: &Path) -> bool {
    data_dir.join(FOLDER).join(IDENTITY).exists() || crate::restore::is_interrupted(data_dir)
}

/// Tells an empty directory from a half-made one and from others' directories.
///
/// # Errors
/// What it is, and what to do.
pub(crate) fn refuse_missing(dir: &Path) -> Result<(), Failure> {
    if crate::restore::is_interrupted(dir) {
        return Err(crate::restore::interrupted(dir));
    }
    if holds_cluster(dir) {
        return Ok(());
    }
    let (what, why, try_next) = if dir.join("agent.key").exists() {
        (
            format!("{} belongs to an agent", dir.display()),
            "it holds an agent.key".into(),
            "give the coordinator a --data-dir of its own".into(),
        )
    } else if dir.join(OPENER_FILE).exists() {
        (
            format!("{} is half-made", dir.display()),
            format!(
                "it has a {OPENER_FILE}, but no {FOLDER}/{IDENTITY}: init or join was interrupted, or the log was lost"
            ),
            "after an interrupted join: run it again; after an interrupted init: empty the directory and run init \
             again; else put the log back from a copy"
                .into(),
        )
    } else {
        (
            format!("{} holds no cluster", dir.display()),
            format!("there is no {FOLDER}/{IDENTITY}"),
            format!(
                "mainstay-coordinator init --data-dir {} --cluster NAME --advertise HOST:PORT; or join, to add a replica",
                dir.display()
            ),
        )
    };
    Err(Failure::new(ExitCode::Conflict, what, why, try_next))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn half_made_and_foreign_directories_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let what = || refuse_missing(folder.path()).unwrap_err().what;
        assert!(what().ends_with("holds no cluster"));
        fs::write(folder.path().join(OPENER_FILE), "x").unwrap();
        assert!(what().ends_with("is half-made"));
        fs::write(folder.path().join("agent.key"), "x").unwrap();
        assert!(what().ends_with("belongs to an agent"));
    }
}
