//! Where the state comes from: a backup's file, or a replica's own data directory.

use std::{fs, path::Path};

use mainstay_common::{
    ExitCode, Failure, ReplicaId, Timestamp,
    process::{
        backup::{self, RecoveryKey},
        data_dir::{DataDir, unusable},
    },
};
use mainstay_core::{State, backup as content, cluster};

use super::{Remains, RestoreFrom};
use crate::{
    audit::{FOLDER, Line, Trail},
    identity::OPENER_FILE,
    log,
    raft::Position,
};

/// A state, and what is known of it.
pub(super) struct Source {
    pub(super) state: State,
    /// The last entry that is in it.
    pub(super) last: Position,
    /// Its log's generation.
    pub(super) generation: u64,
    /// When the last decision in it was made.
    pub(super) until: Option<Timestamp>,
    /// What opens the CA's key, where the data directory does not have it.
    pub(super) opener: Option<content::Secret>,
    /// Whose data directory it is.
    pub(super) own: Option<ReplicaId>,
    /// What the audit trail lacks.
    pub(super) lines: Vec<Line>,
}

impl Source {
    pub(super) fn remains(&self) -> Remains {
        let about = self.state.cluster.about();
        let replica = |(id, replica): (&ReplicaId, &cluster::Replica)| (id.to_string(), replica.address.clone());
        Remains {
            cluster: about.name.clone(),
            generation: about.generation,
            last_term: self.last.term,
            last_index: self.last.index,
            until_ms: self.until.map(|until| until.0),
            replicas: self.state.cluster.replicas().map(replica).collect(),
        }
    }
}

/// The state that is restored into `dir`; `elsewhere` is the surviving replica's directory where that is another one.
pub(super) fn read(dir: &DataDir, elsewhere: Option<&DataDir>, from: &RestoreFrom) -> Result<Source, Failure> {
    match (from, elsewhere) {
        (RestoreFrom::File { path, recovery_key }, _) => {
            refuse_used(dir)?;
            of_file(path, recovery_key.as_deref())
        }
        (RestoreFrom::Replica(_), None) => of_directory(dir),
        (RestoreFrom::Replica(_), Some(elsewhere)) => {
            refuse_used(dir)?;
            of_directory(elsewhere)
        }
    }
}

pub(super) fn of_file(path: &Path, recovery_key: Option<&Path>) -> Result<Source, Failure> {
    let key = recovery_key.map(RecoveryKey::read).transpose()?;
    let file = fs::read(path).map_err(|error| {
        let what = format!("cannot read {}", path.display());
        Failure::new(ExitCode::Usage, what, error.to_string(), "check the path given by --from")
    })?;
    let bytes = backup::read(&file, key.as_ref()).map_err(|why| why.failure(path))?;
    let (head, state) = content::read(&bytes).map_err(|why| {
        let try_next = "use the version of Mainstay that wrote it, or a later one; else an older backup";
        Failure::new(ExitCode::Failed, format!("{} cannot be restored", path.display()), why.to_string(), try_next)
    })?;
    Ok(Source {
        last: Position { index: head.index, term: head.term },
        generation: head.generation,
        until: Some(head.taken_at),
        opener: Some(head.opener),
        own: None,
        lines: Vec::new(),
        state,
    })
}

/// Everything in the log counts, also what nobody knows to be committed: the majority that knew is lost, and may have
/// answered somebody.
pub(super) fn of_directory(dir: &DataDir) -> Result<Source, Failure> {
    let trail = Trail::open(dir.path()).map_err(|error| unusable(&dir.file(FOLDER), &error))?;
    let log::Whole { state, identity, last, until, lines } = log::read_whole(dir, trail.last() + 1)?;
    if state.cluster.is_blank() {
        return Err(Failure::new(
            ExitCode::Conflict,
            format!("{} knows nothing that could be restored", dir.path().display()),
            "that replica joined, and was told nothing yet",
            "restore on another replica, or from a backup: --from FILE",
        ));
    }
    Ok(Source {
        generation: identity.generation,
        own: Some(cluster::numbered(identity.replica)),
        opener: None,
        state,
        last,
        until,
        lines,
    })
}

/// A backup is restored beside what is there, never over it.
fn refuse_used(dir: &DataDir) -> Result<(), Failure> {
    let names = ["agent.key", OPENER_FILE];
    let used = names.into_iter().find(|name| dir.file(name).exists());
    if used.is_none() && !log::holds_cluster(dir.path()) {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::Conflict,
        format!("{} is not empty", dir.path().display()),
        format!("it holds {}", used.unwrap_or("a replica")),
        format!(
            "give an empty --data-dir; to go on with what this replica has: --from-replica {}",
            dir.path().display()
        ),
    ))
}
