//! A cluster in one thread: agents that say what they are told to say, a leader that carries out its plans, receivers
//! that answer as they are told. Time passes only when somebody says so.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses a part")]

use std::{collections::BTreeMap, time::Duration};

use mainstay_common::{
    NodeId, ReceiverName, Timestamp,
    metric::{
        Readings,
        catalogue::{DISK_AVAILABLE_BYTES, DISK_TOTAL_BYTES, DISK_USED_BYTES},
    },
    state::DiskState,
};
use mainstay_core::{
    Actor, Command, Consequence, Effect, Entry, Fence, Founding, KeyFingerprint, Leading, Origin, Planner, Rejected,
    State,
    declare::{Declared, diff},
    effect::Send,
    live::{Disk, Hello, LiveView, Sample, Update},
    node, notify, plan,
};

/// 2026-01-01 00:00 UTC.
pub const MIDNIGHT: Timestamp = Timestamp(1_767_225_600_000);
const GIB: u64 = 1 << 30;
/// Turns after which a plan must have settled.
const TURNS: usize = 60;

/// How a receiver answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    #[default]
    Takes,
    Hangs,
    Fails,
    Refuses,
}

/// One filesystem as an agent tells it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub mount: String,
    pub percent: f64,
    pub size: u64,
    pub state: DiskState,
    pub read: bool,
}

pub struct World {
    pub state: State,
    pub live: LiveView,
    pub planner: Planner,
    pub now: Timestamp,
    pub interval: Duration,
    pub term: u64,
    pub index: u64,
    pub entries: Vec<Entry>,
    pub manners: BTreeMap<ReceiverName, Manner>,
    /// Sent, and not answered.
    pub hanging: Vec<Send>,
    /// What receivers took, in order.
    pub taken: Vec<(ReceiverName, notify::Message)>,
    /// What was done since somebody asked last.
    pub done: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        Self {
            state: State::founded(founding()),
            live: LiveView::new(MIDNIGHT),
            planner: Planner::new(leading(1, MIDNIGHT)),
            now: MIDNIGHT,
            interval: Duration::from_secs(300),
            term: 1,
            index: 1,
            entries: Vec::new(),
            manners: BTreeMap::new(),
            hanging: Vec::new(),
            taken: Vec::new(),
            done: Vec::new(),
        }
    }

    pub fn node(&mut self, name: &str) -> NodeId {
        let id: NodeId = name.parse().unwrap();
        if self.state.nodes.member(&id).is_none() {
            // Tokens have tests of their own: what they admit is there.
            let key = KeyFingerprint([u8::try_from(self.index % 251).unwrap(); 32]);
            self.state.nodes.admit(self.now, &id, key);
        }
        id
    }

    pub fn sample(&mut self, name: &str, disks: &[Seen]) {
        let id = self.node(name);
        if self.live.node(&id).and_then(|view| view.hello.as_ref()).is_none_or(|hello| hello.interval != self.interval)
        {
            self.session(name);
        }
        let changed = disks.iter().map(|seen| (seen.mount.clone().into_bytes(), disk(seen))).collect();
        let update = Update { read_at: self.now, whole: true, changed, removed: Vec::new(), left_out: 0 };
        self.live.observe(&id, Sample { disks: Some(update), ..Sample::default() }, self.now);
    }

    /// An agent came, or came back.
    pub fn session(&mut self, name: &str) {
        let id = self.node(name);
        let hello = Hello { version: "1".into(), boot_id: "b".into(), interval: self.interval };
        self.live.hello(&id, hello, self.now, self.now);
    }

    pub fn lead(&mut self) {
        self.term += 1;
        self.hanging.clear();
        self.planner = Planner::new(leading(self.term, self.now));
    }

    pub fn remove(&mut self, name: &str) {
        let id: NodeId = name.parse().unwrap();
        if self.propose(Actor::Root, Command::Node(node::Command::Remove(id.clone()))).is_ok() {
            self.live.forget(&id);
        }
    }

    pub fn declare(&mut self, change: impl FnOnce(&mut Declared)) -> Result<Consequence, Rejected> {
        let mut wished = Declared::of(&self.state);
        change(&mut wished);
        let changes = diff(&self.state, &wished, true);
        self.propose(Actor::Root, Command::Declare(changes.declare))
    }

    pub fn propose(&mut self, actor: Actor, command: Command) -> Result<Consequence, Rejected> {
        self.index += 1;
        let entry =
            Entry { at: self.now, actor, from: Origin::Socket, request: None, command, asked: None, through: None };
        let before = self.state.clone();
        let outcome = self.state.apply(self.index, &entry);
        if outcome.is_err() {
            assert_eq!(self.state, before, "a refused command changed something");
        }
        let record = mainstay_core::audit::Record::of(self.index, &entry, &outcome);
        let refused = record.refused.as_ref().map(|why| format!(" REFUSED {why}")).unwrap_or_default();
        self.done.push(format!("{}{refused}", record.what()));
        self.entries.push(entry);
        outcome
    }

    /// Plans and carries out until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..TURNS {
            let mut whole = self.planner.clone();
            whole.sweep();
            let mut expected = words(&plan(&self.state, &self.live, &mut whole, self.now));
            let effects = plan(&self.state, &self.live, &mut self.planner, self.now);
            let mut found = words(&effects);
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "a turn sees less than a full sweep");
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Propose(command) => drop(self.propose(Actor::Leader, command)),
                    Effect::Send(send) => self.send(*send),
                }
            }
        }
        panic!("the plan does not settle: {:#?}", self.done);
    }

    fn send(&mut self, send: Send) {
        // An attempt ends within seconds, and another is made after a minute at the earliest.
        self.hanging.retain(|before| before.claim.id != send.claim.id);
        self.done.push(format!("send {} {:?}", send.claim.id.receiver, send.message.summary));
        match self.manners.get(&send.claim.id.receiver).copied().unwrap_or_default() {
            Manner::Takes => self.take(send),
            Manner::Hangs => self.hanging.push(send),
            Manner::Fails => {
                let again = notify::Again { reason: "503".into(), retry_after: None };
                drop(self.propose(Actor::Leader, Command::Notify(notify::Command::Again(send.claim, again))));
            }
            Manner::Refuses => {
                let give_up = notify::Command::GiveUp(send.claim, "404".into());
                drop(self.propose(Actor::Leader, Command::Notify(give_up)));
            }
        }
    }

    /// The receiver takes a message, and the leader records it.
    pub fn take(&mut self, send: Send) {
        self.taken.push((send.claim.id.receiver.clone(), send.message));
        drop(self.propose(Actor::Leader, Command::Notify(notify::Command::Delivered(send.claim))));
    }
}

pub fn founding() -> Founding {
    Founding {
        id: "c1".parse().unwrap(),
        name: "prod".into(),
        replica: "r1".parse().unwrap(),
        address: "h:7443".into(),
    }
}

pub fn leading(term: u64, since: Timestamp) -> Leading {
    Leading { fence: Fence { generation: 1, term }, since }
}

pub fn webhook() -> notify::Receiver {
    let address = notify::Address::Url("https://chat.example/s3cret".into());
    notify::Receiver::Webhook(notify::Webhook { address, allow_private_address: false })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "whole bytes")]
fn disk(seen: &Seen) -> Disk {
    let mut readings = Readings::new();
    if seen.read {
        let available = (seen.size as f64 * seen.percent / 100.0) as u64;
        readings.set_count(&DISK_TOTAL_BYTES, seen.size);
        readings.set_count(&DISK_USED_BYTES, seen.size - available);
        readings.set_count(&DISK_AVAILABLE_BYTES, available);
    }
    Disk {
        device: b"/dev/vda1".to_vec(),
        fs: "ext4".into(),
        state: seen.state,
        aliases: Vec::new(),
        readings,
        read_at: None,
        reason: String::new(),
    }
}

pub fn seen(mount: &str, percent: f64) -> Seen {
    Seen { mount: mount.into(), percent, size: 100 * GIB, state: DiskState::Ok, read: true }
}

fn words(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| format!("{effect:?}")).collect()
}
