//! A container as the engine's list shows it. Pure.

use std::sync::Arc;

use bollard::models::{
    ContainerSummary, ContainerSummaryHealthStatusEnum as ListedHealth, ContainerSummaryStateEnum as ListedState,
};
use mainstay_common::state::{ContainerState, HealthState};

use super::labels::{Labels, cut};

/// The longest name; the id tells containers apart.
const NAME_BYTES: usize = 128;
/// The longest image; a digest with its registry is shorter.
const IMAGE_BYTES: usize = 256;

/// One container of the list.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) id: Arc<str>,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) state: ContainerState,
    pub(super) health: HealthState,
    pub(super) labels: Labels,
    /// Its network is neither the host's nor another container's.
    pub(super) own_network: bool,
    /// Volumes that are mounted in it; `None` where the list does not tell.
    pub(super) volumes: Option<Vec<Mounted>>,
}

/// A volume mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) volume: String,
    pub(super) driver: String,
}

impl Listed {
    /// Understands one; `None` where it has no id.
    pub(super) fn of(summary: ContainerSummary, wanted_labels: &[String]) -> Option<Self> {
        let id = summary.id.filter(|id| !id.is_empty())?;
        let state = match summary.state {
            Some(ListedState::CREATED) => ContainerState::Created,
            // It was told to end, and runs until it does.
            Some(ListedState::RUNNING | ListedState::STOPPING) => ContainerState::Running,
            Some(ListedState::PAUSED) => ContainerState::Paused,
            Some(ListedState::RESTARTING) => ContainerState::Restarting,
            Some(ListedState::REMOVING) => ContainerState::Removing,
            Some(ListedState::EXITED) => ContainerState::Exited,
            Some(ListedState::DEAD) => ContainerState::Dead,
            None | Some(ListedState::EMPTY) => ContainerState::Unknown,
        };
        let told = summary.health.and_then(|health| health.status).map(|status| match status {
            ListedHealth::EMPTY | ListedHealth::NONE => HealthState::None,
            ListedHealth::STARTING => HealthState::Starting,
            ListedHealth::HEALTHY => HealthState::Healthy,
            ListedHealth::UNHEALTHY => HealthState::Unhealthy,
        });
        // Only engines from 28.3 on have the field; all of them write it into the text.
        let health = told.unwrap_or_else(|| health_in(summary.status.as_deref().unwrap_or_default()));
        let network = summary.host_config.and_then(|host| host.network_mode).unwrap_or_default();
        let volumes = summary.mounts.map(|mounts| {
            let volume = |mount: bollard::models::MountPoint| {
                let is_volume = mount.typ.as_deref() == Some("volume");
                let volume = mount.name.filter(|name| is_volume && !name.is_empty())?;
                Some(Mounted { volume, driver: mount.driver.unwrap_or_default() })
            };
            mounts.into_iter().filter_map(volume).collect()
        });
        Some(Self {
            name: cut(&name(summary.names.unwrap_or_default()), NAME_BYTES).to_owned(),
            image: cut(&summary.image.unwrap_or_default(), IMAGE_BYTES).to_owned(),
            state,
            health: health_while(state, health),
            labels: Labels::choose(&summary.labels.unwrap_or_default(), wanted_labels),
            own_network: network != "host" && !network.starts_with("container:"),
            volumes,
            id: id.into(),
        })
    }
}

/// What runs has a health; of what does not, the engine keeps an old word that says nothing.
pub(super) fn health_while(state: ContainerState, health: HealthState) -> HealthState {
    if matches!(state, ContainerState::Running | ContainerState::Paused) { health } else { HealthState::None }
}

/// A container's own name; others, with a slash inside, are what old links call it.
fn name(names: Vec<String>) -> String {
    let own = |name: &String| !name.trim_start_matches('/').contains('/');
    let at = names.iter().position(own).unwrap_or(0);
    names.into_iter().nth(at).unwrap_or_default().trim_start_matches('/').to_owned()
}

/// `Up 5 minutes (unhealthy)`, `Up 2 seconds (health: starting)`.
fn health_in(status: &str) -> HealthState {
    let word = status.strip_suffix(')').and_then(|text| text.rsplit_once('(')).map_or("", |(_, word)| word);
    match word.strip_prefix("health: ").unwrap_or(word) {
        "healthy" => HealthState::Healthy,
        "unhealthy" => HealthState::Unhealthy,
        "starting" => HealthState::Starting,
        _ => HealthState::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_20_10() {
        let all = recorded(include_str!("../../../testdata/engine/containers-1.41.json"));
        let of = |name: &str| all.iter().find(|one| one.name == name).unwrap();
        let stated = |name: &str| (of(name).state, of(name).health);
        assert_eq!(stated("web"), (ContainerState::Running, HealthState::Healthy));
        assert_eq!(stated("sick"), (ContainerState::Running, HealthState::Unhealthy));
        assert_eq!(stated("plain"), (ContainerState::Running, HealthState::None));
        assert_eq!(stated("frozen"), (ContainerState::Paused, HealthState::None));
        assert_eq!(stated("done"), (ContainerState::Exited, HealthState::None));
        assert_eq!(stated("never"), (ContainerState::Created, HealthState::None));
        assert_eq!(of("web").volumes, Some(vec![Mounted { volume: "data".into(), driver: "local".into() }]));
        assert_eq!(of("done").volumes.as_deref().map(<[_]>::len), Some(1), "stopped ones hold volumes, too");
        assert!(!of("plain").own_network && of("web").own_network);
        assert_eq!(of("web").image, "bb:1");
    }

    #[test]
    fn a_list_of_29_tells_the_health() {
        let all = recorded(include_str!("../../../testdata/engine/containers-1.52.json"));
        let stated: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.state, one.health)).collect();
        assert_eq!(
            stated,
            [
                ("shop_web.1.p2q", ContainerState::Running, HealthState::Starting),
                ("old", ContainerState::Exited, HealthState::None),
                ("leaving", ContainerState::Running, HealthState::None),
            ]
        );
        assert_eq!((all[0].labels.service.as_str(), all[0].labels.stack.as_str()), ("shop_web", "shop"));
        assert_eq!(all[1].volumes, Some(Vec::new()));
    }

    #[test]
    fn what_is_not_told_is_unknown_and_long_names_are_cut() {
        let bare = r#"[{"Id":"a"},{"Names":["/x"]},{"Id":"b","Names":["/other/link","/é"],"State":""}]"#;
        let all = recorded(bare);
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].state, &all[0].volumes), (ContainerState::Unknown, &None));
        assert_eq!(all[1].name, "é");
        let long = format!(r#"[{{"Id":"a","Names":["/{}"]}}]"#, "é".repeat(300));
        assert_eq!(recorded(&long)[0].name, "é".repeat(64));
    }

    fn recorded(json: &str) -> Vec<Listed> {
        let all: Vec<ContainerSummary> = serde_json::from_str(json).unwrap();
        all.into_iter().filter_map(|summary| Listed::of(summary, &[])).collect()
    }
}
