//! Segments made ready ahead of time, so that a full disk is met here and not in the middle of a record.
//!
//! Two spare segments and the ballast are the reserve. When there is no room to fill them up, ordinary batches are
//! refused; essential ones use up the spares, then the room that the ballast took. Room for the reserve ends it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use super::{
    Preparing, Settings,
    disk::Disk,
    error::WriteError,
    health::Health,
    log::Priority,
    place::{PlaceError, fill, place},
    segment,
};

/// Spare segments that are kept ready; with fewer of them, only what is essential gets one.
pub(super) const SPARES: usize = 2;
/// The file that only takes up room.
pub(super) const BALLAST: &str = "ballast";

/// A segment that is all zero and durable, and was never used.
#[derive(Debug)]
pub(super) struct Spare<F> {
    pub(super) id: u64,
    pub(super) file: F,
}

/// What there is at the start.
pub(super) struct Ready<F> {
    pub(super) spares: VecDeque<Spare<F>>,
    /// The number of the next segment to make.
    pub(super) next_id: u64,
    pub(super) ballast: Ballast,
}

/// Where the ballast is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ballast {
    /// The settings want none.
    Unwanted,
    /// It has to be made.
    Missing,
    /// It takes up its room.
    There,
}

/// Keeps the reserve, in a thread of its own or when asked. The thread ends with it.
#[derive(Debug)]
pub(super) struct Preparation<D: Disk> {
    reserve: Arc<Reserve<D>>,
    thread: Option<JoinHandle<()>>,
}

/// The reserve, as all who use the disk share it.
#[derive(Debug)]
pub(super) struct Reserve<D: Disk> {
    disk: Arc<D>,
    settings: Settings,
    health: Health,
    stock: Mutex<Stock<D::File>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Stock<F> {
    spares: VecDeque<Spare<F>>,
    next_id: u64,
    ballast: Ballast,
    /// The last attempt met a full disk, and the reserve was not whole since.
    short: bool,
    /// Something essential waits for a segment: the ballast may go.
    urgent: bool,
    /// A checkpoint uses the ballast's room: nothing else may take it meanwhile.
    lent: bool,
    /// Files were removed: an attempt is worth it now.
    worth_it: bool,
    stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    MakeSegment(u64),
    MakeBallast,
    DropBallast,
}

impl<F> Stock<F> {
    fn next_step(&self) -> Option<Step> {
        if self.lent {
            None
        } else if self.urgent && self.short && self.spares.is_empty() && self.ballast == Ballast::There {
            Some(Step::DropBallast)
        } else if self.spares.len() < SPARES {
            Some(Step::MakeSegment(self.next_id))
        } else if self.ballast == Ballast::Missing {
            Some(Step::MakeBallast)
        } else {
            None
        }
    }

    fn is_whole(&self) -> bool {
        self.spares.len() >= SPARES && self.ballast != Ballast::Missing
    }

    fn has_one_for(&self, priority: Priority) -> bool {
        match priority {
            Priority::Ordinary => self.spares.len() >= SPARES && !self.short,
            Priority::Essential => !self.spares.is_empty(),
        }
    }
}

impl<D: Disk> Preparation<D> {
    pub(super) fn start(disk: Arc<D>, settings: Settings, health: Health, ready: Ready<D::File>) -> io::Result<Self> {
        let Ready { spares, next_id, ballast } = ready;
        let stock = Stock {
            spares,
            next_id,
            ballast,
            short: false,
            urgent: false,
            lent: false,
            worth_it: false,
            stopping: false,
        };
        let (stock, changed) = (Mutex::new(stock), Condvar::new());
        let reserve = Arc::new(Reserve { disk, settings, health, stock, changed });
        let thread = match reserve.settings.preparing {
            Preparing::InBackground => {
                let reserve = Arc::clone(&reserve);
                Some(thread::Builder::new().name("log-segments".into()).spawn(move || reserve.keep())?)
            }
            Preparing::WhenNeeded => None,
        };
        Ok(Self { reserve, thread })
    }

    pub(super) fn reserve(&self) -> &Arc<Reserve<D>> {
        &self.reserve
    }
}

impl<D: Disk> Drop for Preparation<D> {
    fn drop(&mut self) {
        self.reserve.stock().stopping = true;
        self.reserve.changed.notify_all();
        // A thread that panicked has reported it already.
        self.thread.take().map_or(Ok(()), JoinHandle::join).unwrap_or(());
    }
}

impl<D: Disk> Reserve<D> {
    /// Refuses what is not essential while the reserve is not whole.
    pub(super) fn admit(&self, priority: Priority) -> Result<(), WriteError> {
        self.fill_up_when_needed();
        self.health.check()?;
        if priority == Priority::Ordinary && self.stock().short { Err(WriteError::NoRoom) } else { Ok(()) }
    }

    /// Takes a spare segment; waits for one that is being made.
    pub(super) fn take(&self, priority: Priority) -> Result<Spare<D::File>, WriteError> {
        self.fill_up_when_needed();
        let mut asked = false;
        loop {
            let mut stock = self.stock();
            // Under the lock: whoever fails holds it, and wakes us after that.
            self.health.check()?;
            if stock.has_one_for(priority) {
                let spare = stock.spares.pop_front().ok_or(WriteError::NoRoom)?;
                stock.urgent = false;
                drop(stock);
                self.changed.notify_all();
                return Ok(spare);
            }
            if stock.short {
                if priority == Priority::Ordinary || (asked && !stock.urgent) {
                    return Err(WriteError::NoRoom);
                }
                (stock.urgent, asked) = (true, true);
                self.changed.notify_all();
            }
            match self.settings.preparing {
                Preparing::InBackground => drop(self.changed.wait(stock).unwrap_or_else(PoisonError::into_inner)),
                Preparing::WhenNeeded => {
                    drop(stock);
                    self.fill_up_when_needed();
                }
            }
        }
    }

    /// Gives the ballast's room to a checkpoint, which will give back more; [`Reserve::take_back`] ends it. False where
    /// there is no ballast to give.
    pub(super) fn lend_ballast(&self) -> Result<bool, WriteError> {
        let mut stock = self.stock();
        let there = stock.ballast == Ballast::There;
        (stock.short, stock.lent) = (true, true);
        drop(stock);
        if there {
            self.drop_ballast().map_err(|error| self.health.fail(BALLAST, &error))?;
        }
        Ok(there)
    }

    /// The checkpoint is done.
    pub(super) fn take_back(&self) {
        self.stock().lent = false;
        self.look_again();
    }

    /// Files were removed: there may be room again.
    pub(super) fn look_again(&self) {
        self.stock().worth_it = true;
        self.changed.notify_all();
    }

    /// The thread's life.
    fn keep(&self) {
        let _alarm = Alarm(self);
        let mut rest = false;
        loop {
            let mut stock = self.stock();
            if rest {
                let idle = |stock: &mut Stock<D::File>| !(stock.stopping || stock.urgent || stock.worth_it);
                let waited = self.changed.wait_timeout_while(stock, self.settings.retry_interval, idle);
                stock = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                let idle = |stock: &mut Stock<D::File>| !stock.stopping && stock.next_step().is_none();
                stock = self.changed.wait_while(stock, idle).unwrap_or_else(PoisonError::into_inner);
            }
            if stock.stopping || self.health.check().is_err() {
                return;
            }
            stock.worth_it = false;
            let step = stock.next_step();
            drop(stock);
            rest = step.is_some_and(|step| !self.carry_out(step));
        }
    }

    /// Without a thread: steps until the reserve is whole or the disk is full.
    fn fill_up_when_needed(&self) {
        while self.settings.preparing == Preparing::WhenNeeded && self.health.check().is_ok() {
            let step = self.stock().next_step();
            match step {
                None => return,
                Some(step) => {
                    if !self.carry_out(step) && self.stock().next_step() != Some(Step::DropBallast) {
                        return;
                    }
                }
            }
        }
    }

    /// One step, with the stock unlocked while the disk works. False where there was no room for it.
    fn carry_out(&self, step: Step) -> bool {
        let outcome = match step {
            Step::MakeSegment(id) => self.make(&segment::file(id), self.settings.segment_bytes).map(Some),
            Step::MakeBallast => self.make(BALLAST, self.settings.ballast_bytes).map(Some),
            Step::DropBallast => self.drop_ballast().map(|()| None).map_err(PlaceError::Disk),
        };
        let mut stock = self.stock();
        let done = match outcome {
            Ok(file) => {
                match step {
                    Step::MakeSegment(id) => {
                        stock.spares.extend(file.map(|file| Spare { id, file }));
                        stock.next_id = id + 1;
                    }
                    Step::MakeBallast => stock.ballast = Ballast::There,
                    Step::DropBallast => {}
                }
                true
            }
            Err(PlaceError::NoRoom) => {
                stock.short = true;
                // With the ballast gone there is nothing left to try for whoever waits.
                stock.urgent &= stock.ballast == Ballast::There;
                false
            }
            Err(PlaceError::Disk(error)) => {
                self.health.fail(&format!("{step:?}"), &error);
                false
            }
        };
        stock.short &= !stock.is_whole();
        drop(stock);
        self.changed.notify_all();
        done
    }

    fn make(&self, name: &str, bytes: u64) -> Result<D::File, PlaceError> {
        place(&*self.disk, name, |file| fill::<D>(file, bytes))
    }

    fn drop_ballast(&self) -> io::Result<()> {
        if std::mem::replace(&mut self.stock().ballast, Ballast::Missing) != Ballast::There {
            return Ok(());
        }
        self.disk.remove(BALLAST)?;
        self.disk.sync_dir()
    }

    fn stock(&self) -> MutexGuard<'_, Stock<D::File>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes whoever waits for the thread when it ends, however that comes.
struct Alarm<'a, D: Disk>(&'a Reserve<D>);

impl<D: Disk> Drop for Alarm<'_, D> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.health.fail("making segments", &"the thread panicked");
        }
        drop(self.0.stock());
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::raft::store::{
        Batch, Store,
        disk::{Folder, faulty::FaultyDisk},
        sample::*,
    };

    #[test]
    fn a_full_disk_refuses_before_anything_is_written_and_goes_on_when_there_is_room() {
        let disk = FaultyDisk::new(1);
        let mut store = created(&disk);
        append(&mut store, 2..=3);
        disk.set_room(Some(disk.used_bytes()));
        let mut last = 3;
        let refused = loop {
            let before = disk.content();
            match write(&mut store, &[entry(last + 1, 1)], None) {
                Ok(()) => last += 1,
                Err(error) => {
                    assert_eq!(disk.content(), before);
                    break error;
                }
            }
        };
        assert_eq!(refused, WriteError::NoRoom);
        assert!(last < 12, "the reserve is not for ordinary batches");
        drop(store);
        let (mut store, recovered) = opened(&disk);
        assert_eq!(recovered.entries.last().unwrap().index, last);
        disk.set_room(None);
        append(&mut store, last + 1..=last + 40);
    }

    #[test]
    fn the_reserve_is_for_what_is_essential() {
        let disk = FaultyDisk::new(1);
        let mut store = created(&disk);
        append(&mut store, 2..=3);
        disk.set_room(Some(disk.used_bytes()));
        while append_next(&mut store).is_ok() {}
        let full_at = store.last().index;
        let refused = loop {
            if let Err(error) = vote(&mut store, full_at) {
                break error;
            }
            assert_eq!(write(&mut store, &[entry(full_at + 1, 1)], None), Err(WriteError::NoRoom));
        };
        assert_eq!(refused, WriteError::NoRoom);
        let votes = store.tail.hard_state.term - 1;
        // Seven records in the spare and in each of two segments out of the ballast, and what was left of the active one.
        assert!((21..=28).contains(&votes), "{votes} votes");
        assert!(!disk.content().contains_key(BALLAST));
        disk.set_room(None);
        write(&mut store, &[entry(full_at + 1, 1)], None).unwrap();
        assert_eq!(disk.content()[BALLAST], vec![0; 8192], "it is whole again before anything ordinary");
    }

    #[test]
    fn a_checkpoint_gets_the_ballast_and_gives_room_back() {
        let disk = FaultyDisk::new(1);
        let mut store = created(&disk);
        append(&mut store, 2..=60);
        disk.set_room(Some(disk.used_bytes()));
        let ballast = disk.content()[BALLAST].len();
        store.save_checkpoint(&checkpoint(30, 1)).unwrap();
        store.save_checkpoint(&checkpoint(50, 1)).unwrap();
        store.note_commit(60).unwrap();
        write(&mut store, &[entry(61, 1)], None).unwrap();
        assert_eq!(disk.content()[BALLAST].len(), ballast, "what it made superfluous was enough");

        let mut huge = checkpoint(60, 1);
        huge.sections[0].bytes = vec![0; 1 << 20];
        assert_eq!(store.save_checkpoint(&huge), Err(WriteError::NoRoom));
        assert!(!disk.content().keys().any(|name| name.ends_with(".tmp")));
        disk.set_room(None);
        store.save_checkpoint(&huge).unwrap();
    }

    #[test]
    fn a_large_batch_is_never_essential() {
        let disk = FaultyDisk::new(1);
        let settings = Settings { segment_bytes: 256 << 10, ballast_bytes: 0, ..settings() };
        let mut store = Store::create(disk.clone(), identity(), settings, &first()).unwrap();
        disk.set_room(Some(disk.used_bytes()));
        let mut large = entry(2, 1);
        large.data = vec![1; 70 << 10];
        let refused = loop {
            let batch =
                Batch { entries: std::slice::from_ref(&large), hard_state: None, priority: Priority::Essential };
            if let Err(error) = store.write(&batch) {
                break error;
            }
            large.index += 1;
        };
        assert_eq!(refused, WriteError::NoRoom);
        let last = store.last().index;
        vote(&mut store, last).unwrap();
    }

    #[test]
    fn a_disk_that_fails_while_segments_are_made_ends_the_store() {
        let disk = FaultyDisk::new(1);
        let mut store = created(&disk);
        write(&mut store, &[entry(2, 1)], None).unwrap();
        let name = segment::file(store.preparation.reserve().stock().next_id);
        disk.put(&format!("{name}.tmp"), b"in the way");
        let broken = loop {
            if let Err(error) = append_next(&mut store) {
                break error;
            }
        };
        assert!(matches!(broken, WriteError::Broken(_)), "{broken}");
    }

    #[test]
    fn the_thread_keeps_segments_ready() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::at(parent.path().join("log")).unwrap();
        let settings = Settings { preparing: Preparing::InBackground, ..settings() };
        let mut store = Store::create(folder.clone(), identity(), settings.clone(), &first()).unwrap();
        for index in 2..=200 {
            store
                .write(&Batch { entries: &[entry(index, 1)], hard_state: None, priority: Priority::Ordinary })
                .unwrap();
        }
        drop(store);
        let (store, recovered) = Store::open(folder.clone(), settings).unwrap();
        assert_eq!(indexes(&recovered), (2..=200).collect::<Vec<_>>());
        eventually("the reserve is whole", || store.preparation.reserve().stock().is_whole());
    }

    #[test]
    fn the_thread_goes_on_by_itself_when_there_is_room() {
        let disk = FaultyDisk::new(1);
        let settings = Settings { preparing: Preparing::InBackground, ..settings() };
        let mut store = Store::create(disk.clone(), identity(), settings, &first()).unwrap();
        eventually("the reserve is whole", || store.preparation.reserve().stock().is_whole());
        disk.set_room(Some(disk.used_bytes()));
        while append_next(&mut store).is_ok() {}
        assert_eq!(append_next(&mut store), Err(WriteError::NoRoom));
        let at = store.last().index;
        while vote(&mut store, at).is_ok() {}
        assert_eq!(vote(&mut store, at), Err(WriteError::NoRoom));
        disk.set_room(None);
        eventually("ordinary batches are taken again", || write(&mut store, &[entry(at + 1, 1)], None).is_ok());
    }

    #[test]
    fn the_thread_tells_of_a_disk_that_failed() {
        let disk = FaultyDisk::new(1);
        let settings = Settings { preparing: Preparing::InBackground, ..settings() };
        let mut store = Store::create(disk.clone(), identity(), settings, &first()).unwrap();
        eventually("the reserve is whole", || store.preparation.reserve().stock().is_whole());
        disk.put(&format!("{}.tmp", segment::file(4)), b"in the way");
        let broken = loop {
            if let Err(error) = append_next(&mut store) {
                break error;
            }
        };
        assert!(matches!(broken, WriteError::Broken(_)), "{broken}");
    }

    fn vote(store: &mut Store<FaultyDisk>, commit: u64) -> Result<(), WriteError> {
        let term = store.tail.hard_state.term + 1;
        let commit = commit.min(store.tail.hard_state.commit);
        store.write(&Batch {
            entries: &[],
            hard_state: Some(hard_state(term, 7, commit)),
            priority: Priority::Essential,
        })
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < end, "not within 30 s: {what}");
            thread::yield_now();
        }
    }
}
