//! A node's share of the live view: what it has there, by key and size, and what it is told that it may not have.
//!
//! Pure. It mirrors the tables of [`live::NodeView`], whichever session filled them.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use mainstay_common::{Timestamp, metric::Readings};
use mainstay_core::live;

use super::limits::{BURST_KIB, Cuts, KIB_PER_SECOND, Limit, VIEW_BYTES};
use crate::gate::{Pace, Paid};

/// Everything is told anew every 5 minutes: what was not cut in two rounds is cut no more.
const COMPLAINED_FOR: Duration = Duration::from_secs(600);
/// Tokens are KiB.
const PACE: Pace = Pace::new(Duration::from_micros(1_000_000 / KIB_PER_SECOND as u64), BURST_KIB);

/// What a row takes, roughly: its own bytes, and what keeps them.
trait Weighed {
    fn bytes(&self) -> usize;
}

/// One node's.
#[derive(Debug, Default)]
pub(super) struct Share {
    disks: Held,
    mounts: Held,
    volumes: Held,
    containers: Held,
    bytes: usize,
    /// Limits that it met: since when, by its own clock, and when last.
    complaints: BTreeMap<Limit, (Timestamp, Instant)>,
    paid: Paid,
}

/// Rows of one table: a digest of the key, and the row's size.
#[derive(Debug, Default)]
struct Held {
    digests: RandomState,
    rows: HashMap<u64, usize>,
}

impl Share {
    /// Cuts a sample's tables to what the node may have.
    pub(super) fn admit(&mut self, sample: &mut live::Sample, cuts: &mut Cuts) {
        let bytes = &mut self.bytes;
        self.disks.admit(Limit::Disks, sample.disks.as_mut(), bytes, cuts);
        self.mounts.admit(Limit::Mounts, sample.mounts.as_mut(), bytes, cuts);
        self.volumes.admit(Limit::Volumes, sample.volumes.as_mut(), bytes, cuts);
        self.containers.admit(Limit::Containers, sample.containers.as_mut(), bytes, cuts);
    }

    /// How long the node's next report must wait after one of so many bytes.
    pub(super) fn pay(&mut self, bytes: usize, now: Instant) -> Duration {
        PACE.take(&mut self.paid, u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX), now)
    }

    /// Notes what was cut, adds everything that still holds to the sample's complaints, and gives the limits that are
    /// met anew: the log hears of these.
    pub(super) fn complain(&mut self, sample: &mut live::Sample, cuts: &Cuts, now: Instant) -> Vec<Limit> {
        let mut fresh = Vec::new();
        self.complaints.retain(|_, (_, last)| now.saturating_duration_since(*last) < COMPLAINED_FOR);
        for (limit, _) in cuts.met() {
            let (_, last) = self.complaints.entry(limit).or_insert_with(|| {
                fresh.push(limit);
                (sample.taken_at, now)
            });
            *last = now;
        }
        sample.errors.extend(self.complaints.iter().map(|(limit, (since, _))| live::CollectorError {
            collector: format!("limit {}", limit.as_str()),
            reason: limit.sentence().to_owned(),
            since: *since,
        }));
        fresh
    }

    /// What its tables take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Held {
    fn admit<R: Weighed>(
        &mut self,
        table: Limit,
        update: Option<&mut live::Update<R>>,
        bytes: &mut usize,
        cuts: &mut Cuts,
    ) {
        // Rows of a table that is not known now stay as they are.
        let Some(update) = update.filter(|update| !update.is_unknown()) else { return };
        if update.whole {
            *bytes -= self.rows.drain().map(|(_, size)| size).sum::<usize>();
        }
        for key in &update.removed {
            *bytes -= self.rows.remove(&self.digests.hash_one(key)).unwrap_or(0);
        }
        let most = table.rows().unwrap_or(usize::MAX);
        let (rows, digests, removed) = (&mut self.rows, &self.digests, &mut update.removed);
        let listed = update.changed.len();
        update.changed.retain(|(key, row)| {
            let (digest, size) = (digests.hash_one(key), key.len() + row.bytes());
            let before = rows.get(&digest).copied();
            let limit = if before.is_none() && rows.len() >= most {
                Some(table)
            } else if *bytes - before.unwrap_or(0) + size > VIEW_BYTES {
                Some(Limit::View)
            } else {
                None
            };
            *bytes -= before.unwrap_or(0);
            if let Some(limit) = limit {
                cuts.add(limit, 1);
                rows.remove(&digest);
                if before.is_some() {
                    // What it was before is no longer true.
                    removed.push(key.clone());
                }
                return false;
            }
            *bytes += size;
            rows.insert(digest, size);
            true
        });
        update.left_out = update.left_out.saturating_add((listed - update.changed.len()) as u64);
        if update.changed.len() < listed / 2 {
            update.changed.shrink_to_fit();
        }
    }
}

/// The row itself, its place in a table and the counts around it.
const ROW: usize = 256;
/// A text or an entry of a list, beside its bytes.
const ENTRY: usize = 24;

fn readings(readings: &Readings) -> usize {
    readings.iter().count() * 16
}

fn list(entries: impl Iterator<Item = usize>) -> usize {
    entries.map(|bytes| bytes + ENTRY).sum()
}

impl Weighed for live::Disk {
    fn bytes(&self) -> usize {
        let texts = self.device.len() + self.fs.len() + self.reason.len();
        ROW + texts + list(self.aliases.iter().map(Vec::len)) + readings(&self.readings)
    }
}

impl Weighed for live::Mount {
    fn bytes(&self) -> usize {
        let texts = self.source.len() + self.fs.len() + self.reason.len();
        let rclone = self.rclone.as_ref().map_or(0, |r| r.version.len() + r.unit.len() + r.last_error.len());
        ROW + texts + rclone + list(self.aliases.iter().map(Vec::len)) + readings(&self.readings)
    }
}

impl Weighed for live::Volume {
    fn bytes(&self) -> usize {
        let texts = self.driver.len() + self.reason.len() + self.source.len();
        ROW + texts + list(self.used_by.iter().map(String::len)) + readings(&self.readings)
    }
}

impl Weighed for live::Container {
    fn bytes(&self) -> usize {
        let texts = [&self.name, &self.image, &self.service, &self.task, &self.stack].map(String::len);
        let labels = list(self.labels.iter().map(|(key, value)| key.len() + value.len() + ENTRY));
        ROW + texts.iter().sum::<usize>() + labels + readings(&self.readings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beyond_a_nodes_share_are_cut_and_counted_whichever_sample_brings_them() {
        let (mut share, mut cuts) = (Share::default(), Cuts::default());
        assert_eq!(kept(&mut share, &mut cuts, update(true, 0..1_990, 10)), 1_990);
        assert_eq!(kept(&mut share, &mut cuts, update(false, 1_980..2_020, 10)), 20, "ten are there, ten are new");
        assert_eq!(cuts.met().collect::<Vec<_>>(), [(Limit::Disks, 20)]);
        let gone = live::Update { removed: vec![key(3)], ..update(false, 3_000..3_002, 10) };
        assert_eq!(kept(&mut share, &mut cuts, gone), 1, "who leaves makes room");
        assert_eq!(kept(&mut share, &mut cuts, update(true, 0..5, 10)), 5);
        assert_eq!(share.disks.rows.len(), 5);
    }

    #[test]
    fn bytes_of_all_tables_count_together_and_a_row_that_grew_out_of_its_share_is_gone() {
        let (mut share, mut cuts) = (Share::default(), Cuts::default());
        let most = VIEW_BYTES / (4_096 + ROW + 4);
        let rows = kept(&mut share, &mut cuts, update(true, 0..2_000, 4_096));
        assert_eq!(rows, most.min(2_000));
        let mut sample = live::Sample { disks: Some(update(false, 0..1, VIEW_BYTES)), ..live::Sample::default() };
        share.admit(&mut sample, &mut cuts);
        let update = sample.disks.unwrap();
        assert_eq!((update.changed.len(), update.removed, update.left_out), (0, vec![key(0)], 1));
        assert!(share.bytes() <= VIEW_BYTES && cuts.met().any(|(limit, _)| limit == Limit::View));
    }

    #[test]
    fn whatever_is_sent_the_count_is_that_of_the_rows() {
        let (mut share, mut cuts) = (Share::default(), Cuts::default());
        for round in 0..40_u32 {
            let rows = (round * 7) % 100..(round * 13) % 300 + 100;
            let size = usize::try_from(round * 37 % 500).unwrap();
            let removed = (0..round).map(key).collect();
            kept(&mut share, &mut cuts, live::Update { removed, ..update(round % 9 == 0, rows, size) });
            assert_eq!(share.bytes(), share.disks.rows.values().sum::<usize>());
        }
        kept(&mut share, &mut cuts, update(true, 0..0, 0));
        assert_eq!(share.bytes(), 0);
    }

    #[test]
    fn a_table_that_is_unknown_now_keeps_its_rows() {
        let (mut share, mut cuts) = (Share::default(), Cuts::default());
        kept(&mut share, &mut cuts, update(true, 0..9, 10));
        let unknown = live::Update { read_at: Timestamp(0), ..update(true, 0..0, 0) };
        kept(&mut share, &mut cuts, unknown);
        assert_eq!(share.disks.rows.len(), 9);
    }

    #[test]
    fn a_first_whole_sample_is_free_and_a_flood_waits() {
        let (mut share, start) = (Share::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(share.pay(mainstay_proto::MAX_MESSAGE_BYTES, start), Duration::ZERO);
        }
        let wait = share.pay(mainstay_proto::MAX_MESSAGE_BYTES, start);
        assert!((Duration::from_secs(15)..Duration::from_secs(17)).contains(&wait), "{wait:?}");
        assert_eq!(share.pay(60 * 1_024, start + wait + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn one_warning_for_each_limit_and_the_complaint_goes_when_it_holds_no_more() {
        let (mut share, start) = (Share::default(), Instant::now());
        let mut cuts = Cuts::default();
        cuts.add(Limit::Texts, 3);
        let mut complain = |cuts: &Cuts, at: i64, after| {
            let mut sample = live::Sample { taken_at: Timestamp(at), ..live::Sample::default() };
            let fresh = share.complain(&mut sample, cuts, start + after);
            (fresh, sample.errors)
        };
        assert_eq!(complain(&cuts, 7, Duration::ZERO).0, [Limit::Texts]);
        let (fresh, errors) = complain(&cuts, 8, Duration::from_secs(5));
        assert_eq!((fresh.len(), errors.len()), (0, 1));
        assert_eq!((errors[0].collector.as_str(), errors[0].since), ("limit texts", Timestamp(7)));
        let still = complain(&Cuts::default(), 9, Duration::from_secs(300)).1;
        assert_eq!(still, errors);
        assert!(complain(&Cuts::default(), 10, Duration::from_secs(5) + COMPLAINED_FOR).1.is_empty());
    }

    fn kept(share: &mut Share, cuts: &mut Cuts, update: live::Update<live::Disk>) -> usize {
        let mut sample = live::Sample { disks: Some(update), ..live::Sample::default() };
        share.admit(&mut sample, cuts);
        sample.disks.unwrap().changed.len()
    }

    fn update(whole: bool, rows: std::ops::Range<u32>, bytes: usize) -> live::Update<live::Disk> {
        let changed = rows.map(|n| (key(n), disk(bytes))).collect();
        live::Update { read_at: Timestamp(1), whole, changed, removed: Vec::new(), left_out: 0 }
    }

    fn key(n: u32) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn disk(bytes: usize) -> live::Disk {
        live::Disk {
            device: vec![b'x'; bytes],
            fs: String::new(),
            state: mainstay_common::state::DiskState::Ok,
            aliases: Vec::new(),
            readings: Readings::new(),
            read_at: None,
            reason: String::new(),
        }
    }
}
