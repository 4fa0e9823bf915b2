//! Decisions: proposed here, kept before they are answered, read from here.

mod follow;
mod machine;

pub(crate) use follow::line;

use std::{path::Path, sync::Arc};

use mainstay_common::{
    ExitCode, Failure, ReplicaId,
    process::{self, data_dir::DataDir},
};
use mainstay_core::{Actor, Command, Consequence, Entry, Origin, Rejected, State};
use tokio::sync::watch;

use crate::{
    audit::Trail,
    identity::OPENER_FILE,
    raft::{
        self, End, Running, Settings,
        store::{CreateError, Identity, disk::Folder},
    },
};

/// The log's folder within the data directory.
const FOLDER: &str = "log";
/// The file that says that there is a log, whole.
const IDENTITY: &str = "identity";
/// Where the CA's key lay in the open before the state held it sealed.
pub(crate) const PLAIN_KEY_FILE: &str = "ca.key";

/// Why a proposal did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// The state's own rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] raft::ProposeError),
}

/// Who wants something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) actor: Actor,
    pub(crate) from: Origin,
}

/// The log's handle: cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    raft: raft::Log<State>,
    replica: ReplicaId,
}

impl Log {
    /// Opens the log of this data directory, and leads.
    ///
    /// # Errors
    /// Three lines on what is wrong with it; nothing was changed.
    pub(crate) fn start(dir: &DataDir) -> Result<(Self, Running<State>), Failure> {
        refuse_missing(dir.path())?;
        let folder = dir.file(FOLDER);
        let unusable = |error: std::io::Error| process::data_dir::unusable(&folder, &error);
        let disk = Folder::at(&folder).map_err(unusable)?;
        let trail = Trail::open(dir.path()).map_err(unusable)?;
        let started = raft::start(disk, Settings::default(), vec![Box::new(trail)]);
        let (raft, running) = started.map_err(|error| error.failure(&folder.display().to_string()))?;
        let replica = own_id(&raft.read())?;
        Ok((Self { raft, replica }, running))
    }

    /// Proposes a command; the answer comes when it is durable and applied.
    ///
    /// # Errors
    /// [`ProposeError`]: refused, or not taken.
    pub(crate) async fn propose(&self, by: By, command: Command) -> Result<Consequence, ProposeError> {
        let By { actor, from } = by;
        let entry = Entry { at: process::now(), actor, from, request: None, command };
        Ok(self.raft.propose(entry).await??)
    }

    /// By this replica's own doing.
    pub(crate) fn own(&self, actor: Actor) -> By {
        By { actor, from: Origin::Replica(self.replica.clone()) }
    }

    /// This replica.
    pub(crate) fn replica(&self) -> &ReplicaId {
        &self.replica
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
            End::Removed => {
                let why = "it led the cluster in its own removal";
                return Failure::new(
                    ExitCode::Denied,
                    "this replica was removed from the cluster",
                    why,
                    "nothing to do",
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
    let identity =
        Identity { cluster: about.id.clone(), generation: about.generation, replica: number(&own_id(state)?)? };
    let disk = Folder::at(&folder).map_err(|error| process::data_dir::unusable(&folder, &error))?;
    raft::found(disk, identity, &Settings::default(), state).map_err(|error| {
        let code = if matches!(error, CreateError::Exists(_)) { ExitCode::Conflict } else { ExitCode::Failed };
        let try_next = "empty the data directory, make room, and run init again";
        Failure::new(code, format!("no log was made in {}", folder.display()), error.to_string(), try_next)
    })
}

/// Whether a data directory holds a cluster that was made whole.
#[must_use]
pub fn holds_cluster(data_dir: &Path) -> bool {
    data_dir.join(FOLDER).join(IDENTITY).exists()
}

/// What founded the cluster, of a replica that is alone.
fn own_id(state: &State) -> Result<ReplicaId, Failure> {
    let mut replicas = state.cluster.replicas().map(|(id, _)| id.clone());
    match (replicas.next(), replicas.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Failure::new(
            ExitCode::Failed,
            "the cluster has several replicas",
            "this version serves one",
            "start the version of mainstay-coordinator that wrote the log",
        )),
    }
}

/// `r7` is 7 in Raft.
fn number(replica: &ReplicaId) -> Result<u64, Failure> {
    let number = replica.as_str().strip_prefix('r').and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| {
        Failure::new(ExitCode::Failed, format!("{replica} is no replica's id"), "it is r and a number", "")
    })
}

/// Tells an empty directory from a half-made one and from others' directories.
///
/// # Errors
/// What it is, and what to do.
pub(crate) fn refuse_missing(dir: &Path) -> Result<(), Failure> {
    if holds_cluster(dir) {
        return Ok(());
    }
    let (what, why, try_next) = if dir.join("agent.key").exists() {
        (
            format!("{} belongs to an agent", dir.display()),
            "it holds an agent.key".into(),
            "give the coordinator a --data-dir of its own".into(),
        )
    } else if let Some(key) = [OPENER_FILE, PLAIN_KEY_FILE].into_iter().find(|name| dir.join(name).exists()) {
        (
            format!("{} is half-made", dir.display()),
            format!("it has a {key}, but no {FOLDER}/{IDENTITY}: init was interrupted, or the log was lost"),
            "after an interrupted init: empty the directory and run init again; else put the log back from a copy"
                .into(),
        )
    } else {
        (
            format!("{} holds no cluster", dir.display()),
            format!("there is no {FOLDER}/{IDENTITY}"),
            format!("mainstay-coordinator init --data-dir {} --cluster NAME --advertise HOST:PORT", dir.display()),
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
