//! One episode: a few lives of a log on a disk that fails, and what must hold after each.

use std::collections::BTreeMap;

use super::{
    mistake::{Mistake, Way},
    model::Model,
    tally::Tally,
};
use crate::raft::store::{
    Batch, Entry, EntryKind, HardState, OpenError, Priority, Recovered, SavedCheckpoint, Store, WriteError,
    disk::faulty::{Dice, FaultyDisk},
    sample, segment,
};

/// Runs the episode of a seed. `timeline` is told every step.
///
/// # Errors
/// What the store did that it must never do.
pub(super) fn run(seed: u64, mistake: Option<Mistake>, timeline: &mut dyn FnMut(String)) -> Result<Tally, String> {
    let way = Way { disk: FaultyDisk::new(seed), mistake };
    let store = Store::create(way.clone(), sample::identity(), sample::settings(), &sample::first());
    let store = store.map_err(|error| format!("a log cannot be made: {error}"))?;
    let mut episode = Episode {
        dice: Dice::new(!seed),
        way,
        model: Model::founded(),
        in_flight: None,
        saved: None,
        is_tight: false,
        is_armed: false,
        tally: Tally::default(),
        timeline,
    };
    episode.lives(store)?;
    Ok(episode.tally)
}

struct Episode<'a> {
    dice: Dice,
    way: Way,
    /// What was acknowledged.
    model: Model,
    /// What may be there besides, since it was under way when the disk failed.
    in_flight: Option<Model>,
    saved: Option<SavedCheckpoint>,
    /// The disk has little room.
    is_tight: bool,
    /// A fault is to come in this life.
    is_armed: bool,
    tally: Tally,
    timeline: &'a mut dyn FnMut(String),
}

/// A flipped bit.
struct Flip {
    file: String,
    offset: usize,
    /// The file as it was.
    whole: Vec<u8>,
}

impl Episode<'_> {
    fn lives(&mut self, mut store: Store<Way>) -> Result<(), String> {
        for _ in 0..3 + self.dice.below(5) {
            self.arm();
            for _ in 0..1 + self.dice.below(24) {
                self.act(&mut store)?;
                if self.in_flight.is_some() {
                    break;
                }
            }
            self.saved = None;
            drop(store);
            self.end_life();
            store = self.start()?;
        }
        self.free_room();
        self.write(&mut store, true)?;
        drop(store);
        self.end_life();
        self.start().map(drop)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        (self.timeline)(what());
    }

    /// Decides which faults are to come.
    fn arm(&mut self) {
        let (kind, after) = (self.dice.below(5), self.dice.below(40));
        let disk = &self.way.disk;
        match kind {
            0 | 1 => disk.die_after(Some(after)),
            2 => disk.fail_sync_after(Some(after / 2)),
            3 => disk.fail_write_after(Some(after)),
            _ => {}
        }
        self.is_armed = kind < 4;
        self.note(|| {
            let fault = ["death", "death", "a failed sync", "a failed write", "nothing"][kind];
            format!("to come: {fault}, after {after}")
        });
        if self.dice.percent(30) {
            let bytes = self.way.disk.used_bytes() + self.dice.below(9000);
            self.way.disk.set_room(Some(bytes));
            self.is_tight = true;
            self.note(|| format!("room: {bytes} bytes"));
        }
    }

    fn free_room(&mut self) {
        self.way.disk.set_room(None);
        self.is_tight = false;
    }

    fn act(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        match self.dice.below(100) {
            0..55 => self.write(store, false),
            55..62 => {
                let commit = self.commit(self.model.last().index);
                self.note(|| format!("note commit {commit}"));
                let outcome = store.note_commit(commit);
                self.settle(store, outcome, self.model.after_note(commit))
            }
            62..74 => self.save_checkpoint(store),
            74..80 => self.write_checkpoint(store),
            80..86 => self.adopt(store),
            86..91 => self.install(store),
            91..96 => self.nonsense(store),
            _ => {
                self.note(|| "there is room again".to_owned());
                self.free_room();
                Ok(())
            }
        }
    }

    fn write(&mut self, store: &mut Store<Way>, must_work: bool) -> Result<(), String> {
        let HardState { term, vote, commit } = self.model.hard_state;
        let term = if self.dice.percent(15) { term + 1 } else { term };
        let last = self.model.last().index;
        let first = if self.dice.percent(15) { commit + 1 + self.dice_below(last - commit) } else { last + 1 };
        let count = if must_work { 1 } else { [0, 1, 1, 1, 2, 3][self.dice.below(6)] };
        let entries: Vec<_> = (first..first + count)
            .map(|index| {
                let data = vec![u8::try_from(self.dice.below(256)).unwrap(); self.dice.below(1100)];
                let kind = if self.dice.percent(10) { EntryKind::Configuration } else { EntryKind::Normal };
                Entry { index, term, kind, data }
            })
            .collect();
        let last = if count == 0 { last } else { first + count - 1 };
        let chosen = u64::try_from(self.dice.below(4)).unwrap();
        let vote = if term > self.model.hard_state.term || vote == 0 { chosen } else { vote };
        let hard_state = HardState { term, vote, commit: self.commit(last) };
        let hard_state = Some(hard_state).filter(|_| term > self.model.hard_state.term || self.dice.percent(50));
        let priority = if self.dice.percent(20) { Priority::Essential } else { Priority::Ordinary };
        self.note(|| format!("write {count} entries from {first} on, term {term}, {hard_state:?}, {priority:?}"));
        let outcome = store.write(&Batch { entries: &entries, hard_state, priority });
        if must_work && outcome.is_err() {
            return Err(format!("there is room, and nothing is wrong, but: {outcome:?}"));
        }
        self.settle(store, outcome, self.model.after_write(&entries, hard_state))
    }

    fn save_checkpoint(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        let Some(index) = self.new_checkpoint() else { return Ok(()) };
        self.note(|| format!("save checkpoint {index}"));
        let outcome = store.save_checkpoint(&self.model.checkpoint(index));
        self.tally.checkpoints += u64::from(outcome.is_ok());
        self.settle(store, outcome, self.model.after_adoption(index))
    }

    fn write_checkpoint(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        let Some(index) = self.new_checkpoint().filter(|_| self.saved.is_none()) else { return Ok(()) };
        self.note(|| format!("write checkpoint {index} beside the log"));
        let outcome = store.checkpoint_writer().write(&self.model.checkpoint(index));
        let next = self.model.after_writing_checkpoint(index);
        let outcome = outcome.map(|saved| self.saved = Some(saved));
        self.settle(store, outcome, next)
    }

    fn adopt(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        let Some(saved) = self.saved.take() else { return Ok(()) };
        let index = saved.index;
        self.note(|| format!("adopt checkpoint {index}"));
        let outcome = store.adopt(saved);
        if index > self.model.newest {
            return self.settle(store, outcome, self.model.after_adoption(index));
        }
        match outcome {
            Err(WriteError::Contradiction(_)) => Ok(()),
            Err(broken @ WriteError::Broken(_)) => self.settle(store, Err(broken), self.model.clone()),
            other => Err(format!("a checkpoint counts that is older than another: {other:?}")),
        }
    }

    fn install(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        let HardState { term, vote, commit } = self.model.hard_state;
        let index = commit.max(self.model.newest) + 1 + self.dice_below(6);
        let checkpoint = sample::checkpoint(index, term);
        let hard_state = HardState { term, vote, commit: index };
        self.note(|| format!("install checkpoint {index}"));
        let outcome = store.install(&checkpoint, hard_state);
        self.tally.resets += u64::from(outcome.is_ok());
        self.settle(store, outcome, self.model.after_reset(&checkpoint, hard_state))
    }

    /// What no log may hold is refused, and changes nothing.
    fn nonsense(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        let HardState { term, vote, commit } = self.model.hard_state;
        let last = self.model.last();
        let (index, hard_state) = match self.dice.below(4) {
            0 => (Some(last.index + 2), None),
            1 => (Some(commit), None),
            2 => (None, Some(HardState { term, vote, commit: last.index + 1 })),
            _ => (None, Some(HardState { term: term - 1, vote, commit })),
        };
        let entry = index.map(|index| Entry { index, term, kind: EntryKind::Normal, data: vec![] });
        self.note(|| format!("nonsense: entry {index:?}, {hard_state:?}"));
        let before = self.way.disk.content();
        match store.write(&Batch { entries: entry.as_slice(), hard_state, priority: Priority::Ordinary }) {
            Err(WriteError::Contradiction(_)) if self.way.disk.content() == before => Ok(()),
            other => Err(format!("nonsense is answered with {other:?}")),
        }
    }

    /// What an outcome means for what is known.
    fn settle(&mut self, store: &mut Store<Way>, outcome: Result<(), WriteError>, next: Model) -> Result<(), String> {
        self.note(|| format!("  {outcome:?}"));
        match outcome {
            Ok(()) => {
                self.model = next;
                self.tally.acknowledged += 1;
            }
            Err(WriteError::NoRoom) if self.is_tight => self.tally.refused_full += 1,
            Err(WriteError::Broken(_)) if self.is_armed => {
                self.tally.broken += 1;
                self.in_flight = Some(next);
                self.stays_broken(store)?;
            }
            Err(error) => return Err(format!("without a reason: {error}")),
        }
        if self.in_flight.is_none() && store.last() != self.model.last() {
            return Err(format!("the log ends at {:?}, not at {:?}", store.last(), self.model.last()));
        }
        Ok(())
    }

    fn stays_broken(&mut self, store: &mut Store<Way>) -> Result<(), String> {
        let before = self.way.disk.content();
        let hard_state = HardState { term: self.model.hard_state.term + 9, ..self.model.hard_state };
        let outcome = store.write(&Batch { entries: &[], hard_state: Some(hard_state), priority: Priority::Essential });
        if !matches!(outcome, Err(WriteError::Broken(_))) || self.way.disk.content() != before {
            return Err(format!("after an error of the disk: {outcome:?}"));
        }
        Ok(())
    }

    fn end_life(&mut self) {
        // Dropping the store may have gone on with what no longer works; nothing of it counts.
        let goes = self.dice.percent(if self.way.disk.is_dead() { 70 } else { 40 });
        self.note(|| if goes { "the power goes".to_owned() } else { "the process ends".to_owned() });
        if goes {
            self.way.disk.power_loss();
            self.tally.power_losses += 1;
        } else {
            self.way.disk.revive();
        }
        if self.dice.percent(50) {
            self.free_room();
        }
    }

    /// Opens the log, maybe not at the first attempt, and compares.
    fn start(&mut self) -> Result<Store<Way>, String> {
        let flip = if self.dice.percent(40) { self.flip() } else { None };
        if flip.is_none() && self.dice.percent(20) {
            let after = self.dice.below(8);
            self.note(|| format!("start, with death after {after}"));
            self.way.disk.die_after(Some(after));
            if let Ok((store, recovered)) = self.open() {
                self.way.disk.die_after(None);
                return self.compare(store, &recovered, None);
            }
            if !self.way.disk.is_dead() {
                return Err("the log does not open".to_owned());
            }
            self.tally.deaths_at_start += 1;
            self.end_life();
        }
        let Some(flip) = flip else {
            let (store, recovered) = self.open().map_err(|error| format!("the log does not open: {error}"))?;
            return self.compare(store, &recovered, None);
        };
        self.note(|| format!("flip in {} at {}", flip.file, flip.offset));
        let before = self.way.disk.content();
        match self.open() {
            Ok((store, recovered)) => {
                if recovered.set_aside.is_empty() {
                    self.tally.flips_harmless += 1;
                    self.repair(&flip);
                } else {
                    self.tally.flips_set_aside += 1;
                }
                self.compare(store, &recovered, Some(&flip.file))
            }
            Err(OpenError::Damaged(damage)) => {
                self.note(|| format!("  refused: {damage}"));
                let is_near = if segment::id(&flip.file).is_some() {
                    damage.offset / 512 == flip.offset / 512
                } else {
                    damage.offset <= flip.offset
                };
                if damage.file != flip.file || !is_near {
                    return Err(format!("bit flipped in {} at {}, but: {damage}", flip.file, flip.offset));
                }
                if self.way.disk.content() != before {
                    return Err("a refused start changed something".to_owned());
                }
                self.tally.flips_refused += 1;
                self.repair(&flip);
                let (store, recovered) = self.open().map_err(|error| format!("the log does not open: {error}"))?;
                self.compare(store, &recovered, None)
            }
            Err(other) => Err(format!("bit flipped in {} at {}, but: {other}", flip.file, flip.offset)),
        }
    }

    fn open(&self) -> Result<(Store<Way>, Recovered), OpenError> {
        Store::open(self.way.clone(), sample::settings())
    }

    fn compare(
        &mut self,
        store: Store<Way>,
        recovered: &Recovered,
        damaged: Option<&str>,
    ) -> Result<Store<Way>, String> {
        self.note(|| format!("  opened: checkpoint {}, {:?}", recovered.checkpoint.index, recovered.hard_state));
        if let Some(cut) = &recovered.cut {
            self.tally.cut += 1;
            if self.in_flight.is_none() {
                return Err(format!("nothing was under way, but this was cut: {cut:?}"));
            }
        }
        let in_flight = self.in_flight.take();
        if let Err(why) = self.model.contradicts(&store, recovered, damaged) {
            let Some(in_flight) = in_flight else { return Err(why) };
            in_flight
                .contradicts(&store, recovered, damaged)
                .map_err(|other| format!("{why}; and with what was under way: {other}"))?;
            self.tally.unacknowledged_but_there += 1;
            self.model = in_flight;
        }
        self.model = self.model.after_start(recovered.checkpoint.index);
        self.is_armed = false;
        Ok(store)
    }

    fn flip(&mut self) -> Option<Flip> {
        let content: BTreeMap<_, _> = self.way.disk.content();
        let (file, whole) = content.into_iter().filter(|(_, bytes)| !bytes.is_empty()).nth(self.dice.below(6))?;
        // Half of the time where something was written: most of a segment is zero.
        let written: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        let offset = match written.get(self.dice.below(written.len())) {
            Some(offset) if self.dice.percent(50) => *offset,
            _ => self.dice.below(whole.len()),
        };
        let mut flipped = whole.clone();
        flipped[offset] ^= 1 << self.dice.below(8);
        self.way.disk.put(&file, &flipped);
        Some(Flip { file, offset, whole })
    }

    /// Somebody puts the file back, if it is there still.
    fn repair(&mut self, flip: &Flip) {
        if self.way.disk.content().contains_key(&flip.file) {
            self.way.disk.put(&flip.file, &flip.whole);
        }
    }

    fn new_checkpoint(&mut self) -> Option<u64> {
        let (newest, commit) = (self.model.newest, self.model.hard_state.commit);
        (commit > newest).then(|| newest + 1 + self.dice_below(commit - newest))
    }

    /// A commit index that does not go back.
    fn commit(&mut self, last: u64) -> u64 {
        let commit = self.model.hard_state.commit;
        commit + self.dice_below(last.saturating_sub(commit) + 1)
    }

    fn dice_below(&mut self, end: u64) -> u64 {
        u64::try_from(self.dice.below(usize::try_from(end).unwrap())).unwrap()
    }
}
