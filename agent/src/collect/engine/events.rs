//! What the engine tells of by itself: which events are asked for, and what they mean to us.

use std::collections::HashMap;

use bollard::models::{EventMessage, EventMessageTypeEnum as Type};
use mainstay_common::state::HealthState;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// To a container.
    Container {
        /// Its id.
        id: String,
        /// What.
        happened: Happened,
    },
    /// To a volume.
    Volume {
        /// Its name.
        name: String,
        /// Its driver; empty where the event does not tell.
        driver: String,
        /// It is gone; otherwise it is new.
        destroyed: bool,
    },
    /// To the Swarm's nodes or services; told by managers only.
    Swarm,
}

/// What happened to a container. How it ended is not told here: labels come in the same map as the exit code and may
/// overwrite it, so that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was made.
    Created,
    /// It was started.
    Started,
    /// It ended.
    Died,
    /// It was removed.
    Destroyed,
    /// It was frozen.
    Paused,
    /// It goes on.
    Unpaused,
    /// A process of it was killed for lack of memory.
    OutOfMemory,
    /// Its health check says something else.
    Health(HealthState),
    /// Its name or its limits are others.
    Changed,
}

/// The filters that the engine is given: `exec_*`, with which every health check comes twice, is not among them.
pub(super) fn filters() -> HashMap<String, Vec<String>> {
    const TYPES: [&str; 4] = ["container", "volume", "node", "service"];
    const ACTIONS: [&str; 12] = [
        "create",
        "start",
        "die",
        "destroy",
        "pause",
        "unpause",
        "oom",
        "health_status",
        "rename",
        "update",
        "restart",
        "remove",
    ];
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    [("type".to_owned(), list(&TYPES)), ("event".to_owned(), list(&ACTIONS))].into()
}

/// Understands an event; `None` where it is about nothing that we look at.
pub(super) fn understand(event: EventMessage) -> Option<News> {
    let action = event.action.unwrap_or_default();
    let actor = event.actor.unwrap_or_default();
    let id = actor.id.filter(|id| !id.is_empty());
    match event.typ? {
        Type::CONTAINER => Some(News::Container { id: id?, happened: happened(&action)? }),
        Type::VOLUME => {
            let destroyed = match action.as_str() {
                "create" => false,
                "destroy" => true,
                _ => return None,
            };
            let driver = actor.attributes.and_then(|mut told| told.remove("driver")).unwrap_or_default();
            Some(News::Volume { name: id?, driver, destroyed })
        }
        Type::NODE | Type::SERVICE => Some(News::Swarm),
        Type::EMPTY
        | Type::BUILDER
        | Type::CONFIG
        | Type::DAEMON
        | Type::IMAGE
        | Type::NETWORK
        | Type::PLUGIN
        | Type::SECRET => None,
    }
}

/// Whether the event is about a task of a Swarm.
pub(super) fn is_of_a_task(event: &EventMessage) -> bool {
    let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
    attributes.is_some_and(|told| told.contains_key("com.docker.swarm.task.id"))
}

fn happened(action: &str) -> Option<Happened> {
    Some(match action {
        "create" => Happened::Created,
        "start" => Happened::Started,
        "die" => Happened::Died,
        "destroy" => Happened::Destroyed,
        "pause" => Happened::Paused,
        "unpause" => Happened::Unpaused,
        "oom" => Happened::OutOfMemory,
        "rename" | "update" => Happened::Changed,
        _ => {
            let word = action.strip_prefix("health_status")?.trim_start_matches(':').trim();
            Happened::Health(word.parse().unwrap_or(HealthState::Unknown))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_of_20_10_told() {
        let told = recorded(include_str!("../../../testdata/engine/events-1.41.jsonl"));
        let of = |happened| told.iter().filter(|news| is(news, happened)).count();
        assert_eq!((of(Happened::Created), of(Happened::Started), of(Happened::Died)), (1, 1, 1));
        assert_eq!(of(Happened::Health(HealthState::Healthy)), 1);
        assert_eq!((of(Happened::Changed), of(Happened::Destroyed)), (1, 1));
        let volumes: Vec<_> = told.iter().filter(|news| matches!(news, News::Volume { .. })).collect();
        assert_eq!(
            volumes,
            [
                &News::Volume { name: "data".into(), driver: "local".into(), destroyed: false },
                &News::Volume { name: "data".into(), driver: "local".into(), destroyed: true },
            ]
        );
        assert!(told.contains(&News::Swarm));
    }

    #[test]
    fn events_without_the_fields_that_1_52_dropped_are_understood() {
        let told = recorded(include_str!("../../../testdata/engine/events-1.52.jsonl"));
        assert!(told.iter().any(|news| is(news, Happened::Died)));
        assert!(told.iter().any(|news| is(news, Happened::Health(HealthState::Unhealthy))));
    }

    #[test]
    fn what_means_nothing_to_us_is_left_out() {
        for line in [
            r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"a"}}"#,
            r#"{"Type":"container","Action":"start","Actor":{}}"#,
            r#"{"Type":"network","Action":"create","Actor":{"ID":"a"}}"#,
            r#"{"Action":"start"}"#,
        ] {
            assert_eq!(understand(serde_json::from_str(line).unwrap()), None, "{line}");
        }
        assert!(!filters()["event"].iter().any(|action| action.starts_with("exec")));
    }

    fn is(news: &News, wanted: Happened) -> bool {
        matches!(news, News::Container { happened, .. } if *happened == wanted)
    }

    fn recorded(lines: &str) -> Vec<News> {
        lines.lines().filter_map(|line| understand(serde_json::from_str(line).unwrap())).collect()
    }
}
