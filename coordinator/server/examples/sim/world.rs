//! Virtual time: events in order, faults in between, and what must hold after each.

mod faults;
mod greetings;
mod replica;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use mainstay_coordinator::raft::{
    Position,
    driver::{Change, Input, Message, Mistake},
    store::{Checkpoint, ConfState, disk::faulty::Dice},
};

use self::greetings::Said;
use crate::{
    check::Checks,
    client::{Asked, Clients, What},
    fault::{Fault, below, plan},
    ledger::Ledger,
    node::Node,
};

/// How long things go wrong, in microseconds of virtual time.
const CHAOS_US: u64 = 5_000_000;
/// How long it may take until all is well after that.
const HEALING_US: u64 = 10_000_000;
/// A tick of the drivers.
const TICK_US: u64 = 50_000;
const CLIENTS: u64 = 3;

/// What came of a seed.
pub(crate) struct Run {
    pub(crate) violation: Option<String>,
    pub(crate) timeline: Vec<String>,
    pub(crate) events: u64,
    /// Of all events: the same seed has the same.
    pub(crate) hash: u64,
    /// Everything that was to go wrong.
    pub(crate) faults: Vec<(u64, Fault)>,
}

/// Runs a seed; the timeline is kept where `told`.
pub(crate) fn run(seed: u64, mistake: Option<Mistake>, told: bool) -> Run {
    run_with(seed, mistake, told, None)
}

/// Runs a seed with those of its faults only.
pub(crate) fn run_with(seed: u64, mistake: Option<Mistake>, told: bool, only: Option<&[usize]>) -> Run {
    let mut world = World::new(seed, mistake, told);
    world.only = only.map(<[usize]>::to_vec);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let violation = match outcome {
        Ok(outcome) => outcome.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default())
        }
    };
    let World { timeline, events, hash, faults, .. } = world;
    Run { violation, timeline, events, hash, faults }
}

/// What happens at some moment.
enum Event {
    Tick {
        id: u64,
        life: u64,
    },
    Turn {
        id: u64,
        life: u64,
    },
    Disk {
        id: u64,
        life: u64,
    },
    /// With the life that sent it.
    Deliver(Box<Message>, u64),
    /// Its disk is again what it was.
    Back {
        id: u64,
        then: BTreeMap<String, Vec<u8>>,
    },
    Body {
        from: u64,
        to: u64,
        life: u64,
        at: Position,
    },
    Start {
        id: u64,
        life: u64,
    },
    Room {
        id: u64,
    },
    /// Somebody finds that the process of that leader is gone.
    Gone {
        id: u64,
        leader: u64,
    },
    Work {
        term: u64,
        name: u64,
    },
    Client(u64),
    Fault(Fault),
    Look,
}

struct World {
    seed: u64,
    mistake: Option<Mistake>,
    told: bool,
    timeline: Vec<String>,
    dice: Dice,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    hash: u64,
    nodes: BTreeMap<u64, Node>,
    checks: Checks,
    clients: Clients,
    retried: BTreeSet<u64>,
    unknown: Vec<u64>,
    cut: BTreeSet<(u64, u64)>,
    /// Of 100 messages: lost, doubled, delayed.
    weather: (u64, u64, u64),
    next_id: u64,
    wiped: bool,
    /// Disks that are not as their program left them.
    doubtful: BTreeSet<u64>,
    /// Between whom there is a connection: the lives at its ends.
    links: BTreeMap<(u64, u64), (u64, u64)>,
    said: Said,
    /// What clocks show besides the time, in milliseconds.
    clocks: BTreeMap<u64, i64>,
    only: Option<Vec<usize>>,
    faults: Vec<(u64, Fault)>,
    /// Voters that may be on their way out, whatever was told: changes whose outcome nobody knows.
    open_changes: usize,
    healed_at: Option<u64>,
    /// A write that was asked for after healing is done.
    proven: bool,
}

impl World {
    fn new(seed: u64, mistake: Option<Mistake>, told: bool) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let size = [1, 2, 3, 3, 3, 3, 3, 5][dice.below(8)];
        let conf_state = ConfState { voters: (1..=size).collect(), ..ConfState::default() };
        let sections = Ledger::founded().sections();
        let first = Checkpoint { index: 1, term: 1, conf_state, sections };
        let nodes = (1..=size).map(|id| (id, Node::new(id, seed, &first, mistake))).collect();
        Self {
            seed,
            mistake,
            told,
            timeline: Vec::new(),
            dice,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            events: 0,
            hash: seed,
            nodes,
            checks: Checks::default(),
            clients: Clients::default(),
            retried: BTreeSet::new(),
            unknown: Vec::new(),
            cut: BTreeSet::new(),
            weather: (0, 0, 0),
            next_id: size + 1,
            wiped: false,
            doubtful: BTreeSet::new(),
            links: BTreeMap::new(),
            said: Said::default(),
            clocks: BTreeMap::new(),
            only: None,
            faults: Vec::new(),
            open_changes: 0,
            healed_at: None,
            proven: false,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.start(id)?;
        }
        self.faults = plan(&mut self.dice, CHAOS_US);
        for (number, (at, fault)) in self.faults.clone().into_iter().enumerate() {
            if self.only.as_ref().is_none_or(|only| only.contains(&number)) {
                self.at(at, Event::Fault(fault));
            }
        }
        for client in 0..CLIENTS {
            self.at(100_000 * client, Event::Client(client));
        }
        self.at(CHAOS_US, Event::Look);
        while let Some(((at, sequence), event)) = self.queue.pop_first() {
            self.now = at;
            self.events += 1;
            self.hash = (self.hash ^ at ^ (sequence << 40)).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
            if matches!(event, Event::Look) && self.look()? {
                return Ok(());
            }
            self.happen(event)?;
        }
        Err("nothing happens any more".into())
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn later(&mut self, us: u64, event: Event) {
        self.at(self.now + us, event);
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.told {
            let line = format!("{:>9.3} ms  {}", self.now as f64 / 1_000.0, line());
            self.timeline.push(line);
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick { id, life } => {
                if self.is_alive(id, life) {
                    if let Some(until) = self.paused(id) {
                        self.at(until, Event::Tick { id, life });
                        return Ok(());
                    }
                    let drift = below(&mut self.dice, 2_000);
                    self.later(TICK_US - 1_000 + drift, Event::Tick { id, life });
                    return self.feed(id, Input::Tick);
                }
            }
            Event::Turn { id, life } => {
                if self.is_alive(id, life) {
                    return self.turn(id);
                }
            }
            Event::Disk { id, life } => {
                if self.is_alive(id, life) {
                    return self.disk(id);
                }
            }
            Event::Deliver(message, life) => {
                let (from, to) = (message.from, message.to);
                if let Some(until) = self.paused(to) {
                    self.at(until, Event::Deliver(message, life));
                } else if let Some(node) = self.nodes.get(&to).filter(|node| node.replica.is_some())
                    // With a connection goes what was on its way.
                    && self.links.get(&(from, to)) == Some(&(life, node.life))
                {
                    self.heard(&message);
                    return self.feed(to, Input::Message(*message));
                }
            }
            Event::Back { id, then } => return self.back(id, then),
            Event::Body { from, to, life, at } => {
                if self.is_alive(to, life) {
                    return self.body(from, to, at);
                }
            }
            Event::Start { id, life } => {
                let may = self.nodes.get(&id).is_some_and(|node| node.life == life && !node.is_lost);
                if may && self.nodes[&id].replica.is_none() {
                    return self.start(id);
                }
            }
            Event::Room { id } => {
                if let Some(node) = self.nodes.get(&id) {
                    node.disk.set_room(None);
                }
            }
            Event::Gone { id, leader } => return self.feed(id, Input::LeaderGone(leader)),
            Event::Work { term, name } => {
                return self.checks.work(term, name, self.mistake == Some(Mistake::IgnoreFence));
            }
            Event::Client(client) => return self.client(client),
            Event::Fault(fault) => return self.fault(fault),
            Event::Look => {}
        }
        Ok(())
    }

    fn is_alive(&self, id: u64, life: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.life == life && node.replica.is_some())
    }

    fn paused(&self, id: u64) -> Option<u64> {
        self.nodes.get(&id).map(|node| node.paused_until).filter(|until| *until > self.now)
    }

    fn running(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| node.replica.is_some()).map(|(id, _)| *id).collect()
    }

    fn leader(&self) -> Option<u64> {
        let leading = |id: &u64| self.nodes[id].replica.as_ref().and_then(|replica| replica.driver.leading());
        self.running().into_iter().filter(|id| leading(id).is_some()).max_by_key(|id| leading(id))
    }

    fn pick(&mut self, ids: &[u64]) -> Option<u64> {
        ids.get(self.dice.below(ids.len())).copied()
    }

    fn client(&mut self, client: u64) -> Result<(), String> {
        if self.healed_at.is_none() {
            let pause = 4_000 + below(&mut self.dice, 60_000);
            self.later(pause, Event::Client(client));
        } else if self.proven {
            return Ok(());
        } else {
            self.later(200_000, Event::Client(client));
        }
        let running = self.running();
        let leader = if self.dice.percent(70) { self.leader() } else { None };
        let Some(id) = leader.or_else(|| self.pick(&running)) else { return Ok(()) };
        let told = self.checks.told();
        let kind = self.dice.below(100);
        if kind < 30 && self.healed_at.is_none() {
            let ticket = self.clients.ticket(id, Asked { what: What::Read, told });
            return self.feed(id, Input::Read(ticket));
        }
        let name = if kind < 45 && !self.unknown.is_empty() {
            let at = self.dice.below(self.unknown.len());
            let name = self.unknown.swap_remove(at);
            self.retried.insert(name);
            name
        } else {
            self.clients.next_name += 1;
            self.clients.next_name
        };
        let ticket = self.clients.ticket(id, Asked { what: What::Write(name), told });
        self.tell(|| format!("client {client} asks {id} for {name}"));
        let clock = i64::try_from(self.now / 1_000).unwrap_or(0) + self.clocks.get(&id).copied().unwrap_or(0);
        self.feed(id, Input::Propose(ticket, Ledger::entry(name, clock)))
    }

    fn change(&mut self, change: Change) -> Result<(), String> {
        let Some(id) = self.leader() else { return Ok(()) };
        self.tell(|| format!("{id} is asked for {change:?}"));
        self.open_changes += 1;
        let ticket = self.clients.ticket(id, Asked { what: What::Change, told: 0 });
        self.feed(id, Input::Change(ticket, change))
    }

    /// Ends the faults, then waits until all is well; true when it is.
    fn look(&mut self) -> Result<bool, String> {
        self.later(100_000, Event::Look);
        let Some(healed) = self.healed_at else {
            self.heal()?;
            return Ok(false);
        };
        if self.proven
            && let Some(leader) = self.leader()
            && let Some(replica) = &self.nodes[&leader].replica
        {
            let status = replica.driver.status();
            let (members, is_joint) = (status.members, status.is_joint);
            let (applied, chain) = (replica.applied, replica.ledger.chain);
            let is_well = |id: u64| {
                let Some(node) = self.nodes.get(&id).filter(|node| !node.is_lost) else { return true };
                node.replica.as_ref().is_some_and(|replica| replica.applied == applied)
            };
            if !is_joint
                && members.iter().all(|member| is_well(member.id))
                && applied.index >= self.checks.highest_applied()
            {
                let replicas = members.iter().filter_map(|member| self.nodes.get(&member.id)?.replica.as_ref());
                if replicas.clone().any(|replica| replica.ledger.chain != chain) {
                    return Err("states differ in the end".into());
                }
                self.checks.nothing_lost(leader, &replica.ledger.names)?;
                return Ok(true);
            }
        }
        if self.now > healed + HEALING_US {
            let states: Vec<_> = self
                .nodes
                .iter()
                .map(|(id, node)| match &node.replica {
                    Some(replica) => format!("{id}: {:?}", replica.driver.status()),
                    None => format!("{id}: down, lost {}", node.is_lost),
                })
                .collect();
            return Err(format!("all is not well 10 s after healing; done {}: {}", self.proven, states.join("; ")));
        }
        Ok(false)
    }
}
