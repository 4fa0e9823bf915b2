//! What a message says.

use mainstay_common::{state::Severity, time::span};
use serde::Serialize;

use super::model::{Delivery, DeliveryId, Subject};
use crate::alert::{End, Event, Told, words};

/// A message in full: the JSON that a webhook gets has these fields. A repetition says the same, word for word.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// The delivery's name, by which a repetition is known.
    pub id: String,
    /// The alert's.
    pub alert: String,
    /// fired, escalated or resolved.
    pub event: &'static str,
    /// The rule's name.
    pub rule: &'static str,
    /// warning or critical: the worst of the episode.
    pub severity: &'static str,
    /// The machine; empty in a test.
    pub node: String,
    /// The mount's path, exact; the receiver's name in a test.
    pub target: String,
    /// What the rule looks at: of `fs.space` the available percent, with one digit behind the point.
    pub value: Option<f64>,
    /// One line.
    pub summary: String,
    /// All that a person needs, in lines.
    pub text: String,
    /// When the episode began, RFC 3339.
    pub since: String,
    /// The cluster's name.
    pub cluster: String,
}

impl Message {
    /// What is owed, in words.
    #[must_use]
    pub fn of(id: &DeliveryId, delivery: &Delivery, cluster: &str) -> Self {
        let head = Self {
            id: id.to_string(),
            alert: id.alert(),
            event: id.event.as_str(),
            rule: "test",
            severity: Severity::Warning.as_str(),
            node: String::new(),
            target: id.receiver.to_string(),
            value: None,
            summary: format!("TEST {cluster}: receiver {} works", id.receiver),
            text: String::new(),
            since: id.since.to_string(),
            cluster: cluster.to_owned(),
        };
        match (&id.subject, &delivery.told) {
            (Subject::Alert(alert), Some(told)) => {
                let summary = summary(told);
                Self {
                    rule: alert.rule.as_str(),
                    severity: told.severity.as_str(),
                    node: alert.node.to_string(),
                    target: mainstay_common::text::exact(&alert.target),
                    value: Some(told.space.value()),
                    text: format!("{summary}\n{}\n{} ({cluster})", details(told), id.alert()),
                    summary,
                    ..head
                }
            }
            (Subject::Alert(_) | Subject::Test, _) => {
                let text = format!("{}\nSomebody asked for this message: nothing is wrong.", head.summary);
                Self { text, ..head }
            }
        }
    }
}

/// One line.
fn summary(told: &Told) -> String {
    let (place, after) = (told.alert.place(), span(told.at.since(told.since)));
    match (told.event, told.end) {
        (Event::Fired | Event::Escalated, _) => words::summary(&told.alert, told.severity, told.space),
        (Event::Resolved, Some(end @ (End::Gone | End::NodeRemoved))) => {
            format!("OK {place}: {}, after {after}", end.as_str())
        }
        (Event::Resolved, _) => format!("OK {place} {}, after {after}", told.space.shown()),
    }
}

fn details(told: &Told) -> String {
    let node = &told.alert.node;
    let advice = format!("Do: mainstay disk ls --node {node}; free space there, or enlarge the filesystem.");
    match told.event {
        Event::Fired => format!("It is so since {}.\n{advice}", told.since),
        Event::Escalated => format!("It was a warning since {}, and is critical now.\n{advice}", told.since),
        Event::Resolved => format!("It began at {} and ended at {}.", told.since, told.at),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_common::Timestamp;

    use super::*;
    use crate::{
        alert::{AlertId, RuleId, Space},
        notify::Progress,
    };

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_message_says_how_bad_where_what_and_what_to_do() {
        let message = message(Event::Fired, Severity::Warning, None);
        assert_eq!(message.summary, "WARN n1 /data 91 % full, 9.00 GiB left of 100 GiB");
        assert_eq!(message.value, Some(9.0));
        let lines: Vec<&str> = message.text.lines().collect();
        assert_eq!(lines[0], message.summary);
        assert_eq!(lines[1], "It is so since 1970-01-01T00:00:00.000Z.");
        assert!(lines[2].starts_with("Do: mainstay disk ls --node n1;"), "{}", lines[2]);
        assert_eq!(lines[3], "fs.space/n1//data (prod)");
    }

    #[test]
    fn an_end_says_why_and_how_long_it_was() {
        let end = |end| message(Event::Resolved, Severity::Critical, Some(end)).summary;
        assert_eq!(end(End::Cleared), "OK n1 /data 91 % full, 9.00 GiB left of 100 GiB, after 42m");
        assert_eq!(end(End::Gone), "OK n1 /data: no longer mounted, after 42m");
        assert_eq!(end(End::NodeRemoved), "OK n1 /data: the node was removed, after 42m");
    }

    #[test]
    fn a_path_cannot_write_lines_of_its_own() {
        let mut told = told(Event::Fired, Severity::Critical, None);
        told.alert.target = b"/a\n@everyone\x1b[2J".to_vec();
        assert_eq!(summary(&told).lines().count(), 1);
        assert!(summary(&told).starts_with("CRIT n1 /a\\n@everyone\\x1b[2J "));
    }

    fn message(event: Event, severity: Severity, end: Option<End>) -> Message {
        let told = told(event, severity, end);
        let id = DeliveryId {
            receiver: "ops".parse().unwrap(),
            subject: Subject::Alert(told.alert.clone()),
            since: told.since,
            event,
        };
        let delivery = Delivery {
            told: Some(told),
            owed_at: Timestamp(0),
            attempts: 1,
            progress: Progress::Owed(Timestamp(0)),
            heard: false,
            reason: None,
        };
        Message::of(&id, &delivery, "prod")
    }

    fn told(event: Event, severity: Severity, end: Option<End>) -> Told {
        let alert = AlertId { node: "n1".parse().unwrap(), rule: RuleId::FsSpace, target: b"/data".to_vec() };
        let space = Space { used: 91 * GIB, available: 9 * GIB };
        Told { alert, since: Timestamp(0), event, at: Timestamp(42 * 60_000), severity, space, end }
    }
}
