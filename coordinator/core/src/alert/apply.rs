//! How alerts change.

use mainstay_common::{NodeId, Timestamp, state::Severity};
use minicbor::{Decode, Encode};

use super::{
    model::{Alert, AlertId, End, Episode, Event, Phase, Resolved, Space, Told},
    rule::Rules,
};
use crate::Table;

/// Episodes that are over and still remembered.
pub const MAX_RESOLVED: usize = 1_000;

/// How alerts may change. All but the first name the episode and what it was made of: a proposal that comes too late
/// changes nothing. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// The condition holds for the first time.
    #[n(0)]
    Pend(#[n(0)] Pend),
    /// It held long enough.
    #[n(1)]
    Fire(#[n(0)] Episode, #[n(1)] Severity, #[n(2)] Space),
    /// It fires, and was critical long enough.
    #[n(2)]
    Escalate(#[n(0)] Episode, #[n(1)] Space),
    /// It fired, and is over.
    #[n(3)]
    Resolve(#[n(0)] Episode, #[n(1)] End, #[n(2)] Option<Space>),
    /// It was pending, and went away.
    #[n(4)]
    Drop(#[n(0)] Episode, #[n(1)] End),
    /// A mark is set or taken away.
    #[n(5)]
    Turn(#[n(0)] Episode, #[n(1)] Turn, #[n(2)] Option<Space>),
    /// Nothing is known of it any more: it stays what it is.
    #[n(6)]
    Unknown(#[n(0)] Episode),
    /// There are readings again.
    #[n(7)]
    Known(#[n(0)] Episode, #[n(1)] Known),
}

/// A condition that holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pend {
    /// Where.
    #[n(0)]
    pub alert: AlertId,
    /// How bad it is now.
    #[n(1)]
    pub severity: Severity,
    /// The reading.
    #[n(2)]
    pub space: Space,
}

/// A mark that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Turn {
    /// It is critical from now on.
    #[n(0)]
    Critical,
    /// It is critical no more.
    #[n(1)]
    Warning,
    /// It is gone from now on.
    #[n(2)]
    Clear,
    /// It is there again.
    #[n(3)]
    Back,
}

/// What is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Known {
    /// Whether it is critical now.
    #[n(0)]
    pub critical: bool,
    /// The reading, where there is one.
    #[n(1)]
    pub space: Option<Space>,
}

/// What a command brought about; what is told must be owed within the same entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Consequence {
    /// A mark, and nobody has to know.
    #[n(0)]
    Marked,
    /// Receivers are to be told.
    #[n(1)]
    Told(#[n(0)] Told),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// There is one already.
    #[error("alert {0} is there already")]
    There(AlertId),
    /// The episode is over, or went on since the proposal was made.
    #[error("alert {0} changed meanwhile")]
    Changed(AlertId),
    /// It is in another phase.
    #[error("alert {0} is not where that can happen")]
    Phase(AlertId),
    /// The node is no member.
    #[error("node {0} is not in the cluster")]
    NoMember(NodeId),
}

/// All alerts, and the rules they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerts {
    /// What operators changed of the catalogue.
    pub rules: Rules,
    pub(crate) open: Table<AlertId, Alert>,
    /// By alert and begin of the episode.
    pub(crate) resolved: Table<(AlertId, Timestamp), Resolved>,
}

impl Alerts {
    /// Applies one committed command; `at` is the moment at which it was proposed.
    ///
    /// # Errors
    /// [`Rejected`] says why nothing changed.
    pub fn apply(&mut self, at: Timestamp, command: &Command) -> Result<Consequence, Rejected> {
        match command {
            Command::Pend(pend) => self.pend(at, pend),
            Command::Fire(episode, severity, space) => self.fire(at, episode, *severity, *space),
            Command::Escalate(episode, space) => self.escalate(at, episode, *space),
            Command::Resolve(episode, end, space) => self.resolve(at, episode, *end, *space),
            Command::Drop(episode, _) => self.drop_pending(episode),
            Command::Turn(episode, turn, space) => self.turn(at, episode, *turn, *space),
            Command::Unknown(episode) => self.unknown(at, episode),
            Command::Known(episode, known) => self.known(at, episode, *known),
        }
    }

    /// Ends everything about a node that was removed, and returns what is to be told.
    pub fn node_removed(&mut self, at: Timestamp, node: &NodeId) -> Vec<Told> {
        let gone: Vec<AlertId> = self.of_node(node).map(|(id, _)| id.clone()).collect();
        let ended = gone.into_iter().filter_map(|id| {
            let alert = self.open.remove(&id)?;
            (alert.phase == Phase::Firing).then(|| self.archive(at, id, alert, End::NodeRemoved))
        });
        ended.collect()
    }

    /// An alert that is not over.
    #[must_use]
    pub fn get(&self, id: &AlertId) -> Option<&Alert> {
        self.open.get(id)
    }

    /// An alert that is not over, by its id as text.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<(&AlertId, &Alert)> {
        let node: NodeId = text.split('/').nth(1)?.parse().ok()?;
        let (id, alert) = self.of_node(&node).find(|(id, _)| id.to_string() == text)?;
        Some((id, alert))
    }

    /// Every alert that is not over, by node.
    pub fn open(&self) -> impl Iterator<Item = (&AlertId, &Alert)> {
        self.open.iter()
    }

    /// Every alert of one node that is not over.
    pub fn of_node(&self, node: &NodeId) -> impl Iterator<Item = (&AlertId, &Alert)> {
        let first = AlertId { node: node.clone(), rule: super::RuleId::FsSpace, target: Vec::new() };
        self.open.from(&first).take_while(move |(id, _)| id.node == first.node)
    }

    /// Episodes that are over, by alert and begin; the last [`MAX_RESOLVED`].
    pub fn resolved(&self) -> impl Iterator<Item = (&AlertId, &Resolved)> {
        self.resolved.iter().map(|((id, _), resolved)| (id, resolved))
    }

    fn pend(&mut self, at: Timestamp, pend: &Pend) -> Result<Consequence, Rejected> {
        if self.open.get(&pend.alert).is_some() {
            return Err(Rejected::There(pend.alert.clone()));
        }
        // A clock that was put back must not give two episodes one name.
        let mut since = at;
        while self.resolved.get(&(pend.alert.clone(), since)).is_some() {
            since = Timestamp(since.0.saturating_add(1));
        }
        let alert = Alert {
            since,
            step: 0,
            phase: Phase::Pending,
            phase_since: at,
            severity: pend.severity,
            held_since: at,
            critical_since: (pend.severity == Severity::Critical).then_some(at),
            clear_since: None,
            unknown_since: None,
            space: pend.space,
        };
        self.open.insert(pend.alert.clone(), alert);
        Ok(Consequence::Marked)
    }

    fn fire(
        &mut self,
        at: Timestamp,
        episode: &Episode,
        severity: Severity,
        space: Space,
    ) -> Result<Consequence, Rejected> {
        let alert = self.expect(episode, Phase::Pending)?;
        alert.phase = Phase::Firing;
        alert.phase_since = at;
        alert.severity = severity;
        alert.unknown_since = None;
        alert.space = space;
        Ok(Consequence::Told(told(at, episode.alert.clone(), alert, Event::Fired, None)))
    }

    fn escalate(&mut self, at: Timestamp, episode: &Episode, space: Space) -> Result<Consequence, Rejected> {
        let alert = self.expect(episode, Phase::Firing)?;
        alert.severity = Severity::Critical;
        alert.unknown_since = None;
        alert.space = space;
        Ok(Consequence::Told(told(at, episode.alert.clone(), alert, Event::Escalated, None)))
    }

    fn resolve(
        &mut self,
        at: Timestamp,
        episode: &Episode,
        end: End,
        space: Option<Space>,
    ) -> Result<Consequence, Rejected> {
        let mut alert = self.expect(episode, Phase::Firing)?.clone();
        alert.space = space.unwrap_or(alert.space);
        self.open.remove(&episode.alert);
        Ok(Consequence::Told(self.archive(at, episode.alert.clone(), alert, end)))
    }

    fn drop_pending(&mut self, episode: &Episode) -> Result<Consequence, Rejected> {
        self.expect(episode, Phase::Pending)?;
        self.open.remove(&episode.alert);
        Ok(Consequence::Marked)
    }

    fn turn(
        &mut self,
        at: Timestamp,
        episode: &Episode,
        turn: Turn,
        space: Option<Space>,
    ) -> Result<Consequence, Rejected> {
        let phase = self.open.get(&episode.alert).map_or(Phase::Firing, |alert| alert.phase);
        let alert = self.expect(episode, phase)?;
        match turn {
            Turn::Critical => alert.critical_since = Some(at),
            Turn::Warning => alert.critical_since = None,
            Turn::Clear => (alert.clear_since, alert.critical_since) = (Some(at), None),
            Turn::Back => alert.clear_since = None,
        }
        // What fires stays as bad as it was; what is pending is as bad as it is now.
        if phase == Phase::Pending {
            alert.severity = if alert.critical_since.is_some() { Severity::Critical } else { Severity::Warning };
        }
        alert.space = space.unwrap_or(alert.space);
        Ok(Consequence::Marked)
    }

    fn unknown(&mut self, at: Timestamp, episode: &Episode) -> Result<Consequence, Rejected> {
        let phase = self.open.get(&episode.alert).map_or(Phase::Firing, |alert| alert.phase);
        self.expect(episode, phase)?.unknown_since = Some(at);
        Ok(Consequence::Marked)
    }

    /// Holds count consecutive samples: after a time of which nothing is known they begin anew.
    fn known(&mut self, at: Timestamp, episode: &Episode, known: Known) -> Result<Consequence, Rejected> {
        let phase = self.open.get(&episode.alert).map_or(Phase::Firing, |alert| alert.phase);
        let alert = self.expect(episode, phase)?;
        alert.unknown_since = None;
        alert.clear_since = None;
        alert.held_since = at;
        alert.critical_since = known.critical.then_some(at);
        if phase == Phase::Pending {
            alert.severity = if known.critical { Severity::Critical } else { Severity::Warning };
        }
        alert.space = known.space.unwrap_or(alert.space);
        Ok(Consequence::Marked)
    }

    /// The alert as the proposal knew it, one step further.
    fn expect(&mut self, episode: &Episode, phase: Phase) -> Result<&mut Alert, Rejected> {
        let changed = || Rejected::Changed(episode.alert.clone());
        let there = self.open.get(&episode.alert).ok_or_else(changed)?;
        if (there.since, there.step) != (episode.since, episode.step) {
            return Err(changed());
        }
        if there.phase != phase {
            return Err(Rejected::Phase(episode.alert.clone()));
        }
        let alert = self.open.get_mut(&episode.alert).ok_or_else(changed)?;
        alert.step = alert.step.saturating_add(1);
        Ok(alert)
    }

    /// Moves an alert to the history, from which the oldest falls.
    fn archive(&mut self, at: Timestamp, id: AlertId, alert: Alert, end: End) -> Told {
        let told = told(at, id.clone(), &alert, Event::Resolved, Some(end));
        self.resolved.insert((id, alert.since), Resolved { alert, at, end });
        if self.resolved.len() > MAX_RESOLVED
            && let Some((oldest, _)) = self.resolved.iter().min_by_key(|(key, resolved)| (resolved.at, *key))
        {
            let oldest = oldest.clone();
            self.resolved.remove(&oldest);
        }
        told
    }
}

fn told(at: Timestamp, id: AlertId, alert: &Alert, event: Event, end: Option<End>) -> Told {
    Told { alert: id, since: alert.since, event, at, severity: alert.severity, space: alert.space, end }
}

#[cfg(test)]
mod tests;
