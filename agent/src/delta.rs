//! What changed since the last sample on one stream: whole tables first, then only what differs.
//!
//! Pure. Every stream to a replica keeps its own [`Told`], so that a slow replica costs the others nothing.

use std::{collections::BTreeMap, sync::Arc};

use mainstay_common::Timestamp;
use mainstay_proto::v1 as pb;
use prost::Message;

use crate::board::{Collector, Fare, Snapshot, Table};

/// Rows that one sample may carry, in encoded bytes: what else is in a sample fits into the rest of
/// [`mainstay_proto::MAX_MESSAGE_BYTES`].
const ROOM_BYTES: usize = 3 * 1024 * 1024;

/// What the other side of one stream was told.
#[derive(Clone, Debug, Default)]
pub struct Told {
    seq: u64,
    host: Last<pb::Host>,
    disks: Last<Table<pb::Disk>>,
    mounts: Last<Table<pb::Mount>>,
    volumes: Last<Table<pb::Volume>>,
    containers: Last<Table<pb::Container>>,
    engine: Last<pb::Engine>,
    swarm: Last<pb::Swarm>,
}

/// What was said last of one block or table.
#[derive(Clone, Debug, Default)]
enum Last<T> {
    /// Nothing on this stream.
    #[default]
    Nothing,
    /// That it is not known any longer.
    Unknown,
    /// This.
    Value(Arc<T>),
}

/// What every sample carries besides the blocks.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// When the sample is made.
    pub taken_at: Timestamp,
    /// The boot that it belongs to.
    pub boot_id: String,
    /// The agent about itself.
    pub agent: Option<pb::Readings>,
}

impl Told {
    /// The samples that bring the other side up to date: one, or several where one would be too large. With `whole`
    /// everything is told again.
    #[must_use]
    pub fn samples(&mut self, now: &Snapshot, head: &Head, whole: bool) -> Vec<pb::Sample> {
        let mut cutter = Cutter::default();
        let last = &mut cutter.last;
        last.host = self.host.block(now.host.as_ref(), whole);
        last.engine = self.engine.block(now.engine.as_ref(), whole);
        last.swarm = self.swarm.block(now.swarm.as_ref(), whole).map(|swarm| within_room(swarm, ROOM_BYTES / 2));
        last.errors = errors(&now.fares);
        last.agent.clone_from(&head.agent);
        cutter.used = cutter.last.encoded_len();
        cutter.table(self.disks.table(now.disks.as_ref(), whole), |sample| &mut sample.disks);
        cutter.table(self.mounts.table(now.mounts.as_ref(), whole), |sample| &mut sample.mounts);
        cutter.table(self.volumes.table(now.volumes.as_ref(), whole), |sample| &mut sample.volumes);
        cutter.table(self.containers.table(now.containers.as_ref(), whole), |sample| &mut sample.containers);
        let mut samples = cutter.done;
        samples.push(cutter.last);
        for sample in &mut samples {
            self.seq += 1;
            sample.seq = self.seq;
            sample.taken_at_ms = head.taken_at.0;
            sample.boot_id.clone_from(&head.boot_id);
            // The list of complaints is whole with every sample.
            sample.errors = errors(&now.fares);
        }
        samples
    }
}

impl<T: Clone + Default + PartialEq> Last<T> {
    /// A block goes as it is where it differs. The empty block (`read_at_ms` 0) says: not known any longer.
    fn block(&mut self, now: Option<&Arc<T>>, whole: bool) -> Option<T> {
        match now {
            Some(now) => {
                let same = matches!(self, Self::Value(last) if Arc::ptr_eq(last, now) || last == now);
                *self = Self::Value(Arc::clone(now));
                (whole || !same).then(|| T::clone(now))
            }
            None => self.lost(whole).then(T::default),
        }
    }
}

impl<T> Last<T> {
    /// True when the other side must hear that this is unknown.
    fn lost(&mut self, whole: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Unknown => whole,
            Self::Value(_) => {
                *self = Self::Unknown;
                true
            }
        }
    }
}

/// A table's change, before it is cut to size.
struct Change<R> {
    read_at: i64,
    whole: bool,
    left_out: u64,
    changed: Vec<R>,
    removed: Vec<Vec<u8>>,
}

impl<R: Clone + PartialEq> Last<Table<R>> {
    fn table(&mut self, now: Option<&Arc<Table<R>>>, whole: bool) -> Option<Change<R>> {
        let Some(now) = now else {
            let unknown = Change { read_at: 0, whole: true, left_out: 0, changed: Vec::new(), removed: Vec::new() };
            return self.lost(whole).then_some(unknown);
        };
        let before = std::mem::replace(self, Self::Value(Arc::clone(now)));
        let mut change = Change {
            // 0 is kept for "unknown".
            read_at: now.read_at.0.max(1),
            whole: true,
            left_out: now.left_out,
            changed: Vec::new(),
            removed: Vec::new(),
        };
        match before {
            Self::Value(before) if !whole => {
                if Arc::ptr_eq(&before, now) || before == *now {
                    return None;
                }
                change.whole = false;
                change.changed = differing(&before.rows, &now.rows);
                change.removed = before.rows.keys().filter(|key| !now.rows.contains_key(*key)).cloned().collect();
            }
            Self::Nothing | Self::Unknown | Self::Value(_) => change.changed = now.rows.values().cloned().collect(),
        }
        Some(change)
    }
}

fn differing<R: Clone + PartialEq>(before: &BTreeMap<Vec<u8>, R>, now: &BTreeMap<Vec<u8>, R>) -> Vec<R> {
    now.iter().filter(|(key, row)| before.get(*key) != Some(*row)).map(|(_, row)| row.clone()).collect()
}

/// Every collector that complains now.
fn errors(fares: &BTreeMap<Collector, Fare>) -> Vec<pb::CollectorError> {
    let complaint = |(collector, fare): (&Collector, &Fare)| {
        let (reason, since) = fare.error.clone()?;
        Some(pb::CollectorError { collector: collector.as_str().into(), reason, since_ms: since.0 })
    };
    fares.iter().filter_map(complaint).collect()
}

/// A Swarm's view without the tasks that do not fit, and a word about it.
fn within_room(mut swarm: pb::Swarm, room: usize) -> pb::Swarm {
    let Some(view) = &mut swarm.view else { return swarm };
    let listed = view.tasks.len();
    let mut used: usize =
        view.nodes.iter().map(row_len).sum::<usize>() + view.services.iter().map(row_len).sum::<usize>();
    view.tasks.retain(|task| {
        used = used.saturating_add(row_len(task));
        used <= room
    });
    if view.tasks.len() < listed && swarm.error.is_empty() {
        swarm.error = format!("{} tasks are not listed: too many", listed - view.tasks.len());
    }
    swarm
}

/// Bytes of a row within its table: itself, its tag and its length.
fn row_len(row: &impl Message) -> usize {
    row.encoded_len() + 8
}

/// Fills samples up to their room.
#[derive(Default)]
struct Cutter {
    done: Vec<pb::Sample>,
    last: pb::Sample,
    used: usize,
}

impl Cutter {
    /// Adds a table's change. Where it is cut, only its first part is `whole`: the others join it.
    fn table<T: WireTable>(&mut self, change: Option<Change<T::Row>>, slot: fn(&mut pb::Sample) -> &mut Option<T>) {
        let Some(change) = change else { return };
        let mut part = T::part(change.read_at, change.whole, change.left_out);
        for key in change.removed {
            if !self.fits(key.len() + 8) {
                self.cut(slot, &mut part, T::part(change.read_at, false, change.left_out));
            }
            part.removed().push(key);
        }
        for row in change.changed {
            if !self.fits(row_len(&row)) {
                self.cut(slot, &mut part, T::part(change.read_at, false, change.left_out));
            }
            part.changed().push(row);
        }
        *slot(&mut self.last) = Some(part);
    }

    /// Counts `bytes` where they fit. Into an empty sample everything does: no row is near the limit.
    fn fits(&mut self, bytes: usize) -> bool {
        let fits = self.used == 0 || self.used + bytes <= ROOM_BYTES;
        self.used = if fits { self.used + bytes } else { bytes };
        fits
    }

    /// Closes the sample. A table that has nothing in it yet goes into the next one as it is.
    fn cut<T: WireTable>(&mut self, slot: fn(&mut pb::Sample) -> &mut Option<T>, part: &mut T, next: T) {
        if !part.changed().is_empty() || !part.removed().is_empty() {
            *slot(&mut self.last) = Some(std::mem::replace(part, next));
        }
        self.done.push(std::mem::take(&mut self.last));
    }
}

/// The four tables of the wire.
trait WireTable {
    type Row: Message;
    fn part(read_at_ms: i64, whole: bool, left_out: u64) -> Self;
    fn changed(&mut self) -> &mut Vec<Self::Row>;
    fn removed(&mut self) -> &mut Vec<Vec<u8>>;
}

macro_rules! wire_table {
    ($table:ident, $row:ident $(, $left_out:ident)?) => {
        impl WireTable for pb::$table {
            type Row = pb::$row;

            fn part(read_at_ms: i64, whole: bool, _left_out: u64) -> Self {
                Self { read_at_ms, whole, $($left_out: _left_out,)? ..Self::default() }
            }

            fn changed(&mut self) -> &mut Vec<Self::Row> {
                &mut self.changed
            }

            fn removed(&mut self) -> &mut Vec<Vec<u8>> {
                &mut self.removed
            }
        }
    };
}

wire_table!(DiskTable, Disk);
wire_table!(MountTable, Mount);
wire_table!(VolumeTable, Volume);
wire_table!(ContainerTable, Container, left_out);

#[cfg(test)]
mod tests;
