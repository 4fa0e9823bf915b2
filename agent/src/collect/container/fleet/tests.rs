use super::*;

#[test]
fn an_event_that_came_after_the_list_was_asked_for_is_not_overruled() {
    let mut fleet = Fleet::default();
    fleet.listed(0, vec![running("a"), running("b")], true);
    fleet.happened(1, "a", Happened::Died);
    fleet.happened(2, "b", Happened::Destroyed);
    let asked = fleet.listed(0, vec![running("a"), running("b")], false);
    assert_eq!(states(&fleet), [("a", ContainerState::Exited)]);
    assert_eq!(ids(&asked), ["a"]);
    fleet.listed(2, vec![running("a"), running("b")], false);
    assert_eq!(states(&fleet), [("a", ContainerState::Running), ("b", ContainerState::Running)]);
}

#[test]
fn an_inspection_asked_for_before_an_event_does_not_count() {
    let mut fleet = one_inspected("a");
    let asked = fleet.heard();
    fleet.happened(1, "a", Happened::Died);
    assert_eq!(fleet.inspected(asked, "a", detail(7, None)), Reaction::default());
    assert_eq!(states(&fleet), [("a", ContainerState::Exited)]);
    let ended = Inspected { state: ContainerState::Exited, pid: None, exit_code: Some(137), ..detail(7, None) };
    assert!(fleet.inspected(fleet.heard(), "a", ended).changed);
    assert_eq!(row(&fleet, "a").exit_code, Some(137));
}

#[test]
fn a_death_and_an_illness_are_urgent_a_start_is_not() {
    let mut fleet = one_inspected("a");
    let mut urgent = |number, what| fleet.happened(number, "a", what).urgent;
    assert!(urgent(1, Happened::Health(HealthState::Unhealthy)));
    assert!(urgent(2, Happened::Health(HealthState::Healthy)), "that it is well again, too");
    assert!(urgent(3, Happened::Died));
    assert!(!urgent(4, Happened::Started));
    assert!(!urgent(5, Happened::Paused));
    assert!(urgent(6, Happened::OutOfMemory));
}

#[test]
fn old_news_only_make_us_ask() {
    let mut fleet = Fleet::default();
    fleet.listed(5, vec![running("a")], true);
    let reaction = fleet.happened(4, "a", Happened::Died);
    assert_eq!(reaction, Reaction { ask: Some(Ask::Row), ..Reaction::default() });
    assert_eq!(states(&fleet), [("a", ContainerState::Running)]);
    assert_eq!(fleet.happened(6, "b", Happened::Started).ask, Some(Ask::Row), "one that was never listed");
}

#[test]
fn only_those_are_inspected_of_whom_something_is_unknown() {
    let mut fleet = one_inspected("a");
    assert!(fleet.listed(0, vec![running("a"), in_state("b", ContainerState::Created)], false).is_empty());
    let changed = vec![in_state("a", ContainerState::Exited), in_state("b", ContainerState::Created)];
    assert_eq!(ids(&fleet.listed(0, changed.clone(), false)), ["a"]);
    assert_eq!(ids(&fleet.listed(0, changed, true)), ["a"]);
    let restarts = |name| readings_of(&row(&fleet, name)).count(&m::CONTAINER_RESTARTS_TOTAL);
    assert_eq!((restarts("a"), restarts("b")), (None, Some(0)), "what never ran was never restarted");
}

#[test]
fn what_a_life_used_goes_with_it() {
    let mut fleet = one_inspected("a");
    let mut usage = Usage::default();
    usage.take(super::super::files::File::Pids, super::super::cgroup::Version::V2, b"3");
    fleet.measured("a", usage);
    let pids = |fleet: &Fleet| readings_of(&row(fleet, "a")).count(&m::CONTAINER_PIDS);
    assert_eq!((pids(&fleet), fleet.targets().len()), (Some(3), 1));
    fleet.happened(1, "a", Happened::Died);
    assert_eq!((pids(&fleet), fleet.targets().len()), (None, 0));
    fleet.measured("a", usage);
    assert_eq!(pids(&fleet), None, "a reading that came too late");
    fleet.happened(2, "a", Happened::Started);
    assert!(fleet.targets().is_empty(), "its process is not known yet");
}

#[test]
fn beyond_the_limit_containers_are_counted_and_still_use_volumes() {
    let mut fleet = Fleet::default();
    let mut all: Vec<_> = (0..LIMIT + 5).map(|i| in_state(&format!("{i:06}"), ContainerState::Exited)).collect();
    all.push(running("zz"));
    let mounted = super::super::listed::Mounted { volume: "data".into(), driver: "local".into() };
    all[LIMIT + 4].volumes = Some(vec![mounted]);
    fleet.listed(0, all, true);
    let table = fleet.table(Timestamp(1));
    assert_eq!((table.rows.len(), table.left_out), (LIMIT, 6));
    assert!(table.rows.contains_key(b"zz".as_slice()), "what runs comes first");
    assert_eq!(fleet.uses().volumes["data"].by, ["002004"]);
    assert!(fleet.joined(0, &"new".into(), Some(running("new"))).changed);
    assert_eq!(fleet.table(Timestamp(1)).left_out, 7);
}

#[test]
fn one_that_the_list_does_not_know_is_gone_unless_it_is_newer() {
    let mut fleet = one_inspected("a");
    fleet.happened(3, "a", Happened::Changed);
    assert_eq!(fleet.joined(2, &"a".into(), None), Reaction::default());
    assert!(fleet.joined(3, &"a".into(), None).changed);
    fleet.happened(4, "b", Happened::Destroyed);
    assert_eq!(fleet.joined(3, &"b".into(), Some(running("b"))), Reaction::default());
    assert!(states(&fleet).is_empty());
}

fn one_inspected(id: &str) -> Fleet {
    let mut fleet = Fleet::default();
    fleet.listed(0, vec![running(id)], true);
    fleet.inspected(0, id, detail(7, Some(Timestamp(5))));
    fleet
}

fn detail(pid: u32, started_at: Option<Timestamp>) -> Inspected {
    Inspected {
        state: ContainerState::Running,
        health: HealthState::None,
        pid: Some(pid),
        started_at,
        exit_code: None,
        restarts: Some(0),
        out_of_memory: false,
    }
}

fn running(id: &str) -> Listed {
    in_state(id, ContainerState::Running)
}

fn in_state(id: &str, state: ContainerState) -> Listed {
    Listed {
        id: id.into(),
        name: id.into(),
        image: "bb:1".into(),
        state,
        health: HealthState::None,
        labels: super::super::labels::Labels::default(),
        own_network: true,
        volumes: Some(Vec::new()),
    }
}

fn states(fleet: &Fleet) -> Vec<(&str, ContainerState)> {
    fleet.containers.iter().map(|(id, known)| (&**id, known.state)).collect()
}

fn ids(asked: &[Arc<str>]) -> Vec<&str> {
    asked.iter().map(|id| &**id).collect()
}

fn row(fleet: &Fleet, id: &str) -> pb::Container {
    fleet.table(Timestamp(1)).rows[id.as_bytes()].clone()
}

fn readings_of(row: &pb::Container) -> Readings {
    row.readings.as_ref().map(|lists| Readings::from_lists(&lists.metric, &lists.value)).unwrap_or_default()
}
