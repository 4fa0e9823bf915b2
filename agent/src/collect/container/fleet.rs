//! All containers as they are known now. Pure: what is heard goes in, rows come out.
//!
//! Lists, inspections and events overtake each other. Events are numbered; what was asked for before an event does not
//! overrule it.

use std::{collections::BTreeMap, sync::Arc};

use mainstay_common::{
    Timestamp,
    metric::{Readings, catalogue as m},
    state::{ContainerState, HealthState},
};
use mainstay_proto::v1 as pb;

use super::{
    files::Usage,
    inspected::Inspected,
    kills::Kills,
    listed::{Listed, health_while},
    meter::Target,
    uses::Uses,
};
use crate::{board::Table, collect::engine::Happened, collect::readings};

/// The most containers with a row; of the others it is known what they mount.
const LIMIT: usize = 2_000;

/// All containers.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    containers: BTreeMap<Arc<str>, Known>,
    beyond: Vec<Listed>,
    /// The last event that was heard.
    heard: u64,
    /// The last event before the newest list was asked for.
    listed_after: u64,
    /// Containers that were removed, and by which event.
    gone: BTreeMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Known {
    listed: Listed,
    state: ContainerState,
    health: HealthState,
    detail: Option<Inspected>,
    kills: Kills,
    usage: Option<Usage>,
    /// Readings that found no groups, one after the other.
    unseen: u32,
    /// The last event about it.
    touched: u64,
}

/// What should be asked about a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// Its inspection.
    Detail,
    /// Its line in the list, and its inspection.
    Row,
}

/// What follows from something that was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reaction {
    /// What to ask.
    pub(super) ask: Option<Ask>,
    /// A row changed.
    pub(super) changed: bool,
    /// It should be told at once.
    pub(super) urgent: bool,
}

impl Fleet {
    /// The last event that was heard: to be remembered with every question.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// Takes over the list of all containers that was asked for after event `after`. Tells whom to inspect: with
    /// `anew` everyone that ever ran.
    pub(super) fn listed(&mut self, after: u64, mut all: Vec<Listed>, anew: bool) -> Vec<Arc<str>> {
        self.listed_after = after;
        all.retain(|one| self.gone.get(&one.id).is_none_or(|event| *event <= after));
        self.gone.retain(|_, event| *event > after);
        // Beyond the limit those that run come first, always the same.
        all.sort_by(|a, b| (!is_running(a.state), &a.id).cmp(&(!is_running(b.state), &b.id)));
        self.beyond = all.split_off(all.len().min(LIMIT));
        let mut before = std::mem::take(&mut self.containers);
        let mut asked = Vec::new();
        for one in all {
            let id = Arc::clone(&one.id);
            let mut known = before.remove(&id);
            let touched = known.as_ref().is_some_and(|known| known.touched > after);
            if let Some(known) = &mut known {
                if !touched && known.state != one.state {
                    known.enter(one.state);
                    known.detail = None;
                }
                if !touched && one.health != HealthState::None {
                    known.health = one.health;
                }
                known.listed = one;
            } else {
                known = Some(Known::new(one));
            }
            if let Some(known) = known {
                let ran = known.state != ContainerState::Created;
                if ran && (anew || known.detail.is_none() || known.unseen > 0) {
                    asked.push(Arc::clone(&id));
                }
                self.containers.insert(id, known);
            }
        }
        // What came after the list was asked for is not in it, and there all the same.
        self.containers.extend(before.into_iter().filter(|(_, known)| known.touched > after));
        asked
    }

    /// Takes over one container's line of the list, asked for after event `after`; `None` says that it is gone.
    pub(super) fn joined(&mut self, after: u64, id: &Arc<str>, one: Option<Listed>) -> Reaction {
        if self.gone.get(id).is_some_and(|event| *event > after) {
            return Reaction::default();
        }
        let full = self.containers.len() >= LIMIT;
        match (one, self.containers.get_mut(id)) {
            (Some(one), Some(known)) => {
                let changed = known.listed != one;
                known.listed = one;
                Reaction { changed, ..Reaction::default() }
            }
            (Some(one), None) if full => {
                self.beyond.retain(|other| other.id != *id);
                self.beyond.push(one);
                Reaction { changed: true, ..Reaction::default() }
            }
            (Some(one), None) => {
                self.containers.insert(Arc::clone(id), Known::new(one));
                Reaction { changed: true, ..Reaction::default() }
            }
            (None, Some(known)) if known.touched > after => Reaction::default(),
            (None, _) => self.remove(id),
        }
    }

    /// Takes over an inspection that was asked for after event `after`.
    pub(super) fn inspected(&mut self, after: u64, id: &str, told: Inspected) -> Reaction {
        // An event since then has asked for another one.
        let Some(known) = self.containers.get_mut(id).filter(|known| known.touched <= after) else {
            return Reaction::default();
        };
        known.kills.inspected(told.started_at, told.out_of_memory);
        let before = (known.state, known.health, known.detail);
        known.enter(told.state);
        known.health = told.health;
        known.detail = Some(told);
        Reaction {
            ask: None,
            changed: before != (known.state, known.health, known.detail),
            urgent: is_worse(before.0, known.state) || is_ill(before.1) != is_ill(known.health),
        }
    }

    /// Takes over an event.
    pub(super) fn happened(&mut self, number: u64, id: &str, what: Happened) -> Reaction {
        self.heard = self.heard.max(number);
        if what == Happened::Destroyed {
            let id: Arc<str> = id.into();
            self.gone.insert(Arc::clone(&id), number);
            return self.remove(&id);
        }
        let Some(known) = self.containers.get_mut(id) else {
            return Reaction { ask: Some(Ask::Row), ..Reaction::default() };
        };
        if number <= self.listed_after {
            // The list is newer: it was asked for when this was known already.
            return Reaction { ask: Some(Ask::Row), ..Reaction::default() };
        }
        known.touched = number;
        let before = (known.state, known.health);
        match what {
            Happened::Started | Happened::Unpaused => known.enter(ContainerState::Running),
            Happened::Died => known.enter(ContainerState::Exited),
            Happened::Paused => known.enter(ContainerState::Paused),
            Happened::Health(health) => known.health = health_while(known.state, health),
            Happened::OutOfMemory => known.kills.told(),
            Happened::Created | Happened::Changed | Happened::Destroyed => {}
        }
        if what == Happened::Started {
            // Another process and other groups: what was read belongs to the life before.
            known.forget_process();
        }
        let ask = if matches!(what, Happened::Created | Happened::Changed) { Ask::Row } else { Ask::Detail };
        let out_of_memory = what == Happened::OutOfMemory;
        Reaction {
            ask: Some(ask),
            changed: before != (known.state, known.health) || out_of_memory,
            urgent: is_worse(before.0, known.state) || is_ill(before.1) != is_ill(known.health) || out_of_memory,
        }
    }

    /// There is no such container any longer.
    pub(super) fn remove(&mut self, id: &str) -> Reaction {
        self.beyond.retain(|other| &*other.id != id);
        Reaction { changed: self.containers.remove(id).is_some(), ..Reaction::default() }
    }

    /// Those whose use can be read.
    pub(super) fn targets(&self) -> Vec<Target> {
        let target = |(id, known): (&Arc<str>, &Known)| {
            let pid = known.detail.as_ref()?.pid.filter(|_| is_running(known.state))?;
            Some(Target { id: Arc::clone(id), pid, own_network: known.listed.own_network })
        };
        self.containers.iter().filter_map(target).collect()
    }

    /// Takes over what a container uses.
    pub(super) fn measured(&mut self, id: &str, usage: Usage) {
        if let Some(known) = self.containers.get_mut(id).filter(|known| is_running(known.state)) {
            known.unseen = 0;
            if let Some(kills) = usage.oom_kills {
                known.kills.counted(kills);
            }
            known.usage = Some(usage);
        }
    }

    /// A container's groups were not there.
    pub(super) fn unseen(&mut self, id: &str) {
        if let Some(known) = self.containers.get_mut(id) {
            known.unseen += 1;
            known.usage = None;
        }
    }

    /// A container that runs, and of which nothing could be read more than once; and how many there are.
    pub(super) fn unmeasured(&self) -> Option<(&str, usize)> {
        let mut those = self.containers.values().filter(|known| is_running(known.state) && known.unseen > 1);
        let first = those.next()?;
        Some((&first.listed.name, 1 + those.count()))
    }

    /// The container's name; its id where it has no row.
    pub(super) fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.containers.get(id).map_or(id, |known| &known.listed.name)
    }

    /// Who uses which volume.
    pub(super) fn uses(&self) -> Uses {
        let mut uses = Uses::default();
        for listed in self.containers.values().map(|known| &known.listed).chain(&self.beyond) {
            match &listed.volumes {
                Some(volumes) => volumes.iter().for_each(|one| uses.add(&one.volume, &one.driver, &listed.name)),
                None => uses.incomplete = true,
            }
        }
        uses
    }

    /// The rows.
    pub(super) fn table(&self, read_at: Timestamp) -> Table<pb::Container> {
        let rows = self.containers.iter().map(|(id, known)| (id.as_bytes().to_vec(), known.row(id))).collect();
        Table { read_at, rows, left_out: u64::try_from(self.beyond.len()).unwrap_or(u64::MAX) }
    }
}

impl Known {
    fn new(listed: Listed) -> Self {
        Self {
            state: listed.state,
            health: listed.health,
            detail: None,
            kills: Kills::default(),
            usage: None,
            unseen: 0,
            touched: 0,
            listed,
        }
    }

    fn enter(&mut self, state: ContainerState) {
        self.state = state;
        self.health = health_while(state, self.health);
        if !is_running(state) {
            self.forget_process();
        }
    }

    fn forget_process(&mut self) {
        self.usage = None;
        self.unseen = 0;
        if let Some(detail) = &mut self.detail {
            (detail.pid, detail.exit_code) = (None, None);
        }
    }

    fn row(&self, id: &Arc<str>) -> pb::Container {
        let Listed { name, image, labels, .. } = &self.listed;
        let mut known = self.usage.as_ref().map_or_else(Readings::new, Usage::readings);
        let never_ran = (self.state == ContainerState::Created).then_some(0);
        known.set_count(&m::CONTAINER_RESTARTS_TOTAL, self.detail.and_then(|detail| detail.restarts).or(never_ran));
        known.set_count(&m::CONTAINER_OOM_KILLS_TOTAL, self.kills.get());
        pb::Container {
            id: id.as_bytes().to_vec(),
            name: name.clone(),
            image: image.clone(),
            state: self.state.number(),
            health: self.health.number(),
            started_at_ms: self.detail.and_then(|detail| detail.started_at).map(|at| at.0),
            exit_code: self.detail.and_then(|detail| detail.exit_code),
            readings: readings(&known),
            service: labels.service.clone(),
            task: labels.task.clone(),
            stack: labels.stack.clone(),
            labels: labels.sent.clone(),
            labels_left_out: labels.left_out,
        }
    }
}

fn is_running(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused)
}

/// It ran, and does not any longer.
fn is_worse(before: ContainerState, now: ContainerState) -> bool {
    is_running(before) && !is_running(now)
}

fn is_ill(health: HealthState) -> bool {
    health == HealthState::Unhealthy
}

#[cfg(test)]
mod tests;
