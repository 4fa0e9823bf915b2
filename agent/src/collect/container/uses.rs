//! Which volumes containers use, stopped ones too. Pure.

use std::collections::BTreeMap;

/// All volumes that any container mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Volumes by name.
    pub volumes: BTreeMap<String, Used>,
    /// Of some container it is not known what it mounts: a volume that is not listed may be in use.
    pub incomplete: bool,
}

/// Who uses a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The volume's driver; empty where the engine did not tell.
    pub driver: String,
    /// Names of the containers.
    pub by: Vec<String>,
}

impl Uses {
    /// A container mounts a volume.
    pub(super) fn add(&mut self, volume: &str, driver: &str, container: &str) {
        let used = self.volumes.entry(volume.to_owned()).or_default();
        if used.driver.is_empty() {
            driver.clone_into(&mut used.driver);
        }
        // A container may mount a volume in two places.
        if used.by.last().is_none_or(|last| last != container) {
            used.by.push(container.to_owned());
        }
    }

    /// Whether the volume is in use; `None` where that is not known.
    #[must_use]
    pub fn in_use(&self, volume: &str) -> Option<bool> {
        match self.volumes.contains_key(volume) {
            true => Some(true),
            false => (!self.incomplete).then_some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_knowing_every_container_is_not_knowing_what_is_unused() {
        let mut uses = Uses::default();
        uses.add("data", "", "web");
        uses.add("data", "local", "web");
        uses.add("data", "local", "job");
        assert_eq!(uses.volumes["data"], Used { driver: "local".into(), by: vec!["web".into(), "job".into()] });
        assert_eq!((uses.in_use("data"), uses.in_use("old")), (Some(true), Some(false)));
        uses.incomplete = true;
        assert_eq!((uses.in_use("data"), uses.in_use("old")), (Some(true), None));
    }
}
