use super::*;
use crate::alert::RuleId;

const NOON: Timestamp = Timestamp(43_200_000);
const FULL: Space = Space { used: 96, available: 4 };

#[test]
fn a_proposal_of_yesterday_changes_nothing() {
    let mut alerts = pending();
    let old = episode(&alerts);
    apply(&mut alerts, &Command::Turn(old.clone(), Turn::Critical, None)).unwrap();
    let before = alerts.clone();
    for late in [
        Command::Fire(old.clone(), Severity::Warning, FULL),
        Command::Drop(old.clone(), End::Cleared),
        Command::Unknown(old.clone()),
        Command::Turn(old, Turn::Warning, None),
    ] {
        assert_eq!(apply(&mut alerts, &late), Err(Rejected::Changed(id())));
    }
    assert_eq!(alerts, before);
}

#[test]
fn an_alert_is_found_by_its_text() {
    let alerts = pending();
    assert_eq!(alerts.find("fs.space/n1//data").map(|(found, _)| found), Some(&id()));
    for none in ["", "fs.space", "fs.space/n1/", "fs.space/n2//data", "fs.space/n1//data/"] {
        assert_eq!(alerts.find(none), None, "{none}");
    }
}

#[test]
fn what_never_fired_never_resolves() {
    let mut alerts = pending();
    let now = episode(&alerts);
    let resolve = Command::Resolve(now.clone(), End::Cleared, None);
    assert_eq!(apply(&mut alerts, &resolve), Err(Rejected::Phase(id())));
    apply(&mut alerts, &Command::Drop(now, End::Cleared)).unwrap();
    assert_eq!((alerts.open.len(), alerts.resolved.len()), (0, 0));
}

#[test]
fn severity_is_the_worst_of_the_episode() {
    let mut alerts = pending();
    let fire = Command::Fire(episode(&alerts), Severity::Warning, FULL);
    assert!(matches!(apply(&mut alerts, &fire), Ok(Consequence::Told(Told { event: Event::Fired, .. }))));
    let escalate = Command::Escalate(episode(&alerts), FULL);
    apply(&mut alerts, &escalate).unwrap();
    let calmer = Command::Turn(episode(&alerts), Turn::Warning, None);
    apply(&mut alerts, &calmer).unwrap();
    let resolve = Command::Resolve(episode(&alerts), End::Cleared, None);
    let Ok(Consequence::Told(told)) = apply(&mut alerts, &resolve) else { panic!("it resolves") };
    assert_eq!((told.event, told.severity), (Event::Resolved, Severity::Critical));
}

#[test]
fn two_episodes_never_share_a_name_also_when_the_clock_was_put_back() {
    let mut alerts = pending();
    let fire = Command::Fire(episode(&alerts), Severity::Warning, FULL);
    apply(&mut alerts, &fire).unwrap();
    let resolve = Command::Resolve(episode(&alerts), End::Cleared, None);
    apply(&mut alerts, &resolve).unwrap();
    apply(&mut alerts, &pend()).unwrap();
    assert_eq!(alerts.get(&id()).unwrap().since, Timestamp(NOON.0 + 1));
}

#[test]
fn the_history_is_bounded_and_forgets_the_oldest() {
    let mut alerts = Alerts::default();
    for second in 0..=MAX_RESOLVED {
        let at = NOON.plus(std::time::Duration::from_secs(second as u64));
        alerts.apply(at, &pend()).unwrap();
        let fire = Command::Fire(episode(&alerts), Severity::Warning, FULL);
        alerts.apply(at, &fire).unwrap();
        let resolve = Command::Resolve(episode(&alerts), End::Cleared, None);
        alerts.apply(at, &resolve).unwrap();
    }
    assert_eq!(alerts.resolved.len(), MAX_RESOLVED);
    assert!(alerts.resolved().all(|(_, resolved)| resolved.at > NOON));
}

#[test]
fn a_removed_node_takes_its_alerts_along_and_only_what_fired_is_told() {
    let mut alerts = pending();
    let other =
        Pend { alert: AlertId { target: b"/other".to_vec(), ..id() }, severity: Severity::Warning, space: FULL };
    apply(&mut alerts, &Command::Pend(other)).unwrap();
    let fire = Command::Fire(episode(&alerts), Severity::Warning, FULL);
    apply(&mut alerts, &fire).unwrap();
    let told = alerts.node_removed(NOON, &id().node);
    assert_eq!(told.iter().map(|told| (&told.alert, told.end)).collect::<Vec<_>>(), [(&id(), Some(End::NodeRemoved))]);
    assert!(alerts.open.is_empty());
}

fn id() -> AlertId {
    AlertId { node: "n1".parse().unwrap(), rule: RuleId::FsSpace, target: b"/data".to_vec() }
}

fn pend() -> Command {
    Command::Pend(Pend { alert: id(), severity: Severity::Warning, space: FULL })
}

fn pending() -> Alerts {
    let mut alerts = Alerts::default();
    apply(&mut alerts, &pend()).unwrap();
    alerts
}

fn episode(alerts: &Alerts) -> Episode {
    let alert = alerts.get(&id()).unwrap();
    Episode { alert: id(), since: alert.since, step: alert.step }
}

fn apply(alerts: &mut Alerts, command: &Command) -> Result<Consequence, Rejected> {
    alerts.apply(NOON, command)
}
