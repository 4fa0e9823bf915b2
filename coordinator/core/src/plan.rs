//! What the leader should do next, made of state, live view and time alone: the next leader makes the same again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mainstay_common::{NodeId, Timestamp};

use crate::{Command, State, alert, cluster::Fence, effect::Effect, live::LiveView, notify};

/// Effects of one turn. What does not fit comes in the next.
pub const MAX_EFFECTS: usize = 512;
/// How often everything is looked at, changed or not.
pub const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Whose plans these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// Generation and term: what its claims carry.
    pub fence: Fence,
    /// When this replica applied the first entry of its term, by its own clock.
    pub since: Timestamp,
}

/// What a leader remembers from turn to turn. It lives as long as the term: losing it costs one full sweep, nothing else.
#[derive(Clone, Debug)]
pub struct Planner {
    leading: Leading,
    /// The state of the last turn; a copy costs nothing.
    seen: Option<State>,
    /// The live view's count of changes at the last turn.
    seen_live: u64,
    swept_at: Option<Timestamp>,
    /// Nodes to look at. Those with proposals stay until a look comes to nothing.
    unsettled: BTreeSet<NodeId>,
    /// The first that found no room in the last turn.
    next: Option<NodeId>,
    /// When to look at a node again, both ways round.
    again: BTreeSet<(Timestamp, NodeId)>,
    again_at: BTreeMap<NodeId, Timestamp>,
    outbox: notify::plan::Outbox,
}

impl Planner {
    /// The memory of a leader that just began.
    #[must_use]
    pub fn new(leading: Leading) -> Self {
        Self {
            leading,
            seen: None,
            seen_live: 0,
            swept_at: None,
            unsettled: BTreeSet::new(),
            next: None,
            again: BTreeSet::new(),
            again_at: BTreeMap::new(),
            outbox: notify::plan::Outbox::default(),
        }
    }

    /// Makes the next turn look at everything.
    pub fn sweep(&mut self) {
        self.swept_at = None;
        self.outbox.sweep();
    }

    /// Nodes that may have something to be done about.
    fn notice(&mut self, state: &State, live: &LiveView, now: Timestamp) {
        let swept = self.swept_at.is_some_and(|at| now >= at && now.since(at) < SWEEP_EVERY);
        let seen = self.seen.take().filter(|seen| swept && seen.alerts.rules.0.is_same(&state.alerts.rules.0));
        if let Some(seen) = seen {
            self.unsettled.extend(live.changed_since(self.seen_live).cloned());
            self.unsettled.extend(state.nodes.0.differing(&seen.nodes.0).cloned());
            self.unsettled.extend(state.alerts.open.differing(&seen.alerts.open).map(|id| id.node.clone()));
            while let Some((_, node)) = self.again.first().filter(|(at, _)| *at <= now).cloned() {
                self.look_again(&node, None);
                self.unsettled.insert(node);
            }
        } else {
            self.unsettled.extend(state.nodes.members().map(|(id, _)| id.clone()));
            self.swept_at = Some(now);
            self.outbox.sweep();
        }
        self.seen = Some(state.clone());
        self.seen_live = live.changes();
    }

    fn look_again(&mut self, node: &NodeId, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.again_at.insert(node.clone(), at),
            None => self.again_at.remove(node),
        };
        if let Some(before) = before {
            self.again.remove(&(before, node.clone()));
        }
        self.again.extend(at.map(|at| (at, node.clone())));
    }
}

/// One turn: what to do now, at most [`MAX_EFFECTS`]. Made again with the same state it says the same again, except that
/// no message is handed out twice.
pub fn plan(state: &State, live: &LiveView, planner: &mut Planner, now: Timestamp) -> Vec<Effect> {
    planner.notice(state, live, now);
    let leading = planner.leading;
    // Messages first: they are few, and somebody waits for them.
    let mut effects = planner.outbox.plan(state, leading, now, MAX_EFFECTS / 2);
    let start = planner.next.take();
    let (behind, ahead): (Vec<NodeId>, Vec<NodeId>) =
        planner.unsettled.iter().cloned().partition(|node| start.as_ref().is_some_and(|start| node < start));
    for node in ahead.into_iter().chain(behind) {
        let look = alert::plan::look(state, live, &node, now, leading.since);
        planner.look_again(&node, look.again);
        if look.commands.is_empty() {
            planner.unsettled.remove(&node);
            continue;
        }
        effects.extend(look.commands.into_iter().map(|command| Effect::Propose(Command::Alert(command))));
        if effects.len() >= MAX_EFFECTS {
            effects.truncate(MAX_EFFECTS);
            planner.next = Some(node);
            break;
        }
    }
    effects
}

#[cfg(test)]
mod tests {
    use mainstay_common::{
        metric::{
            Readings,
            catalogue::{DISK_AVAILABLE_BYTES, DISK_USED_BYTES},
        },
        state::DiskState,
    };

    use super::*;
    use crate::{
        Founding, KeyFingerprint,
        live::{Disk, Sample, Update},
    };

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn a_turn_is_bounded_and_whom_it_does_not_reach_comes_first_in_the_next() {
        let (mut state, mut live) = (state(), LiveView::new(NOON));
        for number in 0..1_000 {
            let id: NodeId = format!("n{number:03}").parse().unwrap();
            state.nodes.admit(NOON, &id, KeyFingerprint([0; 32]));
            live.observe(&id, full(), NOON);
        }
        let mut planner = Planner::new(Leading { fence: Fence { generation: 1, term: 1 }, since: NOON });
        let mut reached = BTreeSet::new();
        // Nothing is applied, as if every proposal were refused.
        for _ in 0..2 {
            let effects = plan(&state, &live, &mut planner, NOON);
            assert_eq!(effects.len(), MAX_EFFECTS);
            reached.extend(effects.iter().map(node));
        }
        assert_eq!(reached.len(), 1_000);
    }

    #[test]
    fn a_deadline_that_passes_between_two_sweeps_is_noticed() {
        let (mut state, mut live) = (state(), LiveView::new(NOON));
        let id: NodeId = "n1".parse().unwrap();
        state.nodes.admit(NOON, &id, KeyFingerprint([0; 32]));
        live.observe(&id, full(), NOON);
        let mut planner = Planner::new(Leading { fence: Fence { generation: 1, term: 1 }, since: NOON });
        let mut turn = |seconds| {
            let now = NOON.plus(Duration::from_secs(seconds));
            let effects = plan(&state, &live, &mut planner, now);
            for effect in &effects {
                let Effect::Propose(Command::Alert(command)) = effect else { panic!("{effect:?}") };
                state.alerts.apply(now, command).unwrap();
            }
            effects
        };
        assert_eq!(turn(0).len(), 1);
        assert_eq!(turn(0).len(), 0);
        // The sweep of 70 s is the last before the lease of 90 s is over.
        assert_eq!((turn(70).len(), turn(89).len()), (0, 0));
        assert!(matches!(turn(90)[..], [Effect::Propose(Command::Alert(alert::Command::Unknown(_)))]));
    }

    #[test]
    fn nothing_new_costs_no_look() {
        let (mut state, mut live) = (state(), LiveView::new(NOON));
        let id: NodeId = "n1".parse().unwrap();
        state.nodes.admit(NOON, &id, KeyFingerprint([0; 32]));
        let mut planner = Planner::new(Leading { fence: Fence { generation: 1, term: 1 }, since: NOON });
        assert!(plan(&state, &live, &mut planner, NOON).is_empty());
        planner.notice(&state, &live, NOON);
        assert!(planner.unsettled.is_empty());
        live.observe(&id, full(), NOON);
        planner.notice(&state, &live, NOON);
        assert_eq!(planner.unsettled.iter().collect::<Vec<_>>(), [&id]);
        planner.unsettled.clear();
        let alert = alert::AlertId { node: id.clone(), rule: alert::RuleId::FsSpace, target: b"/".to_vec() };
        let space = alert::Space { used: 99, available: 1 };
        let severity = mainstay_common::state::Severity::Warning;
        state.alerts.apply(NOON, &alert::Command::Pend(alert::Pend { alert, severity, space })).unwrap();
        planner.notice(&state, &live, NOON);
        assert_eq!(planner.unsettled.len(), 1, "somebody else changed its alerts");
        planner.unsettled.clear();
        planner.notice(&state, &live, NOON.plus(SWEEP_EVERY));
        assert_eq!(planner.unsettled.len(), 1, "everything is looked at every 30 s");
    }

    fn node(effect: &Effect) -> NodeId {
        let Effect::Propose(Command::Alert(alert::Command::Pend(pend))) = effect else { panic!("{effect:?}") };
        pend.alert.node.clone()
    }

    fn full() -> Sample {
        let mut readings = Readings::new();
        readings.set_count(&DISK_USED_BYTES, 99);
        readings.set_count(&DISK_AVAILABLE_BYTES, 1);
        let disk = Disk {
            device: Vec::new(),
            fs: "ext4".into(),
            state: DiskState::Ok,
            aliases: Vec::new(),
            readings,
            read_at: None,
            reason: String::new(),
        };
        let changed = vec![(b"/".to_vec(), disk)];
        let update = Update { read_at: NOON, whole: true, changed, removed: Vec::new(), left_out: 0 };
        Sample { disks: Some(update), ..Sample::default() }
    }

    fn state() -> State {
        State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        })
    }
}
