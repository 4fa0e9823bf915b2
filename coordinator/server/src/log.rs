//! Decisions: proposed here, kept before they are answered, read from here. Step 4 replicates what is behind it.

use std::{path::PathBuf, sync::Arc};

use mainstay_common::process::{self, shutdown::CancellationToken};
use mainstay_core::{Actor, Command, Consequence, Entry, Origin, Rejected, State};
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::Stored;

/// Why a proposal did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProposeError {
    /// The state's own rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It could not be kept; nothing changed.
    #[error("the decision could not be stored: {0}")]
    Store(String),
    /// The replica is ending; nothing changed.
    #[error("the replica is ending")]
    Ending,
}

struct Proposal {
    command: Command,
    answer: oneshot::Sender<Result<Consequence, ProposeError>>,
}

/// The log's handle: cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    proposals: mpsc::Sender<Proposal>,
    state: watch::Receiver<Arc<State>>,
}

impl Log {
    /// Starts the one task that changes the state. It ends after `stop`, when every proposal was answered.
    pub(crate) fn start(
        stored: Stored,
        dir: PathBuf,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (proposals, queue) = mpsc::channel(64);
        let (publish, state) = watch::channel(Arc::new(stored.state.clone()));
        (Self { proposals, state }, keep(stored, dir, queue, publish, stop))
    }

    /// Proposes a command; the answer comes when it is on disk.
    pub(crate) async fn propose(&self, command: Command) -> Result<Consequence, ProposeError> {
        let (answer, answered) = oneshot::channel();
        self.proposals.send(Proposal { command, answer }).await.map_err(|_| ProposeError::Ending)?;
        answered.await.map_err(|_| ProposeError::Ending)?
    }

    /// The state as of now.
    pub(crate) fn read(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Follows the state.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }
}

async fn keep(
    mut stored: Stored,
    dir: PathBuf,
    mut queue: mpsc::Receiver<Proposal>,
    publish: watch::Sender<Arc<State>>,
    stop: CancellationToken,
) {
    loop {
        let proposal = tokio::select! {
            proposal = queue.recv() => proposal,
            () = stop.cancelled() => None,
        };
        let Some(Proposal { command, answer }) = proposal else { break };
        let outcome = decide(&mut stored, &dir, &command).await;
        if outcome.is_ok() {
            publish.send_replace(Arc::new(stored.state.clone()));
        }
        // Nobody may be waiting any more; the decision stands all the same.
        drop(answer.send(outcome));
    }
}

async fn decide(stored: &mut Stored, dir: &std::path::Path, command: &Command) -> Result<Consequence, ProposeError> {
    let mut next = stored.clone();
    // Nothing that this file keeps looks at who, from where or at which index.
    let entry = Entry {
        at: process::now(),
        actor: Actor::Replica(stored.replica.clone()),
        from: Origin::Replica(stored.replica.clone()),
        request: None,
        command: command.clone(),
    };
    let consequence = next.state.apply(0, &entry)?;
    if next.state != stored.state {
        let (kept, folder) = (next.clone(), dir.to_owned());
        let saved = tokio::task::spawn_blocking(move || kept.save(&folder)).await;
        saved.map_err(|crash| ProposeError::Store(crash.to_string()))?.map_err(|error| {
            tracing::error!(%error, "a decision could not be stored");
            ProposeError::Store(error.to_string())
        })?;
        *stored = next;
    }
    Ok(consequence)
}

#[cfg(test)]
mod tests {
    use mainstay_common::{Timestamp, process::data_dir::DataDir};
    use mainstay_core::{KeyFingerprint, user};

    use super::*;

    #[tokio::test]
    async fn what_was_answered_is_on_disk_and_what_cannot_be_stored_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let dir = DataDir::take(&path).unwrap();
        let stored = Stored::new("c1".parse().unwrap(), "prod".into(), "r1".parse().unwrap(), "h:1".into());
        let stop = CancellationToken::new();
        let (log, task) = Log::start(stored, path.clone(), stop.clone());
        let task = tokio::spawn(task);

        log.propose(add("eve")).await.unwrap();
        assert_eq!(Stored::load(&dir).unwrap().state, *log.read());

        std::fs::rename(&path, folder.path().join("away")).unwrap();
        assert!(matches!(log.propose(add("bob")).await, Err(ProposeError::Store(_))));
        assert_eq!(log.read().users.iter().count(), 1);

        std::fs::rename(folder.path().join("away"), &path).unwrap();
        log.propose(add("bob")).await.unwrap();
        assert_eq!(Stored::load(&dir).unwrap().state.users.iter().count(), 2);
        stop.cancel();
        task.await.unwrap();
        assert!(matches!(log.propose(add("late")).await, Err(ProposeError::Ending)));
    }

    fn add(name: &str) -> Command {
        let user = user::User {
            role: mainstay_common::identity::HumanRole::Viewer,
            key: KeyFingerprint([1; 32]),
            added_at: Timestamp(0),
            added_by: "admin".parse().unwrap(),
            revoked_at: None,
        };
        Command::User(user::Command::Add(name.parse().unwrap(), user))
    }
}
