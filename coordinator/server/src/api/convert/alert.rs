//! Alerts, rules, receivers and deliveries.

use mainstay_common::{
    Timestamp,
    metric::catalogue::{DISK_AVAILABLE_BYTES, DISK_USED_BYTES},
    state::{AlertState, DeliveryState},
    unit,
};
use mainstay_core::{
    alert::{Alert, AlertId, Phase, Resolved, RuleId, Settings, Space, Where},
    notify::{self, Delivery, DeliveryId, Finished, Progress, Receiver, Standing, Subject},
};
use mainstay_proto::v1 as pb;

use super::Reading;
use crate::audit;

/// What `status` shows at most.
const SHOWN_FIRING: usize = 50;

/// An alert that is not over, with what was read of it last.
pub(crate) fn open(reading: &Reading, id: &AlertId, alert: &Alert) -> pb::AlertRow {
    row(id, alert, alert.state(), alert.state_since(), seen(reading, id).unwrap_or(alert.space))
}

/// An alert that is over.
pub(crate) fn resolved(id: &AlertId, over: &Resolved) -> pb::AlertRow {
    let mut row = row(id, &over.alert, AlertState::Resolved, over.at, over.alert.space);
    row.summary = format!("{}, {}", over.end.as_str(), String::from_utf8_lossy(&row.summary)).into_bytes();
    row
}

/// What the agent told last of that disk.
fn seen(reading: &Reading, id: &AlertId) -> Option<Space> {
    let disks = reading.live.node(&id.node)?.disks.as_ref()?;
    let disk = disks.rows.get(&id.target)?;
    let count = |metric| disk.readings.count(metric);
    Some(Space { used: count(&DISK_USED_BYTES)?, available: count(&DISK_AVAILABLE_BYTES)? })
}

fn row(id: &AlertId, alert: &Alert, state: AlertState, since: Timestamp, space: Space) -> pb::AlertRow {
    let size = u64::try_from(space.whole()).unwrap_or(u64::MAX);
    let left = format!("{} left of {}", unit::bytes(space.available), unit::bytes(size));
    pb::AlertRow {
        id: id.to_string(),
        rule: id.rule.to_string(),
        severity: alert.severity.number(),
        node: id.node.to_string(),
        target: id.target.clone(),
        state: state.number(),
        since_ms: since.0,
        value: Some(space.percent_available()),
        unit: "%".into(),
        summary: format!("{}% full, {left}", space.percent_used()).into_bytes(),
        acked_by: String::new(),
    }
}

/// What `status` says of alerts and deliveries.
pub(crate) fn summarise(reading: &Reading, status: &mut pb::GetStatusResponse) {
    let alerts = &reading.state.alerts;
    let mut firing: Vec<(&AlertId, &Alert)> = Vec::new();
    for (id, alert) in alerts.open() {
        match alert.phase {
            Phase::Firing => firing.push((id, alert)),
            Phase::Pending => status.pending += 1,
        }
    }
    status.firing = firing.len() as u64;
    firing.sort_by_key(|(_, alert)| (std::cmp::Reverse(alert.severity), alert.since));
    status.alerts = firing.into_iter().take(SHOWN_FIRING).map(|(id, alert)| open(reading, id, alert)).collect();
    let notifications = &reading.state.notifications;
    status.deliveries_owed = notifications.open().count() as u64;
    status.deliveries_given_up = notifications.finished().filter(|finished| is_given_up(finished)).count() as u64;
}

fn is_given_up(finished: &Finished) -> bool {
    matches!(finished.outcome, notify::Outcome::GivenUp(_))
}

/// The rules of the catalogue, and everything that declarations changed of them.
pub(crate) fn rules(reading: &Reading) -> Vec<pb::RuleRow> {
    let builtin = RuleId::ALL.iter().map(|rule| rule_row(*rule, None, &rule.settings()));
    let changed = reading.state.alerts.rules.iter();
    builtin
        .chain(changed.map(|(rule, place, change)| rule_row(rule, Some(place), &change.on(rule.settings()))))
        .collect()
}

/// The rule as it judges that place.
pub(crate) fn applied_rule(reading: &Reading, id: &AlertId) -> pb::RuleRow {
    let (settings, place) = reading.state.alerts.rules.settings(id.rule, id.node.as_str(), &id.target);
    rule_row(id.rule, place, &settings)
}

fn rule_row(rule: RuleId, place: Option<&Where>, settings: &Settings) -> pb::RuleRow {
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let narrowed = place.map(|place| [("node", &place.node), ("mount", &place.mount)]).into_iter().flatten();
    pb::RuleRow {
        name: rule.to_string(),
        r#match: narrowed.filter_map(|(key, value)| Some((key.into(), value.as_ref()?.to_string()))).collect(),
        builtin: place.is_none(),
        warning: settings.warning.to_string(),
        critical: settings.critical.to_string(),
        hold_ms: millis(settings.hold),
        critical_hold_ms: millis(settings.critical_hold),
        clear_margin: settings.clear_margin.to_string(),
        clear_hold_ms: millis(settings.clear_hold),
        help: rule.help().into(),
    }
}

/// A receiver and how it fares.
pub(crate) fn receiver(
    reading: &Reading,
    name: &mainstay_common::ReceiverName,
    receiver: &Receiver,
    standing: Option<&Standing>,
) -> pb::ReceiverRow {
    let notifications = &reading.state.notifications;
    let ended = || notifications.finished().filter(|finished| finished.id.receiver == *name);
    let failing = standing.and_then(|standing| standing.failing.as_ref());
    let refused = ended().filter_map(|finished| match &finished.outcome {
        notify::Outcome::GivenUp(reason) => Some((finished.at, reason)),
        notify::Outcome::Delivered => None,
    });
    let last = failing.map(|failing| (failing.since, &failing.reason)).or_else(|| refused.last());
    let Receiver::Webhook(webhook) = receiver;
    pb::ReceiverRow {
        name: name.to_string(),
        kind: "webhook".into(),
        target: webhook.address.shown(),
        allow_private_address: webhook.allow_private_address,
        owed: notifications.open().filter(|(id, _)| id.receiver == *name).count() as u64,
        delivered: ended().filter(|finished| !is_given_up(finished)).count() as u64,
        given_up: ended().filter(|finished| is_given_up(finished)).count() as u64,
        last_delivered_ms: standing.and_then(|standing| standing.delivered_at).map(|at| at.0),
        last_error: last.map(|(_, reason)| reason.clone().into_bytes()).unwrap_or_default(),
        last_error_ms: last.map(|(at, _)| at.0),
    }
}

/// What is owed, or ended lately, of those that are wanted; oldest first.
pub(crate) fn deliveries(reading: &Reading, wanted: impl Fn(&DeliveryId) -> bool) -> Vec<pb::DeliveryRow> {
    let notifications = &reading.state.notifications;
    let ended = notifications.finished().filter(|finished| wanted(&finished.id)).map(finished_row);
    ended
        .chain(notifications.open().filter(|(id, _)| wanted(id)).map(|(id, delivery)| owed_row(id, delivery)))
        .collect()
}

/// Whether a delivery is about that episode.
pub(crate) fn is_about(delivery: &DeliveryId, id: &AlertId, since: Timestamp) -> bool {
    delivery.since == since && matches!(&delivery.subject, Subject::Alert(alert) if alert == id)
}

fn event(id: &DeliveryId) -> String {
    match id.subject {
        Subject::Test => "test".into(),
        Subject::Alert(_) => id.event.as_str().into(),
    }
}

fn finished_row(finished: &Finished) -> pb::DeliveryRow {
    let (state, answer) = match &finished.outcome {
        notify::Outcome::Delivered => (DeliveryState::Delivered, String::new()),
        notify::Outcome::GivenUp(reason) => (DeliveryState::GivenUp, reason.clone()),
    };
    pb::DeliveryRow {
        id: finished.id.to_string(),
        receiver: finished.id.receiver.to_string(),
        event: event(&finished.id),
        state: state.number(),
        attempts: finished.attempts,
        owed_at_ms: finished.at.0,
        not_before_ms: None,
        done_at_ms: Some(finished.at.0),
        answer: answer.into_bytes(),
    }
}

fn owed_row(id: &DeliveryId, delivery: &Delivery) -> pb::DeliveryRow {
    let (state, not_before) = match delivery.progress {
        Progress::Owed(from) => (DeliveryState::Owed, Some(from.0)),
        Progress::Claimed(..) => (DeliveryState::Claimed, None),
    };
    pb::DeliveryRow {
        id: id.to_string(),
        receiver: id.receiver.to_string(),
        event: event(id),
        state: state.number(),
        attempts: delivery.attempts,
        owed_at_ms: delivery.owed_at.0,
        not_before_ms: not_before,
        done_at_ms: None,
        answer: delivery.reason.clone().unwrap_or_default().into_bytes(),
    }
}

/// A line of the audit trail.
pub(crate) fn audit_row(line: audit::Line) -> pb::AuditRow {
    pb::AuditRow {
        index: line.index,
        at_ms: line.at_ms,
        actor: line.actor,
        from: line.from,
        action: line.action,
        object: line.object,
        outcome: line.outcome,
        detail: line.detail.into_bytes(),
        through: line.through,
    }
}

/// States have one number on the wire and in the log.
#[cfg(test)]
mod tests {
    use mainstay_common::state::Severity;

    use super::*;

    #[test]
    fn words_and_numbers_are_those_of_the_wire() {
        for severity in Severity::ALL {
            let wire = pb::Severity::try_from(severity.number()).unwrap();
            assert_eq!(wire.as_str_name(), format!("SEVERITY_{}", severity.as_str().to_uppercase()));
        }
        for state in AlertState::ALL {
            let wire = pb::AlertState::try_from(state.number()).unwrap();
            assert_eq!(wire.as_str_name(), format!("ALERT_STATE_{}", state.as_str().to_uppercase()));
        }
        for state in DeliveryState::ALL {
            let wire = pb::DeliveryState::try_from(state.number()).unwrap();
            assert_eq!(wire.as_str_name(), format!("DELIVERY_STATE_{}", state.as_str().to_uppercase()));
        }
    }
}
