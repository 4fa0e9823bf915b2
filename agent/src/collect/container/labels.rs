//! Which labels of a container travel: a short list and what the configuration adds, within caps. Pure.

use std::collections::HashMap;

use glob_match::glob_match;

/// Those that tell where a container belongs; they come first.
const ALWAYS: [&str; 8] = [
    TASK_NAME,
    SERVICE_NAME,
    STACK,
    COMPOSE_PROJECT,
    "com.docker.compose.service",
    "com.docker.swarm.node.id",
    "com.docker.swarm.service.id",
    "com.docker.swarm.task.id",
];
const TASK_NAME: &str = "com.docker.swarm.task.name";
const SERVICE_NAME: &str = "com.docker.swarm.service.name";
const STACK: &str = "com.docker.stack.namespace";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// The most labels of one container.
const LABELS: usize = 32;
/// The longest key; a longer one is left out, since half a key is another key.
const KEY_BYTES: usize = 128;
/// The longest value; a longer one is cut.
const VALUE_BYTES: usize = 256;

/// What travels of a container's labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Those that travel.
    pub(super) sent: HashMap<String, String>,
    /// Those that should, and do not, or not whole.
    pub(super) left_out: u64,
    /// The Swarm service that it is of; empty where of none.
    pub(super) service: String,
    /// The task's name.
    pub(super) task: String,
    /// The stack, or Compose's project.
    pub(super) stack: String,
}

impl Labels {
    /// Chooses; `wanted` are exact names or globs.
    pub(super) fn choose(labels: &HashMap<String, String>, wanted: &[String]) -> Self {
        let known = |key: &str| labels.get(key).map(|value| cut(value, VALUE_BYTES).to_owned()).unwrap_or_default();
        let mut chosen = Self {
            service: known(SERVICE_NAME),
            task: known(TASK_NAME),
            stack: Some(known(STACK)).filter(|stack| !stack.is_empty()).unwrap_or_else(|| known(COMPOSE_PROJECT)),
            ..Self::default()
        };
        let is_wanted = |key: &str| wanted.iter().any(|pattern| pattern == key || glob_match(pattern, key));
        let mut others: Vec<&str> = Vec::new();
        for key in labels.keys().map(String::as_str).filter(|key| !ALWAYS.contains(key)) {
            if key.len() > KEY_BYTES {
                // Only its beginning is compared: a pattern for it may well be meant.
                chosen.left_out += u64::from(is_wanted(cut(key, KEY_BYTES)));
            } else if is_wanted(key) {
                others.push(key);
            }
        }
        others.sort_unstable();
        for key in ALWAYS.into_iter().chain(others) {
            let Some(value) = labels.get(key) else { continue };
            if chosen.sent.len() == LABELS {
                chosen.left_out += 1;
                continue;
            }
            let kept = cut(value, VALUE_BYTES);
            chosen.left_out += u64::from(kept.len() < value.len());
            chosen.sent.insert(key.to_owned(), kept.to_owned());
        }
        chosen
    }
}

/// The text, no longer than so many bytes, whole characters only.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_swarms_and_composes_labels_always_travel_others_when_wanted() {
        let labels = map(&[
            ("com.docker.swarm.service.name", "shop_web"),
            ("com.docker.swarm.task.name", "shop_web.1.x"),
            ("com.docker.stack.namespace", "shop"),
            ("com.docker.compose.project", "other"),
            ("maintainer", "anna"),
            ("org.shop.tier", "front"),
            ("org.shop.secret", "hush"),
        ]);
        let chosen = Labels::choose(&labels, &["maintainer".into(), "org.shop.t*".into()]);
        assert_eq!(
            (chosen.service.as_str(), chosen.task.as_str(), chosen.stack.as_str()),
            ("shop_web", "shop_web.1.x", "shop")
        );
        let mut keys: Vec<_> = chosen.sent.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "com.docker.compose.project",
                "com.docker.stack.namespace",
                "com.docker.swarm.service.name",
                "com.docker.swarm.task.name",
                "maintainer",
                "org.shop.tier"
            ]
        );
        assert_eq!(chosen.left_out, 0);
    }

    #[test]
    fn what_is_cut_or_left_out_is_counted() {
        let mut labels: HashMap<_, _> = (0..40).map(|i| (format!("l{i:02}"), "x".to_owned())).collect();
        labels.insert("com.docker.stack.namespace".into(), "é".repeat(200));
        labels.insert("k".repeat(129), "y".into());
        let chosen = Labels::choose(&labels, &["*".into()]);
        assert_eq!(chosen.sent.len(), 32);
        assert_eq!(chosen.sent["com.docker.stack.namespace"], "é".repeat(128));
        // One value cut, one key too long, nine labels too many.
        assert_eq!(chosen.left_out, 11);
        assert!(chosen.sent.contains_key("l30") && !chosen.sent.contains_key("l31"));
    }

    proptest! {
        #[test]
        fn no_labels_are_too_many(labels in proptest::collection::hash_map(".{0,200}", ".{0,400}", 0..80)) {
            let chosen = Labels::choose(&labels, &["**".into()]);
            prop_assert!(chosen.sent.len() <= LABELS);
            prop_assert!(chosen.sent.iter().all(|(key, value)| key.len() <= KEY_BYTES && value.len() <= VALUE_BYTES));
            prop_assert!(chosen.left_out + chosen.sent.len() as u64 >= labels.len() as u64);
        }
    }

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }
}
