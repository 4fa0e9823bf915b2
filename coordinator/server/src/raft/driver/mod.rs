//! Raft without a disk, a network, a clock or dice: inputs go in, a turn says what is to be done.
//!
//! The caller feeds what happened, takes a [`Driver::turn`], and carries out its effects in their order before it feeds
//! more. The same inputs have the same effects, on every machine. Around it are the `raft` crate's rules for a node
//! whose disk is slow: a leader sends before its own disk is done (Ongaro's thesis, 10.2.1), everybody else sends what
//! promises something only when the promise is durable.

mod convert;
mod effect;
mod members;
mod mirror;
mod mistake;
mod patience;
mod promises;
mod proposals;
mod reads;
mod ready;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod watchdog;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

pub use raft::eraftpb::Message;
use raft::{Config as RaftConfig, RawNode, ReadOnlyOption, StateRole};

pub use self::{
    effect::{Answer, Effect, Input, Stop, Ticket, Write, in_records},
    members::{Change, ChangeRefused},
    mistake::Mistake,
    promises::{LogWentBack, Shown},
    status::{Member, MemberRole, Role, Status},
};
use self::{
    members::Peers,
    mirror::Mirror,
    patience::{ELECTION_TICKS, Patience},
    promises::Promises,
    proposals::Appended,
    reads::Reads,
    ready::Outstanding,
    step::Sending,
    watchdog::Watchdog,
};
use super::{
    Position,
    store::{ConfState, Entry, EntryKind, HardState},
};

/// Time as the driver knows it: a heartbeat, a seventh of the shortest election timeout.
pub const TICK: Duration = Duration::from_millis(50);

/// What a driver is told once.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// This replica's number.
    pub id: u64,
    /// Differs at every start of this replica: no read is taken for one of an earlier life.
    pub boot: u64,
    /// Election timeouts follow from it; differs from replica to replica.
    pub seed: u64,
    /// How many entries stay in memory behind the newest checkpoint, for followers that are a little late.
    pub keep_behind: u64,
    /// What it does wrong; only the simulation sets it.
    pub mistake: Option<Mistake>,
}

/// What the disk held.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The hard state.
    pub hard_state: HardState,
    /// The place of the newest checkpoint, from which the state was taken: entries behind it are applied again.
    pub checkpoint: Position,
    /// The members as of there.
    pub conf_state: ConfState,
    /// The place just before the first entry.
    pub before: Position,
    /// The log.
    pub entries: Vec<Entry>,
}

/// One replica's part in the group.
pub struct Driver {
    config: Config,
    node: RawNode<Mirror>,
    patience: Patience,
    /// Term and role as of which the election timeout was drawn.
    drawn_for: (u64, StateRole),
    /// Ticks so far.
    now: u64,
    conf_state: ConfState,
    founding: ConfState,
    applied: Position,
    /// With [`Mistake::ApplyBeforeCommit`], what was shown.
    shown: u64,
    proposals: VecDeque<(Ticket, Vec<u8>)>,
    /// What waits for its entry to be applied, by index.
    appended: BTreeMap<u64, Appended>,
    changes: Vec<(Ticket, Change)>,
    reads: Reads,
    outstanding: Outstanding,
    peers: Peers,
    promises: Promises,
    watchdog: Watchdog,
    /// The term in which it is known to lead, applied or not.
    led: Option<u64>,
    /// The tick at which that was noticed.
    led_since: u64,
    /// What [`Effect::Leads`] said last.
    told_leads: Option<u64>,
    /// What [`Effect::Leader`] said last.
    told_leader: Option<u64>,
    /// The tick at which the leader was last heard; at the leader itself the last one.
    heard: Option<u64>,
    /// How often it asked for votes.
    campaigns: u64,
    /// A peer's checkpoint that is not stepped before its body is here.
    awaited: Option<Message>,
    /// Peers that get a checkpoint, by id.
    sending: BTreeMap<u64, Sending>,
    joint_since: Option<u64>,
    /// The term whose leader was believed to be gone, and when.
    hinted: Option<(u64, u64)>,
    effects: Vec<Effect>,
    stopped: bool,
}

impl Driver {
    /// A driver that goes on from what the disk held.
    ///
    /// # Panics
    /// Where `kept` contradicts itself, which the store's recovery refuses.
    #[must_use]
    pub fn new(config: Config, kept: Kept) -> Self {
        let Kept { mut hard_state, checkpoint, conf_state, before, entries } = kept;
        let founding = conf_state.clone();
        let alone = ConfState { voters: vec![config.id], ..ConfState::default() };
        let changes =
            entries.iter().any(|entry| entry.index > checkpoint.index && entry.kind == EntryKind::Configuration);
        if conf_state == alone && !changes {
            // What is durable at the only voter is committed.
            hard_state.commit = entries.last().map_or(checkpoint.index, |last| last.index);
        }
        let last = entries.last().map_or(before, |last| Position { index: last.index, term: last.term });
        let entries = entries.into_iter().map(convert::entry_out).collect();
        let mirror = Mirror::new(hard_state, (checkpoint, conf_state.clone()), before, entries, config.keep_behind);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&raft_config(&config, checkpoint), mirror, &logger).expect("the configuration is valid");
        let drawn_for = (node.raft.term, node.raft.state);
        let mut driver = Self {
            node,
            patience: Patience::new(config.seed),
            drawn_for,
            now: 0,
            conf_state,
            founding,
            applied: checkpoint,
            shown: checkpoint.index,
            proposals: VecDeque::new(),
            appended: BTreeMap::new(),
            changes: Vec::new(),
            reads: Reads::new(config.id, config.boot, config.mistake),
            outstanding: Outstanding::new(hard_state, last),
            peers: Peers::default(),
            promises: Promises::default(),
            watchdog: Watchdog::default(),
            led: None,
            led_since: 0,
            told_leads: None,
            told_leader: None,
            heard: None,
            campaigns: 0,
            awaited: None,
            sending: BTreeMap::new(),
            joint_since: None,
            hinted: None,
            effects: Vec::new(),
            stopped: false,
            config,
        };
        let timeout = driver.patience.draw();
        driver.node.raft.set_randomized_election_timeout(timeout);
        driver
    }

    /// Takes in what happened.
    pub fn feed(&mut self, input: Input) {
        if self.stopped {
            return;
        }
        self.give_up_leading();
        match input {
            Input::Tick => self.tick(),
            Input::Message(message) => self.step(message),
            Input::Propose(ticket, data) => self.proposals.push_back((ticket, data)),
            Input::Read(ticket) => self.reads.add(ticket, self.now),
            Input::Persisted(number) => self.persisted(number),
            Input::DiskFull(is_full) => self.disk_full(is_full),
            Input::CheckpointMade(at, conf_state) => self.checkpoint_made(at, conf_state),
            Input::CheckpointReceived(at) => self.checkpoint_received(at),
            Input::CheckpointMissed(at) => self.checkpoint_missed(at),
            Input::CheckpointSending(to) => self.checkpoint_sending(to),
            Input::CheckpointNotSent(to) => self.checkpoint_not_sent(to),
            Input::Unreachable(peer) => self.node.report_unreachable(peer),
            Input::LeaderGone(leader) => self.leader_gone(leader),
            Input::Transfer(to) => self.transfer(to),
            Input::Change(ticket, change) => self.changes.push((ticket, change)),
        }
        self.settle();
    }

    /// Everything that is to be done now.
    pub fn turn(&mut self) -> Vec<Effect> {
        if !self.stopped {
            self.change_members();
            self.propose();
            self.ask_reads();
            self.settle();
            while !self.stopped && self.node.has_ready() {
                self.ready();
            }
            if self.node.store().take_checkpoint_wanted() {
                self.effects.push(Effect::MakeCheckpoint);
            }
            let readable = self.reads.readable(self.applied.index);
            self.effects.extend(readable.into_iter().map(|ticket| Effect::Answer(ticket, Answer::Readable)));
        }
        if self.stopped {
            self.answer_all();
        }
        std::mem::take(&mut self.effects)
    }

    /// A sole replica needs no votes but its own: it leads at once.
    pub fn campaign_if_sole(&mut self) {
        if self.conf_state.voters == [self.config.id] && self.is_sole() && self.outstanding.is_empty() {
            // Nothing but a message for oneself that cannot fail.
            self.node.campaign().unwrap_or(());
            self.settle();
        }
    }

    /// How this replica stands as its disk has it.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let (term, last) = self.outstanding.durable();
        Shown { boot: self.config.boot, term, last }
    }

    /// A connection to that replica begins, and it shows how it stands.
    ///
    /// # Errors
    /// [`LogWentBack`]: it may not take part any more.
    pub fn greeted(&mut self, peer: u64, shown: Shown) -> Result<(), LogWentBack> {
        if self.makes(Mistake::ReuseId) { Ok(()) } else { self.promises.check(peer, shown) }
    }

    fn is_sole(&self) -> bool {
        self.node.raft.prs().is_singleton() && self.node.raft.promotable()
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.config.mistake == Some(mistake)
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Who leads as far as this replica knows.
    fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|leader| *leader != 0)
    }

    /// After every call of the crate: timeouts are ours, and a lost leadership is noticed.
    fn settle(&mut self) {
        let now = (self.node.raft.term, self.node.raft.state);
        if now != self.drawn_for {
            // A candidate was a pre-candidate, or was told to lead: either is one campaign.
            let asks = |state| matches!(state, StateRole::PreCandidate | StateRole::Candidate);
            self.campaigns += u64::from(asks(now.1) && !asks(self.drawn_for.1));
            self.drawn_for = now;
            let timeout = self.patience.draw();
            self.node.raft.set_randomized_election_timeout(timeout);
        }
        let leads = self.leads().then_some(self.node.raft.term);
        if leads != self.led {
            (self.led, self.led_since) = (leads, self.now);
            self.peers.forget();
            self.sending.clear();
            self.joint_since = None;
        }
        if self.told_leads.is_some() && self.told_leads != leads {
            self.told_leads = None;
            self.effects.push(Effect::Leads(None));
        }
        let leader = self.leader();
        if leader != self.told_leader {
            self.told_leader = leader;
            self.reads.ask_again();
            self.effects.push(Effect::Leader(leader));
        }
    }

    fn ask_reads(&mut self) {
        if self.makes(Mistake::ReadWithoutQuorum) && self.leads() {
            if let Some(context) = self.reads.ask(self.now) {
                self.reads.answered(&context, self.node.raft.raft_log.committed);
            }
        } else if self.node.raft.leader_id != 0
            && let Some(context) = self.reads.ask(self.now)
        {
            self.node.read_index(context);
        }
    }

    fn stop(&mut self, why: Stop) {
        self.stopped = true;
        self.effects.push(Effect::Stop(why));
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn raft_config(config: &Config, checkpoint: Position) -> RaftConfig {
    RaftConfig {
        id: config.id,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: 1,
        applied: checkpoint.index,
        max_size_per_msg: 256 << 10,
        max_inflight_msgs: 64,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        // What is committed goes with the next entries or heartbeat: as many messages again would tell it at once.
        skip_bcast_commit: true,
        batch_append: true,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 1 << 20,
        ..RaftConfig::default()
    }
}
