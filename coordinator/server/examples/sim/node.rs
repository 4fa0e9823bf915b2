//! One replica: a driver, its state, and its store on a faulty disk.

use std::{collections::VecDeque, time::Duration};

use mainstay_coordinator::raft::{
    Position,
    driver::{Config, Driver, Kept, Mistake, Write, in_records},
    store::{
        Batch, Checkpoint, ConfState, HardState, Identity, Preparing, Priority, Recovered, Settings, Store, WriteError,
        disk::faulty::FaultyDisk,
    },
};

use crate::ledger::Ledger;

/// A machine, whether its program runs or not.
pub(crate) struct Node {
    pub(crate) disk: FaultyDisk,
    pub(crate) replica: Option<Replica>,
    /// Counts starts: what was on its way to an earlier life is dropped.
    pub(crate) life: u64,
    /// Effects until it crashes, and whether the power goes with it.
    pub(crate) crash_in: Option<(u64, bool)>,
    /// It stands still until then.
    pub(crate) paused_until: u64,
    /// A write takes this long, in microseconds.
    pub(crate) write_us: u64,
    pub(crate) hangs: bool,
    /// Never starts again: removed, wiped or damaged.
    pub(crate) is_lost: bool,
    /// A bit of its disk is not what was written: it may refuse to start.
    pub(crate) is_flipped: bool,
    /// Acknowledges what a failed sync may have lost.
    pub(crate) mistake: Option<Mistake>,
}

/// A running program.
pub(crate) struct Replica {
    pub(crate) driver: Driver,
    pub(crate) store: Store<FaultyDisk>,
    pub(crate) ledger: Ledger,
    pub(crate) applied: Position,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) is_writing: bool,
    pub(crate) has_turn: bool,
    /// Checkpoints from elsewhere.
    pub(crate) bodies: Vec<Checkpoint>,
    pub(crate) since_checkpoint: u64,
    pub(crate) is_making_checkpoint: bool,
    /// Members change, and a checkpoint is to be made in the middle of it.
    pub(crate) is_changing: bool,
    pub(crate) conf_state: ConfState,
}

/// What the disk has to do.
pub(crate) enum Job {
    Write(Write),
    NoteCommit(u64),
    Checkpoint(Box<Checkpoint>),
}

/// What came of it.
pub(crate) enum Done {
    Nothing,
    Persisted(u64),
    CheckpointMade(Position, ConfState),
    /// Again later.
    NoRoom,
    /// The program ends; with this mistake the write is acknowledged before.
    Broken(Option<u64>),
}

pub(crate) fn settings() -> Settings {
    Settings {
        segment_bytes: 16 << 10,
        ballast_bytes: 0,
        entries_behind: 5,
        retry_interval: Duration::from_millis(100),
        preparing: Preparing::WhenNeeded,
    }
}

pub(crate) fn identity(replica: u64) -> Identity {
    Identity { cluster: "c1".parse().expect("a name"), generation: 1, replica }
}

impl Node {
    /// A machine whose store holds `first`.
    pub(crate) fn new(id: u64, seed: u64, first: &Checkpoint, mistake: Option<Mistake>) -> Self {
        let disk = FaultyDisk::new(seed ^ (id << 32));
        drop(Store::create(disk.clone(), identity(id), settings(), first).expect("the disk works so far"));
        Self {
            disk,
            replica: None,
            life: 0,
            crash_in: None,
            paused_until: 0,
            write_us: 500,
            hangs: false,
            is_lost: false,
            is_flipped: false,
            mistake,
        }
    }

    /// Opens the store and begins a life.
    ///
    /// # Errors
    /// What the store says; with these faults none may be damaged.
    pub(crate) fn start(&mut self, id: u64, seed: u64) -> Result<(), String> {
        self.life += 1;
        self.crash_in = None;
        let (store, recovered) =
            Store::open(self.disk.clone(), settings()).map_err(|error| format!("{id} does not start: {error}"))?;
        let Recovered { hard_state, checkpoint, before, entries, .. } = recovered;
        let boot = self.life;
        let config = Config { id, boot, seed: seed ^ (id << 16) ^ boot, keep_behind: 5, mistake: self.mistake };
        let kept = Kept {
            hard_state,
            checkpoint: checkpoint.position(),
            conf_state: checkpoint.conf_state.clone(),
            before,
            entries,
        };
        self.replica = Some(Replica {
            driver: Driver::new(config, kept),
            store,
            ledger: Ledger::from_sections(&checkpoint.sections),
            applied: checkpoint.position(),
            jobs: VecDeque::new(),
            is_writing: false,
            has_turn: false,
            bodies: Vec::new(),
            since_checkpoint: 0,
            is_making_checkpoint: false,
            is_changing: false,
            conf_state: checkpoint.conf_state,
        });
        Ok(())
    }
}

impl Replica {
    /// The disk is done with the oldest job.
    pub(crate) fn work(&mut self, mistake: Option<Mistake>) -> Done {
        let Some(job) = self.jobs.pop_front() else { return Done::Nothing };
        let (outcome, number, job) = match job {
            Job::Write(write) => {
                let (outcome, number) = (self.write(&write), write.number);
                (outcome.map(|()| Done::Persisted(number)), Some(number), Job::Write(write))
            }
            Job::NoteCommit(commit) => (self.note_commit(commit).map(|()| Done::Nothing), None, job),
            Job::Checkpoint(checkpoint) => {
                self.is_making_checkpoint = false;
                let (at, conf_state) = (checkpoint.position(), checkpoint.conf_state.clone());
                let done = match self.store.save_checkpoint(&checkpoint) {
                    // One from elsewhere was faster, or there is no room for it now.
                    Err(WriteError::Contradiction(_) | WriteError::NoRoom) => Ok(Done::Nothing),
                    saved => saved.map(|()| Done::CheckpointMade(at, conf_state)),
                };
                (done, None, Job::Checkpoint(checkpoint))
            }
        };
        match outcome {
            Ok(done) => done,
            Err(WriteError::NoRoom) => {
                self.jobs.push_front(job);
                Done::NoRoom
            }
            Err(_) => Done::Broken(number.filter(|_| mistake == Some(Mistake::IgnoreSyncError))),
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), WriteError> {
        if let Some(at) = write.install
            && self.store.hard_state().commit < at.index
        {
            let body = self.bodies.iter().find(|body| body.position() == at).expect("it was received");
            self.store.install(body, HardState { commit: at.index, ..write.hard_state })?;
        }
        let (last, commit, limit) =
            (self.store.last().index, self.store.hard_state().commit, self.store.batch_limit_bytes());
        for (entries, hard_state) in in_records(&write.entries, write.hard_state, last, commit, limit) {
            self.store.write(&Batch { entries, hard_state: Some(hard_state), priority: Priority::Essential })?;
        }
        Ok(())
    }

    fn note_commit(&mut self, commit: u64) -> Result<(), WriteError> {
        let commit = commit.min(self.store.last().index);
        if commit > self.store.hard_state().commit { self.store.note_commit(commit) } else { Ok(()) }
    }

    /// What its disk would give back to Raft.
    pub(crate) fn kept(&self) -> (u64, u64, Position) {
        let HardState { term, vote, .. } = self.store.hard_state();
        (term, vote, self.store.last())
    }

    /// All of the state now.
    pub(crate) fn checkpoint(&self, mistake: Option<Mistake>) -> Checkpoint {
        let forgets = mistake == Some(Mistake::ForgetMembers);
        Checkpoint {
            index: self.applied.index,
            term: self.applied.term,
            conf_state: if forgets { self.driver.conf_state() } else { self.conf_state.clone() },
            sections: self.ledger.sections(),
        }
    }
}
