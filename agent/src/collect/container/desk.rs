//! Questions about single containers: each with its own deadline, one at a time for each container, a few at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mainstay_common::state::ContainerState;
use tokio::task::JoinSet;

use super::{fleet::Ask, inspected::Inspected, listed::Listed};
use crate::{
    collect::engine::{Client, Failure},
    config::EyesConfig,
};

/// Questions at once. A container that hangs keeps one place for ten seconds.
const AT_ONCE: usize = 8;

/// The questions.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: BTreeMap<Arc<str>, Ask>,
    busy: BTreeSet<Arc<str>>,
    jobs: JoinSet<Answer>,
}

/// What came of one.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) id: Arc<str>,
    /// The last event before it was asked.
    pub(super) after: u64,
    pub(super) found: Result<Found, Failure>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its line of the list, where that was asked for.
    pub(super) row: Option<Box<Listed>>,
    /// Its inspection, where that says more; or why there is none.
    pub(super) detail: Option<Result<Inspected, Failure>>,
    /// There is no such container.
    pub(super) gone: bool,
}

impl Desk {
    /// Something should be asked about a container.
    pub(super) fn want(&mut self, id: Arc<str>, ask: Ask) {
        let wanted = self.waiting.entry(id).or_insert(ask);
        *wanted = ask.max(*wanted);
    }

    /// Asks as much as may be asked at once; `after` is the last event that was heard.
    pub(super) fn hand_out(&mut self, client: &Client, after: u64, config: &Arc<EyesConfig>) {
        while self.jobs.len() < AT_ONCE {
            let Some(id) = self.waiting.keys().find(|id| !self.busy.contains(*id)).cloned() else { return };
            let Some(ask) = self.waiting.remove(&id) else { return };
            self.busy.insert(Arc::clone(&id));
            let (client, config) = (client.clone(), Arc::clone(config));
            self.jobs.spawn(async move {
                let found = question(&client, &id, ask, &config.container_labels).await;
                Answer { id, after, found }
            });
        }
    }

    /// The next answer; waits for ever where nothing is asked.
    pub(super) async fn answered(&mut self) -> Answer {
        loop {
            match self.jobs.join_next().await {
                Some(Ok(answer)) => {
                    self.busy.remove(&answer.id);
                    return answer;
                }
                // Its container stays busy until the next session: whatever made it crash would do so again.
                Some(Err(crash)) => tracing::warn!(%crash, "a question about a container crashed"),
                None => std::future::pending().await,
            }
        }
    }

    /// True when everything is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.jobs.is_empty()
    }

    /// Gives up all questions.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

async fn question(client: &Client, id: &Arc<str>, ask: Ask, labels: &[String]) -> Result<Found, Failure> {
    let mut found = Found::default();
    if ask == Ask::Row {
        let listed = client.containers(Some(id)).await?;
        let row = listed.into_iter().filter_map(|one| Listed::of(one, labels)).find(|one| one.id == *id);
        let Some(row) = row else { return Ok(Found { gone: true, ..found }) };
        let never_ran = row.state == ContainerState::Created;
        found.row = Some(Box::new(row));
        if never_ran {
            return Ok(found);
        }
    }
    match client.inspect(id).await {
        Ok(told) => found.detail = Some(Ok(Inspected::from(&told))),
        Err(failure) if failure.is_gone() => found.gone = true,
        Err(failure) => found.detail = Some(Err(failure)),
    }
    Ok(found)
}
