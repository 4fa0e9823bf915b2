//! The log's thread: it turns what comes in into inputs of the driver, and its effects into deeds.

mod checkpoints;
mod deeds;
mod disk;
mod inlet;
mod message;

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::{
    disk::{Done, Job},
    message::Waiting,
};
pub(super) use self::{
    inlet::{Inlet, Outlet, Put},
    message::{Arrived, Message, Outlets, Proposal},
};
use super::{
    ChangeError, End, Machine, Observer, ProposeError, Pulse, ReadError, Settings,
    agreement::{Agreement, StateHash},
    driver::{Driver, Input, Role, Stop, TICK, Ticket},
    keeping::Keeping,
    mail::{self, Receiver, Sender},
    peers::Peers,
    store::{CheckpointWriter, ConfState, Disk, Position, Priority, Room, Store},
};
use crate::failpoint;

/// What an entry takes in a record besides its data.
const ENTRY_HEADER: usize = 13;
/// An essential batch has to be small when the disk is full.
const ESSENTIAL_BYTES: usize = 32 << 10;
/// The most messages that are taken in before a turn.
const GATHER: usize = 4096;
/// A leader takes no more proposals while so many writes are under way: one is being done, the next one waits. What comes
/// meanwhile goes to followers and disks as one batch.
const PIPELINE: usize = 2;
/// Whoever follows the state is woken this often at most: a busy leader changes it a thousand times a second, and every
/// change would wake every session. What is read is always the newest.
const WAKE_EVERY: Duration = Duration::from_millis(10);
/// How long an end waits for another leader and for what is being written.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How long it then waits for whoever uses the disk: a disk that hangs must not keep the process.
const HANG_PATIENCE: Duration = Duration::from_secs(1);

/// The parts of a log, which `start` alone puts together.
pub(super) struct Parts<D: Disk, M: Machine> {
    pub(super) driver: Driver,
    pub(super) store: Store<D>,
    pub(super) state: M,
    pub(super) applied: Position,
    /// Of the checkpoint that it began with.
    pub(super) hash: StateHash,
    pub(super) observers: Vec<Box<dyn Observer<M>>>,
    pub(super) keeping: Keeping<M>,
    pub(super) settings: Settings,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) inbox: Sender<Message<M>>,
    pub(super) messages: Receiver<Message<M>>,
    pub(super) proposals: Outlet<M>,
    pub(super) outlets: Outlets<M>,
    pub(super) pulse: Arc<Pulse>,
}

pub(super) struct Runner<D: Disk, M: Machine> {
    driver: Driver,
    state: M,
    applied: Position,
    /// As of there.
    members: ConfState,
    agreement: Agreement,
    observers: Vec<Box<dyn Observer<M>>>,
    keeping: Keeping<M>,
    peers: Arc<dyn Peers>,
    messages: Receiver<Message<M>>,
    proposals: Outlet<M>,
    /// There are some that were not taken yet.
    is_nudged: bool,
    outlets: Outlets<M>,
    /// When the state's followers were woken last, and whether they do not know of a change since.
    woken: Instant,
    owes_wake: bool,
    /// How far entries are committed, where the disk's thread was not told yet; 0 where it was.
    noted: u64,
    pulse: Arc<Pulse>,
    checkpoints: CheckpointWriter<D>,
    room: Room<D>,
    jobs: Sender<Job>,
    disk: Option<JoinHandle<()>>,
    next_ticket: Ticket,
    waiting: BTreeMap<Ticket, Waiting<M>>,
    /// Checkpoints that came from elsewhere and are not installed yet, by index.
    bodies: BTreeMap<u64, Arrived<M>>,
    /// A write waits for room.
    is_full: bool,
    /// Until when the end is put off.
    ends: Option<Instant>,
    end: Option<End>,
}

impl<D: Disk, M: Machine> Runner<D, M> {
    /// Starts the disk's thread.
    pub(super) fn new(parts: Parts<D, M>) -> std::io::Result<Self> {
        let Parts { driver, store, state, applied, hash, observers, keeping, settings, peers, inbox, .. } = parts;
        let (messages, proposals, outlets, pulse) = (parts.messages, parts.proposals, parts.outlets, parts.pulse);
        let (jobs, todo) = mail::channel();
        let (checkpoints, room) = (store.checkpoint_writer(), store.room());
        // With the log's thread gone nobody waits for it.
        let tell = move |done| inbox.send(Message::Disk(done)).unwrap_or(());
        let counts = Arc::clone(&pulse);
        let life = move || disk::run(store, todo, settings.retry_interval, &counts, tell);
        let disk = thread::Builder::new().name("log-disk".into()).spawn(life)?;
        let members = driver.conf_state();
        let mut runner = Self {
            driver,
            state,
            applied,
            members,
            agreement: Agreement::default(),
            observers,
            keeping,
            peers,
            messages,
            proposals,
            is_nudged: false,
            outlets,
            woken: Instant::now(),
            owes_wake: false,
            noted: 0,
            pulse,
            checkpoints,
            room,
            jobs,
            disk: Some(disk),
            next_ticket: 1,
            waiting: BTreeMap::new(),
            bodies: BTreeMap::new(),
            is_full: false,
            ends: None,
            end: None,
        };
        runner.has(hash);
        Ok(runner)
    }

    /// The thread's life.
    pub(super) fn run(mut self) -> End {
        self.driver.campaign_if_sole();
        let mut next_tick = Instant::now() + TICK;
        let end = loop {
            self.gather(if self.owes_wake { next_tick.min(self.woken + WAKE_EVERY) } else { next_tick });
            let now = Instant::now();
            if self.owes_wake && now >= self.woken + WAKE_EVERY {
                self.wake(now);
            }
            if now >= next_tick {
                self.driver.feed(Input::Tick);
                self.outlets.standing.send_replace(Some(self.driver.status()));
                // After a pause one tick comes, not a burst: a machine that slept must not vote all at once.
                next_tick = if now >= next_tick + TICK { now + TICK } else { next_tick + TICK };
            }
            self.take_proposals();
            self.turns();
            self.make_checkpoint(false, false);
            if let Some(end) = self.end.take().or_else(|| self.asked_end(now)) {
                break end;
            }
        };
        self.finish(&end);
        end
    }

    /// Nothing is left behind: who waits is answered, and whoever uses the disk is gone unless it hangs.
    fn finish(&mut self, end: &End) {
        self.outlets.leader.send_replace(None);
        let refusal = || match end {
            End::Broken(why) => ProposeError::Broken(why.clone()),
            End::Asked | End::Panicked | End::Barred(_) | End::Newer(_) => ProposeError::Ending,
        };
        for proposal in self.proposals.close() {
            answer(proposal.answer, Err(refusal()));
        }
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::Proposal(proposal) => {
                    let broken = matches!(end, End::Broken(_));
                    answer(proposal.answer, Err(if broken { refusal() } else { ProposeError::Unknown }));
                }
                Waiting::Read(reader) => answer(reader, Err(ReadError::Ending)),
                Waiting::Change(changer) => answer(changer, Err(ChangeError::Unknown)),
            }
        }
        self.note_commit();
        self.jobs.send(Job::End).unwrap_or(());
        let hangs = matches!(end, End::Broken(why) if *why == Stop::DiskHangs.to_string());
        let until = Instant::now() + if hangs { Duration::ZERO } else { HANG_PATIENCE };
        loop {
            let is_used = self.disk.is_some() || self.keeping.is_under_way();
            let patience = if is_used { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.messages.recv_timeout(patience) {
                Ok(Message::Disk(Done::Gone)) => self.disk_gone(),
                // Whether there is one more shows at the next start.
                Ok(Message::CheckpointDone) => drop(self.keeping.finish()),
                Ok(_) => {}
                Err(_) if is_used => {
                    tracing::error!("the disk hangs: whoever waits for it is left behind");
                    self.keeping.abandon();
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn disk_gone(&mut self) {
        // It has told of its panic already.
        self.disk.take().map_or(Ok(()), JoinHandle::join).unwrap_or(());
    }

    fn gather(&mut self, until: Instant) {
        let patience = until.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(patience) {
            Ok(message) => self.take(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.begin_end(),
        }
        for _ in 0..GATHER {
            match self.messages.try_recv() {
                Some(message) => self.take(message),
                None => break,
            }
        }
    }

    fn take(&mut self, message: Message<M>) {
        match message {
            Message::Proposals => self.is_nudged = true,
            Message::Read(reader) => {
                let ticket = self.ticket(Waiting::Read(reader));
                self.driver.feed(Input::Read(ticket));
            }
            Message::Change(change, changer) => {
                let ticket = self.ticket(Waiting::Change(changer));
                self.driver.feed(Input::Change(ticket, change));
            }
            Message::Allows(change, asker) => answer(asker, self.driver.allows(change)),
            Message::Transfer(to) => self.driver.feed(Input::Transfer(to)),
            Message::Status(asker) => answer(asker, self.driver.status()),
            Message::Shown(asker) => answer(asker, self.driver.shown()),
            Message::Greeted(peer, shown, asker) => answer(asker, self.driver.greeted(peer, shown)),
            Message::StateHash(from, hash) => self.compare(from, hash),
            Message::Barred(why) => self.end = Some(End::Barred(why)),
            Message::Frame(from, frame) => match protobuf::Message::parse_from_bytes(&frame) {
                Ok(message) => self.step(from, message),
                Err(error) => tracing::warn!(from, %error, "a frame that makes no sense"),
            },
            Message::Unreachable(peer) => self.driver.feed(Input::Unreachable(peer)),
            Message::LeaderGone(leader) => self.driver.feed(Input::LeaderGone(leader)),
            Message::CheckpointArrived(arrived) => self.checkpoint_arrived(*arrived),
            Message::CheckpointUnreadable(end) => self.end = Some(end),
            Message::CheckpointMissed(at) => self.driver.feed(Input::CheckpointMissed(at)),
            Message::CheckpointSending(to) => self.driver.feed(Input::CheckpointSending(to)),
            Message::CheckpointNotSent(to) => self.driver.feed(Input::CheckpointNotSent(to)),
            Message::CheckpointDone => self.checkpoint_done(),
            Message::Disk(done) => self.disk_done(done),
            Message::End => self.begin_end(),
            Message::Cut => self.end = Some(End::Asked),
        }
    }

    fn step(&mut self, from: u64, message: super::driver::Message) {
        // The certificate says who sent it; the message must not say otherwise.
        if message.from == from {
            self.driver.feed(Input::Message(message));
        }
    }

    fn ticket(&mut self, waiting: Waiting<M>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiting);
        ticket
    }

    /// All that wait; they stay where they are while the disk has enough to do.
    fn take_proposals(&mut self) {
        let waits = self.driver.is_leading() && self.driver.writes_under_way() >= PIPELINE;
        if !self.is_nudged || waits && !self.is_full && self.ends.is_none() {
            return;
        }
        self.is_nudged = false;
        self.proposals.take().into_iter().for_each(|proposal| self.propose(proposal));
    }

    /// A full disk is met here: what is in the log already waits for room, and can be refused no more.
    fn propose(&mut self, mut proposal: Proposal<M>) {
        if self.ends.is_some() {
            return answer(proposal.answer, Err(ProposeError::Ending));
        }
        let priority = if proposal.is_essential { Priority::Essential } else { Priority::Ordinary };
        if self.is_full || !self.room.admits(priority, ENTRY_HEADER + proposal.data.len()) {
            self.jobs.send(Job::LookForRoom).unwrap_or(());
            self.make_checkpoint(true, false);
            return answer(proposal.answer, Err(ProposeError::NoRoom));
        }
        failpoint::reach("log-proposed");
        let data = std::mem::take(&mut proposal.data);
        let ticket = self.ticket(Waiting::Proposal(proposal));
        self.driver.feed(Input::Propose(ticket, data));
    }

    fn disk_done(&mut self, done: Done) {
        match done {
            Done::Persisted(number) => self.driver.feed(Input::Persisted(number)),
            Done::Adopted(at, conf_state) => self.driver.feed(Input::CheckpointMade(at, conf_state)),
            Done::Full(is_full) => {
                self.is_full = is_full;
                self.driver.feed(Input::DiskFull(is_full));
                if is_full {
                    tracing::warn!("no room on the disk: the log waits for some");
                    self.refuse_held();
                    self.make_checkpoint(true, false);
                }
            }
            Done::Failed(why) => self.end = Some(End::Broken(why)),
            Done::Gone => {
                self.disk_gone();
                self.end.get_or_insert(End::Panicked);
            }
        }
    }

    /// Proposals that are not in the log yet.
    fn refuse_held(&mut self) {
        for ticket in self.driver.take_held() {
            if let Some(Waiting::Proposal(proposal)) = self.waiting.remove(&ticket) {
                answer(proposal.answer, Err(ProposeError::NoRoom));
            }
        }
    }

    /// Another leader first, if there can be one; then what is being written.
    fn begin_end(&mut self) {
        if self.ends.is_none() {
            self.ends = Some(Instant::now() + END_PATIENCE);
            self.driver.feed(Input::Transfer(None));
        }
    }

    fn asked_end(&mut self, now: Instant) -> Option<End> {
        let until = self.ends?;
        let status = self.driver.status();
        let others_vote = status.members.len() > 1;
        let has_given_way = !others_vote || status.role != Role::Leader;
        let is_done = has_given_way && (self.waiting.is_empty() || self.is_full) && !self.keeping.is_under_way();
        (is_done || now >= until).then_some(End::Asked)
    }
}

/// Whoever asked may not wait any more.
fn answer<T>(to: oneshot::Sender<T>, what: T) {
    drop(to.send(what));
}
