//! How samples change the view.

use std::sync::Arc;

use mainstay_common::{
    NodeId, Timestamp,
    state::{EngineState, NodeState},
};

use super::{
    Hello, LiveView, NodeView, Seen, cpu, lease,
    sample::{Sample, Update},
};
use crate::Table;

/// Clocks closer than this count as equal: the network's delay is in the difference too.
const CLOCK_TOLERANCE_MS: i64 = 2_000;

impl LiveView {
    /// An agent's session began. What it saw before stays, and ages, until it sends anew.
    pub fn hello(&mut self, id: &NodeId, hello: Hello, sent_at: Timestamp, now: Timestamp) {
        let since = self.listening_since;
        let view = self.node_mut(id);
        let ahead = sent_at.0.saturating_sub(now.0);
        view.clock_ahead_ms = if ahead.abs() < CLOCK_TOLERANCE_MS { 0 } else { ahead };
        view.hello = Some(hello);
        view.session_since = Some(now);
        seen(view, since, now);
    }

    /// A sample arrived.
    pub fn observe(&mut self, id: &NodeId, sample: Sample, now: Timestamp) {
        let since = self.listening_since;
        let view = self.node_mut(id);
        let ahead = view.clock_ahead_ms;
        seen(view, since, now);
        block(&mut view.host, sample.host, |host| host.read_at);
        update(&mut view.disks, sample.disks, ahead, now);
        update(&mut view.mounts, sample.mounts, ahead, now);
        update(&mut view.volumes, sample.volumes, ahead, now);
        let before = view.containers.clone();
        if update(&mut view.containers, sample.containers, ahead, now)
            && let Some(containers) = &mut view.containers
        {
            cpu::rates(before.as_ref(), containers);
        }
        block(&mut view.engine, sample.engine, |engine| engine.read_at);
        block(&mut view.swarm, sample.swarm, |swarm| swarm.read_at);
        if *view.errors != sample.errors {
            view.errors = Arc::new(sample.errors);
        }
        if let Some(agent) = sample.agent {
            view.agent = agent;
        }
    }
}

impl NodeView {
    /// Whether containers and volumes are known now.
    #[must_use]
    pub fn engine_answers(&self) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.state == EngineState::Ok)
    }

    /// A moment of this node's clock, by ours.
    #[must_use]
    pub fn corrected(&self, at: Timestamp) -> Timestamp {
        corrected(at, self.clock_ahead_ms)
    }
}

/// The moment of a reading by our clock, from the agent's and how far that is ahead.
fn corrected(at: Timestamp, ahead_ms: i64) -> Timestamp {
    Timestamp(at.0.saturating_sub(ahead_ms))
}

fn seen(view: &mut NodeView, listening_since: Timestamp, now: Timestamp) {
    let before = lease::presence(Some(view), now, listening_since, now);
    if before.state != NodeState::Ready || view.ready_since.is_none() {
        view.ready_since = Some(now);
    }
    view.last_seen = Some(now);
}

/// Replaces a block; one that was read at 0 is not known any longer.
fn block<B>(there: &mut Option<Arc<B>>, fresh: Option<B>, read_at: impl Fn(&B) -> Timestamp) {
    if let Some(fresh) = fresh {
        *there = (read_at(&fresh) != Timestamp(0)).then(|| Arc::new(fresh));
    }
}

/// Applies a change to a table; false where there is none.
fn update<R: Clone>(table: &mut Option<Seen<R>>, update: Option<Update<R>>, ahead_ms: i64, now: Timestamp) -> bool {
    let Some(update) = update else { return false };
    if update.is_unknown() {
        // What was there stays and ages; of containers and volumes the engine's state says that nothing is known now.
        return false;
    }
    let read_at = corrected(update.read_at, ahead_ms).min(now);
    let mut rows = match table.take() {
        Some(seen) if !update.whole => seen.rows,
        _ => Table::default(),
    };
    for key in &update.removed {
        rows.remove(key);
    }
    for (key, row) in update.changed {
        rows.insert(key, Arc::new(row));
    }
    *table = Some(Seen { read_at, rows, left_out: update.left_out });
    true
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_common::{
        metric::{Readings, catalogue::CONTAINER_CPU_SECONDS_TOTAL},
        state::{ContainerState, HealthState},
    };

    use super::*;
    use crate::live::{Container, presence};

    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn rows_join_change_and_leave() {
        let mut view = LiveView::new(NOON);
        observe(&mut view, 0, true, &[("a", 1.0), ("b", 1.0)], &[]);
        observe(&mut view, 10, false, &[("b", 2.0), ("c", 0.0)], &["a"]);
        assert_eq!(names(&view), ["b", "c"]);
        observe(&mut view, 20, true, &[("d", 0.0)], &[]);
        assert_eq!(names(&view), ["d"]);
    }

    #[test]
    fn a_table_that_is_unknown_now_is_not_empty() {
        let mut view = LiveView::new(NOON);
        observe(&mut view, 0, true, &[("a", 1.0)], &[]);
        let unknown =
            Update { read_at: Timestamp(0), whole: true, changed: Vec::new(), removed: Vec::new(), left_out: 0 };
        view.observe(&node(), Sample { containers: Some(unknown), ..Sample::default() }, NOON);
        assert_eq!(names(&view), ["a"]);
    }

    #[test]
    fn cpu_use_is_the_rate_between_two_readings() {
        let mut view = LiveView::new(NOON);
        observe(&mut view, 0, true, &[("busy", 1.0), ("idle", 5.0), ("restarted", 9.0)], &[]);
        assert_eq!(cpu(&view, "busy"), None);
        observe(&mut view, 10, false, &[("busy", 6.0), ("restarted", 0.5)], &[]);
        assert_eq!(cpu(&view, "busy"), Some(50.0));
        assert_eq!(cpu(&view, "idle"), Some(0.0));
        assert_eq!(cpu(&view, "restarted"), None);
    }

    #[test]
    fn what_changed_since_a_count_is_known_once_each() {
        let mut view = LiveView::new(NOON);
        let (n1, n2): (NodeId, NodeId) = ("n1".parse().unwrap(), "n2".parse().unwrap());
        view.observe(&n1, Sample::default(), NOON);
        let count = view.changes();
        assert_eq!(view.changed_since(count).count(), 0);
        view.observe(&n2, Sample::default(), NOON);
        view.observe(&n1, Sample::default(), NOON);
        view.observe(&n1, Sample::default(), NOON);
        assert_eq!(view.changed_since(count).collect::<Vec<_>>(), [&n2, &n1]);
        view.forget(&n1);
        assert_eq!(view.changed_since(count).collect::<Vec<_>>(), [&n2]);
        assert!(view.changes() > count);
    }

    #[test]
    fn moments_of_a_clock_that_is_ahead_are_put_right() {
        let mut view = LiveView::new(NOON);
        let ahead = NOON.plus(Duration::from_secs(3_600));
        view.hello(&node(), hello(), ahead, NOON);
        let update = Update { read_at: ahead, whole: true, changed: Vec::new(), removed: Vec::new(), left_out: 0 };
        view.observe(&node(), Sample { disks: Some(update), ..Sample::default() }, NOON);
        assert_eq!(view.node(&node()).unwrap().disks.as_ref().unwrap().read_at, NOON);
    }

    #[test]
    fn a_gap_starts_a_new_ready_time() {
        let mut view = LiveView::new(NOON);
        let state = |view: &LiveView, at| presence(view.node(&node()), NOON, NOON, at);
        view.hello(&node(), hello(), NOON, NOON);
        let soon = NOON.plus(Duration::from_secs(20));
        view.observe(&node(), Sample::default(), soon);
        assert_eq!(state(&view, soon).since, Some(NOON));
        let late = NOON.plus(Duration::from_secs(300));
        assert_eq!(state(&view, late).state, NodeState::Unreachable);
        view.observe(&node(), Sample::default(), late);
        assert_eq!(state(&view, late).since, Some(late));
    }

    fn observe(view: &mut LiveView, second: u64, whole: bool, rows: &[(&str, f64)], removed: &[&str]) {
        let at = NOON.plus(Duration::from_secs(second));
        let changed = rows.iter().map(|(name, cpu)| (name.as_bytes().to_vec(), container(name, *cpu))).collect();
        let removed = removed.iter().map(|name| name.as_bytes().to_vec()).collect();
        let update = Update { read_at: at, whole, changed, removed, left_out: 0 };
        view.observe(&node(), Sample { containers: Some(update), ..Sample::default() }, at);
    }

    fn container(name: &str, cpu: f64) -> Container {
        let mut readings = Readings::new();
        readings.set(&CONTAINER_CPU_SECONDS_TOTAL, cpu);
        Container {
            name: name.into(),
            image: String::new(),
            state: ContainerState::Running,
            health: HealthState::None,
            started_at: None,
            exit_code: None,
            readings,
            cpu_percent: None,
            service: String::new(),
            task: String::new(),
            stack: String::new(),
            labels: std::collections::BTreeMap::new(),
            labels_left_out: 0,
        }
    }

    fn names(view: &LiveView) -> Vec<String> {
        let containers = view.node(&node()).unwrap().containers.as_ref().unwrap();
        containers.rows.iter().map(|(_, row)| row.name.clone()).collect()
    }

    fn cpu(view: &LiveView, name: &str) -> Option<f64> {
        let containers = view.node(&node()).unwrap().containers.as_ref().unwrap();
        containers.rows.get(name.as_bytes()).unwrap().cpu_percent
    }

    fn hello() -> Hello {
        Hello { version: "1".into(), boot_id: "b".into(), interval: Duration::from_secs(10) }
    }

    fn node() -> NodeId {
        "n1".parse().unwrap()
    }
}
