//! What to do about alerts: each place is judged by its last reading, never by the lack of one.

use std::time::Duration;

use mainstay_common::{
    NodeId, Timestamp,
    metric::catalogue::{DISK_AVAILABLE_BYTES, DISK_READONLY, DISK_USED_BYTES},
    state::{DiskState, NodeState, Severity},
};

use super::{
    apply::{Command, Known, Pend, Turn},
    model::{Alert, AlertId, End, Episode, Phase, RuleId, Space},
    quantity::Percent,
    rule::Settings,
};
use crate::{
    State,
    live::{Disk, LiveView, NodeView, lease_of, presence, stale_after_of},
};

/// The collector that reads disks, as it calls itself in errors.
const COLLECTOR: &str = "disk";

/// What one look at a node came to.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// What to propose.
    pub(crate) commands: Vec<Command>,
    /// When to look again although nothing new came in; `None`: not before something new.
    pub(crate) again: Option<Timestamp>,
}

/// What is seen of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// A reading that counts, and when it was taken.
    Fresh(Space, Timestamp),
    /// The node is there and complete, and this place is not; when that was read.
    Absent(Timestamp),
    /// It is there, but the rule is not about it: read-only, or of size 0.
    Unfed,
    /// The last reading is a little old: nothing changes.
    Old,
    /// There was no reading for a whole lease.
    Lost,
}

/// Looks at one node: its disks, and its alerts.
pub(crate) fn look(state: &State, live: &LiveView, id: &NodeId, now: Timestamp, leading_since: Timestamp) -> Look {
    let mut look = Look::default();
    let Some(node) = state.nodes.member(id) else { return look };
    let view = live.node(id);
    let presence = presence(view, node.enrolled_at, live.listening_since, now).state;
    let eye = Eye { view, presence, now, leading_since, listening_since: live.listening_since };
    let mut seen = Vec::new();
    for (mount, row) in view.iter().filter_map(|view| view.disks.as_ref()).flat_map(|disks| disks.rows.iter()) {
        let alert = target(state, id, mount, row);
        let sight = eye.of_row(row);
        let settings = || state.alerts.rules.settings(alert.rule, id.as_str(), &alert.target).0;
        let open = state.alerts.get(&alert);
        if let Some(command) = decide(&alert, open, sight, settings) {
            look.commands.push(command);
        }
        if open.is_some() {
            look.again = earliest(look.again, eye.changes_at(Some(row)));
            seen.push(alert);
        }
    }
    for (alert, open) in state.alerts.of_node(id) {
        if seen.contains(alert) {
            continue;
        }
        let settings = || state.alerts.rules.settings(alert.rule, id.as_str(), &alert.target).0;
        look.commands.extend(decide(alert, Some(open), eye.of_nothing(), settings));
        look.again = earliest(look.again, eye.changes_at(None));
    }
    look
}

/// The alert that a disk belongs to: the one of its mount, or one that was raised when it went by another of its names.
fn target(state: &State, node: &NodeId, mount: &[u8], row: &Disk) -> AlertId {
    let named = |target: &[u8]| AlertId { node: node.clone(), rule: RuleId::FsSpace, target: target.to_vec() };
    let alert = named(mount);
    if row.aliases.is_empty() || state.alerts.get(&alert).is_some() {
        return alert;
    }
    row.aliases.iter().map(|alias| named(alias)).find(|alias| state.alerts.get(alias).is_some()).unwrap_or(alert)
}

fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    [a, b].into_iter().flatten().min()
}

/// Whoever looks: from here, now.
struct Eye<'a> {
    view: Option<&'a NodeView>,
    presence: NodeState,
    now: Timestamp,
    leading_since: Timestamp,
    listening_since: Timestamp,
}

impl Eye<'_> {
    fn of_row(&self, row: &Disk) -> Sight {
        let Some(view) = self.view.filter(|_| self.presence == NodeState::Ready) else { return self.of_silence() };
        let read_at = self.read_at(view, Some(row));
        match space(row) {
            Some(space) if self.is_fresh(read_at) => {
                let readonly = row.state == DiskState::Readonly || row.readings.get(&DISK_READONLY) == Some(1.0);
                if readonly || space.whole() == 0 { Sight::Unfed } else { Sight::Fresh(space, read_at) }
            }
            Some(_) => self.old_or_lost(read_at),
            None => self.old_or_lost(self.blind_since(view)),
        }
    }

    /// What an alert is to think whose disk is not in the table.
    fn of_nothing(&self) -> Sight {
        let Some(view) = self.view.filter(|_| self.presence == NodeState::Ready) else { return self.of_silence() };
        let complete = complaint(view).is_none();
        match view.disks.as_ref().filter(|disks| complete && disks.left_out == 0) {
            // A leader that just came has perhaps not seen everything yet.
            Some(disks) if self.is_fresh(disks.read_at) && self.now >= self.patience() => Sight::Absent(disks.read_at),
            Some(disks) => self.old_or_lost(disks.read_at),
            None => self.old_or_lost(self.blind_since(view)),
        }
    }

    fn is_fresh(&self, read_at: Timestamp) -> bool {
        self.now.since(read_at) <= stale_after_of(self.view)
    }

    /// Since when a node that talks says nothing of a disk: since its session began, or its collector complains.
    fn blind_since(&self, view: &NodeView) -> Timestamp {
        let since = [view.session_since, view.ready_since, complaint(view)];
        since.into_iter().flatten().max().unwrap_or(self.now)
    }

    fn of_silence(&self) -> Sight {
        let lost = self.presence == NodeState::Unreachable || self.presence == NodeState::Pending;
        if lost && self.now >= self.patience() { Sight::Lost } else { Sight::Old }
    }

    fn old_or_lost(&self, read_at: Timestamp) -> Sight {
        let lost = self.now >= read_at.plus(lease_of(self.view)) && self.now >= self.patience();
        if lost { Sight::Lost } else { Sight::Old }
    }

    /// When this leader may judge what is missing: one lease after it began.
    fn patience(&self) -> Timestamp {
        self.leading_since.plus(lease_of(self.view))
    }

    /// When a disk was read: with its table, unless its sizes are older.
    fn read_at(&self, view: &NodeView, row: Option<&Disk>) -> Timestamp {
        let table = view.disks.as_ref().map_or(self.now, |disks| disks.read_at);
        let own = row.and_then(|row| row.read_at).map(|at| view.corrected(at));
        own.map_or(table, |own| own.min(table)).min(self.now)
    }

    /// The next moment at which a look may come to something else without anything new.
    fn changes_at(&self, row: Option<&Disk>) -> Option<Timestamp> {
        let lease = lease_of(self.view);
        let mut moments = vec![self.leading_since, self.listening_since];
        if let Some(view) = self.view {
            let blind_since = self.blind_since(view);
            moments.extend([self.read_at(view, row), blind_since]);
            moments.extend(view.last_seen);
        }
        moments.into_iter().map(|moment| moment.plus(lease)).filter(|moment| *moment > self.now).min()
    }
}

/// Since when the collector of disks complains: then what is missing may be there all the same.
fn complaint(view: &NodeView) -> Option<Timestamp> {
    let error = view.errors.iter().find(|error| error.collector == COLLECTOR)?;
    Some(view.corrected(error.since))
}

fn space(row: &Disk) -> Option<Space> {
    let used = row.readings.count(&DISK_USED_BYTES)?;
    let available = row.readings.count(&DISK_AVAILABLE_BYTES)?;
    Some(Space { used, available })
}

/// The one next change of an alert, if there is any.
fn decide(id: &AlertId, open: Option<&Alert>, sight: Sight, settings: impl Fn() -> Settings) -> Option<Command> {
    let Some(alert) = open else {
        let Sight::Fresh(space, _) = sight else { return None };
        let severity = level(&settings(), space)?;
        return Some(Command::Pend(Pend { alert: id.clone(), severity, space }));
    };
    let episode = || Episode { alert: id.clone(), since: alert.since, step: alert.step };
    let (unknown, pending) = (alert.unknown_since.is_some(), alert.phase == Phase::Pending);
    match sight {
        Sight::Old => None,
        Sight::Unfed if pending => Some(Command::Drop(episode(), End::Cleared)),
        Sight::Absent(_) if pending => Some(Command::Drop(episode(), End::Gone)),
        Sight::Unfed | Sight::Lost => (!unknown).then(|| Command::Unknown(episode())),
        Sight::Absent(_) if unknown => Some(Command::Known(episode(), Known { critical: false, space: None })),
        Sight::Absent(read_at) => match alert.clear_since {
            None => Some(Command::Turn(episode(), Turn::Clear, None)),
            Some(since) => {
                held(since, settings().clear_hold, read_at).then(|| Command::Resolve(episode(), End::Gone, None))
            }
        },
        Sight::Fresh(space, read_at) => judge(&episode, alert, space, read_at, &settings()),
    }
}

/// What a reading means for an alert.
fn judge(
    episode: &impl Fn() -> Episode,
    alert: &Alert,
    space: Space,
    read_at: Timestamp,
    settings: &Settings,
) -> Option<Command> {
    let now = level(settings, space);
    let critical = now == Some(Severity::Critical);
    let long_critical = |since| critical && held(since, settings.critical_hold, read_at);
    let turn = |turn| Some(Command::Turn(episode(), turn, Some(space)));
    let pending = alert.phase == Phase::Pending;
    if pending && now.is_none() {
        return Some(Command::Drop(episode(), End::Cleared));
    }
    if alert.unknown_since.is_some() {
        return Some(Command::Known(episode(), Known { critical, space: Some(space) }));
    }
    // Above the level is not enough: it has to be a margin above, for a while.
    let holds = |level: super::quantity::Level| level.holds(space, settings.clear_margin);
    let gone = !pending && !holds(settings.warning) && !holds(settings.critical);
    match (gone, alert.clear_since) {
        (true, None) => return turn(Turn::Clear),
        (true, Some(since)) => {
            let over = held(since, settings.clear_hold, read_at);
            return over.then(|| Command::Resolve(episode(), End::Cleared, Some(space)));
        }
        (false, Some(_)) => return turn(Turn::Back),
        (false, None) => {}
    }
    let can_escalate = pending || alert.severity == Severity::Warning;
    match alert.critical_since {
        None if critical && can_escalate => turn(Turn::Critical),
        Some(_) if !critical => turn(Turn::Warning),
        Some(since) if pending && long_critical(since) => Some(Command::Fire(episode(), Severity::Critical, space)),
        Some(since) if alert.severity == Severity::Warning && long_critical(since) => {
            Some(Command::Escalate(episode(), space))
        }
        // Not critical for long, but bad for long.
        _ if pending && held(alert.held_since, settings.hold, read_at) => {
            Some(Command::Fire(episode(), Severity::Warning, space))
        }
        _ => None,
    }
}

/// How bad a reading is.
fn level(settings: &Settings, space: Space) -> Option<Severity> {
    if settings.critical.holds(space, Percent(0)) {
        Some(Severity::Critical)
    } else if settings.warning.holds(space, Percent(0)) {
        Some(Severity::Warning)
    } else {
        None
    }
}

/// Whether what began then had lasted long enough when the reading was taken.
fn held(since: Timestamp, hold: Duration, read_at: Timestamp) -> bool {
    hold.is_zero() || read_at >= since.plus(hold)
}

#[cfg(test)]
mod tests {
    use mainstay_common::metric::Readings;

    use super::*;
    use crate::{
        Founding, KeyFingerprint,
        alert::Consequence,
        live::{CollectorError, Hello, Sample, Update},
    };

    const NOON: Timestamp = Timestamp(43_200_000);
    const FULL: Space = Space { used: 91, available: 9 };

    #[test]
    fn a_disk_that_goes_by_another_of_its_names_keeps_its_alert() {
        let (state, mut live) = firing();
        let other = Disk { aliases: vec![b"/data".to_vec()], ..disk(Some(FULL)) };
        observe(&mut live, 60, &[("/mnt/data", other)], None, 0);
        assert_eq!(commands(&state, &live, 60), []);
        let gone = Disk { aliases: vec![b"/data".to_vec()], ..disk(Some(Space { used: 1, available: 99 })) };
        observe(&mut live, 61, &[("/mnt/data", gone)], None, 0);
        let [Command::Turn(episode, Turn::Clear, _)] = &commands(&state, &live, 61)[..] else { panic!("it is gone") };
        assert_eq!(episode.alert.target, b"/data");
    }

    #[test]
    fn what_is_missing_where_not_all_is_told_is_not_gone() {
        let seen = |error, left_out| {
            let (state, mut live) = firing();
            observe(&mut live, 100, &[], error, left_out);
            commands(&state, &live, 100)
        };
        assert!(matches!(seen(None, 0)[..], [Command::Turn(_, Turn::Clear, _)]));
        assert!(matches!(seen(Some("mount"), 0)[..], [Command::Turn(_, Turn::Clear, _)]));
        assert_eq!(seen(Some("disk"), 0), [], "its collector complains for a moment only");
        assert!(matches!(seen(None, 3)[..], [Command::Unknown(_)]), "three rows too many since its session began");
    }

    #[test]
    fn a_reading_that_is_older_than_its_table_is_judged_by_its_own_age() {
        let (state, mut live) = firing();
        let old = |seconds: u64| Disk {
            read_at: Some(NOON.plus(Duration::from_secs(seconds))),
            ..disk(Some(Space { used: 1, available: 99 }))
        };
        observe(&mut live, 100, &[("/data", old(40))], None, 0);
        assert_eq!(commands(&state, &live, 100), [], "a minute old: it decides nothing");
        observe(&mut live, 131, &[("/data", old(40))], None, 0);
        assert!(matches!(commands(&state, &live, 131)[..], [Command::Unknown(_)]), "older than the lease of 90 s");
        observe(&mut live, 132, &[("/data", old(120))], None, 0);
        assert!(matches!(commands(&state, &live, 132)[..], [Command::Turn(_, Turn::Clear, _)]));
    }

    /// A state with one alert that fires, and a node that talked since noon.
    fn firing() -> (State, LiveView) {
        let (mut state, mut live) = (
            State::founded(Founding {
                id: "c1".parse().unwrap(),
                name: "prod".into(),
                replica: "r1".parse().unwrap(),
                address: "h:1".into(),
            }),
            LiveView::new(NOON),
        );
        state.nodes.admit(NOON, &node(), KeyFingerprint([1; 32]));
        live.hello(&node(), hello(), NOON, NOON);
        let alert = AlertId { node: node(), rule: RuleId::FsSpace, target: b"/data".to_vec() };
        let pend = Pend { alert: alert.clone(), severity: Severity::Warning, space: FULL };
        state.alerts.apply(NOON, &Command::Pend(pend)).unwrap();
        let episode = Episode { alert, since: NOON, step: 0 };
        let fired = state.alerts.apply(NOON, &Command::Fire(episode, Severity::Warning, FULL));
        assert!(matches!(fired, Ok(Consequence::Told(_))));
        for second in (0..100).step_by(10) {
            live.observe(&node(), Sample::default(), NOON.plus(Duration::from_secs(second)));
        }
        (state, live)
    }

    fn observe(live: &mut LiveView, second: u64, disks: &[(&str, Disk)], error: Option<&str>, left_out: u64) {
        let at = NOON.plus(Duration::from_secs(second));
        let changed = disks.iter().map(|(mount, disk)| (mount.as_bytes().to_vec(), disk.clone())).collect();
        let update = Update { read_at: at, whole: true, changed, removed: Vec::new(), left_out };
        let complaint =
            |collector: &str| CollectorError { collector: collector.into(), reason: "late".into(), since: at };
        let errors = error.map(complaint).into_iter().collect();
        live.observe(&node(), Sample { disks: Some(update), errors, ..Sample::default() }, at);
    }

    fn commands(state: &State, live: &LiveView, second: u64) -> Vec<Command> {
        look(state, live, &node(), NOON.plus(Duration::from_secs(second)), NOON).commands
    }

    fn disk(space: Option<Space>) -> Disk {
        let mut readings = Readings::new();
        readings.set_count(&DISK_USED_BYTES, space.map(|space| space.used));
        readings.set_count(&DISK_AVAILABLE_BYTES, space.map(|space| space.available));
        Disk {
            device: b"/dev/vda".to_vec(),
            fs: "ext4".into(),
            state: DiskState::Ok,
            aliases: Vec::new(),
            readings,
            read_at: None,
            reason: String::new(),
        }
    }

    fn hello() -> Hello {
        Hello { version: "1".into(), boot_id: "b".into(), interval: Duration::from_secs(10) }
    }

    fn node() -> NodeId {
        "n1".parse().unwrap()
    }
}
