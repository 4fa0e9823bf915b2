//! The disk's thread: one write in flight, and all that waits becomes the next one.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};

use super::ESSENTIAL_BYTES;
use crate::{
    failpoint,
    raft::{
        Position, Pulse,
        driver::{Write, in_records},
        mail::Receiver,
        store::{Batch, ConfState, Disk, Entry, HardState, Priority, Received, SavedCheckpoint, Store, WriteError},
    },
};

/// What the disk is asked to do.
pub(super) enum Job {
    /// Make this durable; the body is there where a checkpoint is to be installed.
    Write(Write, Option<Arc<Received>>),
    /// Entries are committed up to here.
    NoteCommit(u64),
    /// Let a checkpoint count that is durable.
    Adopt(SavedCheckpoint, Position, ConfState),
    /// Something was refused for want of room: is there some by now?
    LookForRoom,
    End,
}

/// What the disk says.
pub(in crate::raft) enum Done {
    /// The write of this number, and all before it.
    Persisted(u64),
    /// The checkpoint counts.
    Adopted(Position, ConfState),
    /// A write waits for room, or no more.
    Full(bool),
    /// Nothing can be written any more.
    Failed(String),
    /// The thread is gone.
    Gone,
}

/// Says that the thread is gone, however that came.
struct Farewell<F: Fn(Done)>(F);

impl<F: Fn(Done)> Drop for Farewell<F> {
    fn drop(&mut self) {
        (self.0)(Done::Gone);
    }
}

/// The thread's life.
pub(super) fn run<D: Disk>(store: Store<D>, jobs: Receiver<Job>, retry: Duration, pulse: &Pulse, tell: impl Fn(Done)) {
    let farewell = Farewell(tell);
    let commit = store.hard_state().commit;
    pulse.log_bytes.store(store.log_bytes(), Relaxed);
    let mut desk = Desk { store, jobs, waiting: VecDeque::new(), retry, pulse, tell: &farewell.0, commit, ends: false };
    match desk.work() {
        Err(Halt::Broken(error)) => (farewell.0)(Done::Failed(error.to_string())),
        // What waited for room was never told as durable.
        Ok(()) | Err(Halt::Ends) => {}
    }
}

/// Why nothing more is written.
enum Halt {
    Broken(WriteError),
    /// The replica ends while something waits for room.
    Ends,
}

impl From<WriteError> for Halt {
    fn from(error: WriteError) -> Self {
        Self::Broken(error)
    }
}

struct Desk<'a, D: Disk> {
    store: Store<D>,
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    retry: Duration,
    pulse: &'a Pulse,
    tell: &'a dyn Fn(Done),
    /// The highest commit index that any job named.
    commit: u64,
    ends: bool,
}

/// Writes that become durable together.
#[derive(Default)]
struct Merged {
    number: u64,
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
}

impl Merged {
    fn add(&mut self, write: Write) {
        let Write { number, entries, hard_state, .. } = write;
        (self.number, self.hard_state) = (number, Some(hard_state));
        if let (Some(next), Some(first)) = (entries.first(), self.entries.first()) {
            let keep = usize::try_from(next.index.saturating_sub(first.index)).unwrap_or(usize::MAX);
            self.entries.truncate(keep);
        }
        self.entries.extend(entries);
    }
}

impl<D: Disk> Desk<'_, D> {
    fn work(&mut self) -> Result<(), Halt> {
        while let Some(first) = self.next() {
            let (mut merged, mut job) = (Merged::default(), Some(first));
            while let Some(next) = job.take() {
                match next {
                    Job::Write(write, None) => merged.add(write),
                    Job::Write(write, Some(body)) => {
                        self.write(std::mem::take(&mut merged))?;
                        self.install(&write, &body)?;
                        merged.add(write);
                    }
                    Job::NoteCommit(commit) => self.commit = self.commit.max(commit),
                    Job::Adopt(saved, at, conf_state) => {
                        self.write(std::mem::take(&mut merged))?;
                        self.adopt(saved, at, conf_state)?;
                    }
                    Job::LookForRoom => self.store.look_for_room(),
                    Job::End => self.ends = true,
                }
                job = self.waiting.pop_front().or_else(|| self.jobs.try_recv());
            }
            self.write(merged)?;
            self.note_commit()?;
            if self.ends {
                break;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Job> {
        self.waiting.pop_front().or_else(|| self.jobs.recv())
    }

    /// As few records as it takes. The term goes with the first of them: no entry is there without its term.
    fn write(&mut self, merged: Merged) -> Result<(), Halt> {
        let Merged { number, entries, hard_state: Some(hard_state) } = merged else { return Ok(()) };
        self.commit = self.commit.max(hard_state.commit);
        let (last, commit) = (self.store.last().index, self.store.hard_state().commit);
        let begun = Instant::now();
        for (part, hard_state) in in_records(&entries, hard_state, last, commit, self.store.batch_limit_bytes()) {
            self.write_part(part, hard_state)?;
        }
        self.pulse.wrote(begun.elapsed());
        self.pulse.log_bytes.store(self.store.log_bytes(), Relaxed);
        if entries.iter().any(|entry| !entry.data.is_empty()) {
            failpoint::reach("log-written");
        }
        (self.tell)(Done::Persisted(number));
        Ok(())
    }

    /// On a full disk in parts that are small enough for its reserve; in the end it waits for room.
    fn write_part(&mut self, part: &[Entry], hard_state: HardState) -> Result<(), Halt> {
        let whole = write_record(&mut self.store, part, hard_state, Priority::Ordinary);
        if whole != Err(WriteError::NoRoom) {
            return Ok(whole?);
        }
        let (last, commit, mut told) = (self.store.last().index, self.store.hard_state().commit, false);
        for (entries, hard_state) in in_records(part, hard_state, last, commit, ESSENTIAL_BYTES) {
            let essential = |store: &mut Store<D>| write_record(store, entries, hard_state, Priority::Essential);
            self.patiently(&mut told, essential)?;
        }
        self.has_room_again(told);
        Ok(())
    }

    /// Does it as soon as there is room; `told` where somebody knows that it waits.
    fn patiently(
        &mut self,
        told: &mut bool,
        mut attempt: impl FnMut(&mut Store<D>) -> Result<(), WriteError>,
    ) -> Result<(), Halt> {
        while let Err(error) = attempt(&mut self.store) {
            if error != WriteError::NoRoom {
                return Err(error.into());
            }
            if !std::mem::replace(told, true) {
                (self.tell)(Done::Full(true));
            }
            self.wait_for_room()?;
        }
        Ok(())
    }

    fn has_room_again(&self, told: bool) {
        if told {
            (self.tell)(Done::Full(false));
        }
    }

    /// Waits a while; a checkpoint that is done meanwhile makes room. The replica may end instead.
    fn wait_for_room(&mut self) -> Result<(), Halt> {
        match self.jobs.recv_timeout(self.retry) {
            Ok(Job::Adopt(saved, at, conf_state)) => self.adopt(saved, at, conf_state)?,
            Ok(Job::End) | Err(RecvTimeoutError::Disconnected) => return Err(Halt::Ends),
            Ok(Job::NoteCommit(commit)) => self.commit = self.commit.max(commit),
            Ok(Job::LookForRoom) | Err(RecvTimeoutError::Timeout) => self.store.look_for_room(),
            Ok(write @ Job::Write(..)) => self.waiting.push_back(write),
        }
        Ok(())
    }

    fn install(&mut self, write: &Write, body: &Received) -> Result<(), Halt> {
        let hard_state = HardState { commit: body.position().index, ..write.hard_state };
        let mut told = false;
        self.patiently(&mut told, |store| store.install_received(body, hard_state))?;
        self.has_room_again(told);
        Ok(())
    }

    fn adopt(&mut self, saved: SavedCheckpoint, at: Position, conf_state: ConfState) -> Result<(), WriteError> {
        self.note_commit()?;
        match self.store.adopt(saved) {
            Ok(()) => {
                failpoint::reach("checkpoint-adopted");
                (self.tell)(Done::Adopted(at, conf_state));
            }
            // One from elsewhere was faster.
            Err(WriteError::Contradiction(why)) => tracing::debug!(%why, "a checkpoint does not count"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn note_commit(&mut self) -> Result<(), WriteError> {
        let commit = self.commit.min(self.store.last().index);
        if commit > self.store.hard_state().commit { self.store.note_commit(commit) } else { Ok(()) }
    }
}

fn write_record<D: Disk>(
    store: &mut Store<D>,
    entries: &[Entry],
    hard_state: HardState,
    priority: Priority,
) -> Result<(), WriteError> {
    // A checkpoint that was adopted while this waited for room has noted more.
    let commit = hard_state.commit.max(store.hard_state().commit);
    store.write(&Batch { entries, hard_state: Some(HardState { commit, ..hard_state }), priority })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::raft::{
        mail,
        store::{
            EntryKind,
            disk::faulty::FaultyDisk,
            sample::{entry, first, identity, settings},
        },
    };

    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn what_waits_is_merged_and_a_later_leaders_entries_replace_earlier_ones() {
        let write = |number, first: u64, term, count| {
            let entry = |index| Entry { index, term, kind: EntryKind::Normal, data: vec![] };
            let hard_state = HardState { term, vote: 1, commit: 1 };
            Write { number, install: None, entries: (first..first + count).map(entry).collect(), hard_state }
        };
        let mut merged = Merged::default();
        for write in [write(1, 5, 2, 3), write(2, 8, 2, 2), write(4, 6, 3, 1), write(5, 9, 3, 0)] {
            merged.add(write);
        }
        let places: Vec<_> = merged.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!((merged.number, places), (5, vec![(5, 2), (6, 3)]));
        merged.add(write(6, 3, 4, 1));
        assert_eq!(merged.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn what_waits_for_room_is_not_told_as_durable_before_it_is() {
        for ends in [false, true] {
            let disk = FaultyDisk::new(1);
            let (jobs, todo) = mail::channel();
            let (tell, told) = mpsc::channel();
            let store = Store::create(disk.clone(), identity(), settings(), &first()).unwrap();
            store.look_for_room();
            disk.set_room(Some(disk.used_bytes()));
            let begun = store.last().index;
            let desk = thread::spawn(move || {
                run(store, todo, Duration::from_millis(5), &Pulse::default(), |done| tell.send(done).unwrap());
            });
            let write = |number| {
                let hard_state = HardState { term: 1, vote: 7, commit: begun };
                let write = Write { number, install: None, entries: vec![entry(begun + number, 1)], hard_state };
                jobs.send(Job::Write(write, None)).unwrap();
            };
            let (mut number, mut durable) = (0, 0);
            let stuck = loop {
                number += 1;
                write(number);
                match told.recv_timeout(DEADLINE).unwrap() {
                    Done::Persisted(done) => durable = done,
                    Done::Full(is_full) => break is_full,
                    Done::Adopted(..) | Done::Failed(_) | Done::Gone => panic!("after {number}"),
                }
            };
            assert!(stuck && number == durable + 1, "{number} {durable}");
            if !ends {
                disk.set_room(None);
                assert!(matches!(told.recv_timeout(DEADLINE), Ok(Done::Full(false))));
                assert!(matches!(told.recv_timeout(DEADLINE), Ok(Done::Persisted(done)) if done == number));
                durable = number;
            }
            jobs.send(Job::End).unwrap();
            assert!(matches!(told.recv_timeout(DEADLINE), Ok(Done::Gone)));
            desk.join().unwrap();
            disk.power_loss();
            disk.set_room(None);
            let (store, _) = Store::open(disk, settings()).unwrap();
            assert_eq!(store.last().index, begun + durable);
        }
    }
}
