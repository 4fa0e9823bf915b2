//! Segments made ready ahead of time, so that a full disk is met here and not in the middle of a record.
//!
//! Two spare segments and the ballast are the reserve. When there is no room to fill them up, ordinary batches are
//! refused; essential ones use up the spares, then the room that the ballast took. Room for the reserve ends it.

mod stock;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use self::stock::{Step, Stock};
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

    /// Whether something would be admitted, as far as is known; asks no disk.
    pub(super) fn admits(&self, priority: Priority) -> bool {
        let stock = self.stock();
        let reserved = !stock.spares.is_empty() || stock.ballast == Ballast::There;
        !stock.short || priority == Priority::Essential && reserved
    }

    /// Tries again to fill up the reserve.
    pub(super) fn look_for_room(&self) {
        self.fill_up_when_needed();
        self.look_again();
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
