use proptest::prelude::*;

use super::*;

#[test]
fn at_first_all_then_only_what_changed() {
    let mut told = Told::default();
    let mut now = Snapshot { disks: Some(table(1, &[("/", 1), ("/data", 1)])), ..Snapshot::default() };
    let first = only(told.samples(&now, &Head::default(), false)).disks.unwrap();
    assert!(first.whole && first.changed.len() == 2);

    assert_eq!(only(told.samples(&now, &Head::default(), false)).disks, None);

    now.disks = Some(table(2, &[("/data", 2)]));
    let next = only(told.samples(&now, &Head::default(), false)).disks.unwrap();
    assert!(!next.whole);
    assert_eq!((next.changed.len(), next.removed), (1, vec![b"/".to_vec()]));
}

#[test]
fn a_table_that_is_lost_is_told_as_unknown_once() {
    let mut told = Told::default();
    let mut now = Snapshot::default();
    assert_eq!(only(told.samples(&now, &Head::default(), true)).disks, None, "never read: nothing to say");
    now.disks = Some(table(5, &[("/", 1)]));
    let _known = told.samples(&now, &Head::default(), false);
    now.disks = None;
    let lost = only(told.samples(&now, &Head::default(), false)).disks;
    assert_eq!(lost, Some(pb::DiskTable { whole: true, ..pb::DiskTable::default() }));
    assert_eq!(only(told.samples(&now, &Head::default(), false)).disks, None);
    assert_eq!(only(told.samples(&now, &Head::default(), true)).disks, lost);
}

#[test]
fn no_sample_is_larger_than_a_message_may_be() {
    let rows = (0..6_000).map(|i| (format!("/{i:05}{}", "x".repeat(2_000)).into_bytes(), i));
    let rows: BTreeMap<_, _> = rows.map(|(mount, i)| (mount.clone(), disk(&mount, i))).collect();
    let now =
        Snapshot { disks: Some(Arc::new(Table { read_at: Timestamp(1), rows, left_out: 0 })), ..Snapshot::default() };
    let samples = Told::default().samples(&now, &Head::default(), false);
    assert!(samples.len() > 3);
    let mut model = Model::default();
    for sample in samples {
        assert!(sample.encoded_len() < mainstay_proto::MAX_MESSAGE_BYTES);
        model.take(sample);
    }
    assert_eq!(model.disks.unwrap(), now.disks.unwrap().rows);
}

#[test]
fn a_swarm_beyond_all_measure_loses_tasks_and_says_so() {
    let task = pb::SwarmTask { id: "x".repeat(1_000), ..pb::SwarmTask::default() };
    let view = pb::SwarmView { tasks: vec![task; 5_000], ..pb::SwarmView::default() };
    let now = Snapshot {
        swarm: Some(Arc::new(pb::Swarm { view: Some(view), ..pb::Swarm::default() })),
        ..Snapshot::default()
    };
    let sample = only(Told::default().samples(&now, &Head::default(), false));
    assert!(sample.encoded_len() < mainstay_proto::MAX_MESSAGE_BYTES);
    assert!(sample.swarm.unwrap().error.contains("not listed"));
}

proptest! {
    #[test]
    fn whoever_follows_the_deltas_sees_the_same(
        steps in proptest::collection::vec((any::<bool>(), tables(), tables(), proptest::option::of(0i64..4)), 1..12)
    ) {
        let (mut told, mut model) = (Told::default(), Model::default());
        for (whole, disks, containers, swarm) in steps {
            let now = Snapshot {
                disks: disks.map(|rows| rows_of(rows, disk)),
                containers: containers.map(|rows| rows_of(rows, container)),
                swarm: swarm.map(|at| Arc::new(pb::Swarm { read_at_ms: at + 1, ..pb::Swarm::default() })),
                ..Snapshot::default()
            };
            for sample in told.samples(&now, &Head::default(), whole) {
                model.take(sample);
            }
            prop_assert_eq!(&model.disks, &now.disks.map(|table| table.rows.clone()));
            prop_assert_eq!(&model.containers, &now.containers.map(|table| table.rows.clone()));
            prop_assert_eq!(&model.swarm, &now.swarm.map(|swarm| pb::Swarm::clone(&swarm)));
        }
    }
}

/// What a replica makes of samples.
#[derive(Default)]
struct Model {
    disks: Option<BTreeMap<Vec<u8>, pb::Disk>>,
    containers: Option<BTreeMap<Vec<u8>, pb::Container>>,
    swarm: Option<pb::Swarm>,
}

impl Model {
    fn take(&mut self, sample: pb::Sample) {
        if let Some(table) = sample.disks {
            let rows = table.changed.into_iter().map(|row| (row.mount.clone(), row));
            follow(&mut self.disks, table.read_at_ms, table.whole, table.removed, rows);
        }
        if let Some(table) = sample.containers {
            let rows = table.changed.into_iter().map(|row| (row.id.clone(), row));
            follow(&mut self.containers, table.read_at_ms, table.whole, table.removed, rows);
        }
        if let Some(swarm) = sample.swarm {
            self.swarm = (swarm.read_at_ms != 0).then_some(swarm);
        }
    }
}

fn follow<R>(
    rows: &mut Option<BTreeMap<Vec<u8>, R>>,
    read_at: i64,
    whole: bool,
    removed: Vec<Vec<u8>>,
    changed: impl Iterator<Item = (Vec<u8>, R)>,
) {
    if read_at == 0 {
        *rows = None;
        return;
    }
    if whole {
        *rows = Some(BTreeMap::new());
    }
    let rows = rows.get_or_insert_default();
    for key in removed {
        rows.remove(&key);
    }
    rows.extend(changed);
}

type Rows = Option<(i64, BTreeMap<u8, u8>)>;

fn tables() -> impl Strategy<Value = Rows> {
    proptest::option::of((0i64..3, proptest::collection::btree_map(0u8..6, 0u8..3, 0..6)))
}

fn rows_of<R>((at, rows): (i64, BTreeMap<u8, u8>), row: fn(&[u8], u64) -> R) -> Arc<Table<R>> {
    let rows = rows.into_iter().map(|(key, value)| (vec![key], row(&[key], value.into()))).collect();
    Arc::new(Table { read_at: Timestamp(at), rows, left_out: 0 })
}

fn table(at: i64, rows: &[(&str, u64)]) -> Arc<Table<pb::Disk>> {
    let rows = rows.iter().map(|(mount, n)| (mount.as_bytes().to_vec(), disk(mount.as_bytes(), *n))).collect();
    Arc::new(Table { read_at: Timestamp(at), rows, left_out: 0 })
}

fn disk(mount: &[u8], value: u64) -> pb::Disk {
    pb::Disk { mount: mount.to_vec(), fs: format!("fs{value}"), ..pb::Disk::default() }
}

fn container(id: &[u8], value: u64) -> pb::Container {
    pb::Container { id: id.to_vec(), image: format!("image{value}"), ..pb::Container::default() }
}

fn only(samples: Vec<pb::Sample>) -> pb::Sample {
    let [sample] = <[_; 1]>::try_from(samples).unwrap();
    sample
}
