//! A container as its inspection shows it. Pure.

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum as Status, HealthStatusEnum};
use mainstay_common::{
    Timestamp,
    state::{ContainerState, HealthState},
};

use super::listed::health_while;
use crate::collect::engine::moment;

/// What only an inspection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) state: ContainerState,
    pub(super) health: HealthState,
    /// Its first process, while it runs.
    pub(super) pid: Option<u32>,
    /// When it was last started; `None` if never.
    pub(super) started_at: Option<Timestamp>,
    /// How it ended last; `None` while it runs, and if it never did.
    pub(super) exit_code: Option<i32>,
    /// Restarts by the engine.
    pub(super) restarts: Option<u64>,
    /// It, or one of its processes, was killed for lack of memory in this life.
    pub(super) out_of_memory: bool,
}

impl From<&ContainerInspectResponse> for Inspected {
    fn from(told: &ContainerInspectResponse) -> Self {
        let state = told.state.as_ref();
        let word = match state.and_then(|state| state.status) {
            Some(Status::CREATED) => ContainerState::Created,
            Some(Status::RUNNING | Status::STOPPING) => ContainerState::Running,
            Some(Status::PAUSED) => ContainerState::Paused,
            Some(Status::RESTARTING) => ContainerState::Restarting,
            Some(Status::REMOVING) => ContainerState::Removing,
            Some(Status::EXITED) => ContainerState::Exited,
            Some(Status::DEAD) => ContainerState::Dead,
            None | Some(Status::EMPTY) => ContainerState::Unknown,
        };
        let health = match state.and_then(|state| state.health.as_ref()?.status) {
            None | Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) => HealthState::None,
            Some(HealthStatusEnum::STARTING) => HealthState::Starting,
            Some(HealthStatusEnum::HEALTHY) => HealthState::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => HealthState::Unhealthy,
        };
        let ended = matches!(word, ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting);
        let exit_code = state.and_then(|state| state.exit_code).filter(|_| ended);
        Self {
            state: word,
            health: health_while(word, health),
            pid: state.and_then(|state| u32::try_from(state.pid?).ok()).filter(|pid| *pid > 0),
            started_at: state.and_then(|state| moment(state.started_at.as_deref()?)),
            exit_code: exit_code.and_then(|code| i32::try_from(code).ok()),
            restarts: told.restart_count.and_then(|count| u64::try_from(count).ok()),
            out_of_memory: state.and_then(|state| state.oom_killed).unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_runs_one_that_ended_and_one_that_never_ran() {
        let all: Vec<ContainerInspectResponse> =
            serde_json::from_str(include_str!("../../../testdata/engine/inspect-1.41.json")).unwrap();
        let of = |name: &str| Inspected::from(all.iter().find(|one| one.name.as_deref() == Some(name)).unwrap());
        let web = of("/web");
        assert_eq!((web.state, web.health, web.exit_code), (ContainerState::Running, HealthState::Healthy, None));
        assert!(web.pid.is_some() && web.started_at.is_some());
        let killed = of("/greedy");
        assert_eq!((killed.state, killed.exit_code, killed.out_of_memory), (ContainerState::Exited, Some(137), true));
        assert!(killed.pid.is_none() && killed.started_at.is_some());
        let never = of("/never");
        assert_eq!((never.state, never.started_at, never.exit_code), (ContainerState::Created, None, None));
        assert_eq!(of("/again").restarts, Some(2));
    }

    #[test]
    fn nothing_told_is_nothing_known() {
        let bare = Inspected::from(&ContainerInspectResponse::default());
        assert_eq!((bare.state, bare.restarts, bare.pid), (ContainerState::Unknown, None, None));
    }
}
