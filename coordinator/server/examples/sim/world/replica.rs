//! What a replica does with what happens to it.

use mainstay_coordinator::raft::{
    Position,
    driver::{Answer, Change, ChangeRefused, Effect, Input, Message, Stop},
    store::EntryKind,
};

use super::{Event, World};
use crate::{
    client::{Asked, What},
    fault::below,
    ledger::Ledger,
    node::{Done, Job},
};

/// A checkpoint is made after so many entries.
const CHECKPOINT_EVERY: u64 = 15;

impl World {
    pub(super) fn start(&mut self, id: u64) -> Result<(), String> {
        let seed = self.seed;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if let Err(why) = node.start(id, seed) {
            if !node.is_flipped {
                return Err(why);
            }
            self.tell(|| why);
            return self.lose(id);
        }
        let (life, Some(replica)) = (node.life, &mut node.replica) else { return Ok(()) };
        let status = replica.driver.status();
        replica.driver.campaign_if_sole();
        self.tell(|| format!("{id} starts, term {}, log up to {:?}", status.term, status.last));
        let first = below(&mut self.dice, super::TICK_US);
        self.later(first, Event::Tick { id, life });
        self.connect_all(id)?;
        self.turn(id)
    }

    pub(super) fn feed(&mut self, id: u64, input: Input) -> Result<(), String> {
        let is_patient = self.dice.percent(25);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let (life, Some(replica)) = (node.life, &mut node.replica) else { return Ok(()) };
        replica.driver.feed(input);
        if replica.has_turn {
            return Ok(());
        }
        if is_patient {
            replica.has_turn = true;
            let wait = below(&mut self.dice, 300);
            self.later(wait, Event::Turn { id, life });
            return Ok(());
        }
        self.turn(id)
    }

    pub(super) fn turn(&mut self, id: u64) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let (life, Some(replica)) = (node.life, &mut node.replica) else { return Ok(()) };
        replica.has_turn = false;
        let effects = replica.driver.turn();
        // A sole voter leads before its term is durable, and until then says nothing to anybody.
        let leading = replica.driver.leading().filter(|term| replica.driver.shown().term >= *term);
        let has_more = replica.driver.has_more();
        for effect in effects {
            let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
            if let Some((left, power)) = node.crash_in {
                if left == 0 {
                    self.crash(id, power);
                    return Ok(());
                }
                node.crash_in = Some((left - 1, power));
            }
            if node.replica.is_none() {
                return Ok(());
            }
            self.carry_out(id, effect)?;
        }
        if let Some(term) = leading {
            self.checks.leads(id, term)?;
        }
        if has_more {
            self.later(1, Event::Turn { id, life });
        }
        Ok(())
    }

    fn carry_out(&mut self, id: u64, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Send(message) => {
                self.checks.sent(&message)?;
                return self.send(message);
            }
            Effect::Write(write) => {
                self.tell(|| {
                    let places: Vec<_> = write.entries.iter().map(|entry| (entry.index, entry.term)).collect();
                    format!("{id} writes {} {:?} {places:?} {:?}", write.number, write.hard_state, write.install)
                });
                self.job(id, Job::Write(write));
            }
            Effect::NoteCommit(commit) => self.job(id, Job::NoteCommit(commit)),
            Effect::Apply(entry, ticket) => {
                let at = Position { index: entry.index, term: entry.term };
                let is_command = entry.kind == EntryKind::Normal && !entry.data.is_empty();
                let name = if is_command { Ledger::name(&entry.data) } else { None };
                let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) else {
                    return Ok(());
                };
                let before = std::mem::replace(&mut replica.applied, at).index;
                replica.ledger.apply(at, if is_command { &entry.data } else { &[] });
                replica.since_checkpoint += 1;
                let (chain, leading) = (replica.ledger.chain, replica.driver.leading());
                // Also in the middle of a change of members.
                let is_due = replica.since_checkpoint >= CHECKPOINT_EVERY || std::mem::take(&mut replica.is_changing);
                self.tell(|| format!("{id} applies {at:?} {name:?}"));
                self.checks.applied(id, at, before, chain, name)?;
                if let Some(asked) = ticket.and_then(|ticket| self.clients.waiting.remove(&(id, ticket)))
                    && let What::Write(name) = asked.what
                {
                    self.proven |= self.healed_at.is_some();
                    self.checks.acknowledged(name, at.index, asked.told)?;
                }
                if let (Some(term), Some(name)) = (leading, name) {
                    let way = 500 + below(&mut self.dice, 40_000);
                    self.later(way, Event::Work { term, name });
                }
                if is_due {
                    return self.make_checkpoint(id);
                }
            }
            Effect::Install(at) => {
                let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) else {
                    return Ok(());
                };
                let body = replica.bodies.iter().find(|body| body.position() == at).expect("it was received");
                (replica.ledger, replica.applied) = (Ledger::from_sections(&body.sections), at);
                replica.conf_state = body.conf_state.clone();
                let chain = replica.ledger.chain;
                replica.bodies.retain(|body| body.index > at.index);
                self.tell(|| format!("{id} installs {at:?}"));
                self.checks.installed(id, at, chain)?;
            }
            Effect::MakeCheckpoint => return self.make_checkpoint(id),
            Effect::Fetch { from, checkpoint } => {
                let (way, life) = (1_000 + below(&mut self.dice, 20_000), self.nodes[&id].life);
                self.later(way, Event::Body { from, to: id, life, at: checkpoint });
            }
            Effect::Answer(ticket, answer) => return self.answer(id, ticket, answer),
            Effect::Leads(term) => self.tell(|| format!("{id} leads {term:?}")),
            Effect::Leader(leader) => self.tell(|| format!("{id} follows {leader:?}")),
            Effect::Members(members) => {
                self.tell(|| format!("{id} has members {members:?}"));
                let is_seen = self.dice.percent(30);
                if let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) {
                    replica.is_changing = is_seen && !members.voters_outgoing.is_empty();
                    replica.conf_state = members;
                }
            }
            Effect::Stop(why) => return self.stopped(id, why),
        }
        Ok(())
    }

    fn stopped(&mut self, id: u64, why: Stop) -> Result<(), String> {
        self.tell(|| format!("{id} stops: {why}"));
        match why {
            Stop::DiskHangs => {}
            Stop::LogLost { .. } | Stop::Contradiction { .. } if self.doubtful.contains(&id) => return self.lose(id),
            Stop::LogLost { .. } | Stop::Contradiction { .. } => return Err(format!("{id} stops: {why}")),
        }
        self.crash(id, false);
        Ok(())
    }

    fn answer(&mut self, id: u64, ticket: u64, answer: Answer) -> Result<(), String> {
        let Some(Asked { what, told, .. }) = self.clients.waiting.remove(&(id, ticket)) else { return Ok(()) };
        self.tell(|| format!("{id} answers {what:?}: {answer:?}"));
        match (what, answer) {
            (What::Write(name), Answer::Refused(_)) if !self.retried.contains(&name) => self.checks.refused(name),
            (What::Write(name), Answer::Unknown) => {
                self.unknown.push(name);
                Ok(())
            }
            (What::Read, Answer::Readable) => {
                let applied = self.nodes[&id].replica.as_ref().map_or(0, |replica| replica.applied.index);
                self.checks.read(id, applied, told)
            }
            (What::Change, answer) => {
                let is_known = answer != Answer::ChangeRefused(ChangeRefused::Overtaken) && answer != Answer::Unknown;
                self.open_changes -= usize::from(is_known);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn send(&mut self, message: Message) -> Result<(), String> {
        let (lost, doubled, delayed) = self.weather;
        if self.cut.contains(&(message.from, message.to)) || self.dice.roll() % 100 < lost {
            return Ok(());
        }
        let Some((life, _)) = self.connect(message.from, message.to)? else { return Ok(()) };
        let copies = if self.dice.roll() % 100 < doubled { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.dice.roll() % 100 < delayed;
            let way = 100 + below(&mut self.dice, if slow { 400_000 } else { 1_500 });
            self.later(way, Event::Deliver(Box::new(message.clone()), life));
        }
        Ok(())
    }

    fn job(&mut self, id: u64, job: Job) {
        let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) else { return };
        replica.jobs.push_back(job);
        if !replica.is_writing {
            self.begin_job(id);
        }
    }

    fn begin_job(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (life, hangs, most) = (node.life, node.hangs, node.write_us);
        let Some(replica) = &mut node.replica else { return };
        replica.is_writing = !replica.jobs.is_empty();
        let is_note = matches!(replica.jobs.front(), Some(Job::NoteCommit(_)));
        if replica.is_writing && !hangs {
            let us = if is_note { 1 } else { most / 2 + below(&mut self.dice, most) };
            self.later(us, Event::Disk { id, life });
        }
    }

    pub(super) fn disk(&mut self, id: u64) -> Result<(), String> {
        let (mistake, life) = (self.mistake, self.nodes[&id].life);
        let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) else { return Ok(()) };
        match replica.work(mistake) {
            Done::Nothing => {}
            Done::NoRoom => {
                self.feed(id, Input::DiskFull(true))?;
                self.later(100_000, Event::Disk { id, life });
                return Ok(());
            }
            Done::Persisted(number) => {
                self.feed(id, Input::DiskFull(false))?;
                self.feed(id, Input::Persisted(number))?;
            }
            Done::CheckpointMade(at, conf_state) => {
                self.tell(|| format!("{id} has made a checkpoint at {at:?}"));
                self.feed(id, Input::CheckpointMade(at, conf_state))?;
            }
            Done::Broken(number) => {
                self.tell(|| format!("{id}: the disk failed"));
                if let Some(number) = number {
                    self.feed(id, Input::Persisted(number))?;
                    self.turn(id)?;
                }
                let power = self.nodes[&id].disk.is_dead() || self.dice.percent(50);
                self.crash(id, power);
                return Ok(());
            }
        }
        if self.is_alive(id, life) {
            self.begin_job(id);
        }
        Ok(())
    }

    pub(super) fn make_checkpoint(&mut self, id: u64) -> Result<(), String> {
        let mistake = self.mistake;
        let Some(replica) = self.nodes.get_mut(&id).and_then(|node| node.replica.as_mut()) else { return Ok(()) };
        if replica.is_making_checkpoint || replica.applied.index <= replica.driver.status().checkpoint.index {
            return Ok(());
        }
        replica.is_making_checkpoint = true;
        replica.since_checkpoint = 0;
        let checkpoint = replica.checkpoint(mistake);
        self.checks.checkpoint(id, &checkpoint)?;
        self.job(id, Job::Checkpoint(Box::new(checkpoint)));
        Ok(())
    }

    pub(super) fn body(&mut self, from: u64, to: u64, at: Position) -> Result<(), String> {
        let name = format!("checkpoint-{:020}", at.index);
        let there = self.nodes.get(&from).filter(|node| node.replica.is_some() && !self.cut.contains(&(from, to)));
        let bytes = there.and_then(|node| node.disk.content().remove(&name));
        let body = bytes.and_then(|bytes| {
            let replica = self.nodes.get(&to)?.replica.as_ref()?;
            replica.store.checkpoint_reader().parse(&bytes).ok()
        });
        let Some(replica) = self.nodes.get_mut(&to).and_then(|node| node.replica.as_mut()) else { return Ok(()) };
        match body.filter(|body| body.position() == at) {
            Some(body) => {
                if !replica.bodies.iter().any(|other| other.position() == at) {
                    replica.bodies.push(body);
                }
                self.feed(to, Input::CheckpointReceived(at))
            }
            None => {
                self.feed(to, Input::CheckpointMissed(at))?;
                self.feed(from, Input::CheckpointNotSent(to))
            }
        }
    }

    /// The program ends, and starts again after a while; with `power`, its machine does.
    pub(super) fn crash(&mut self, id: u64, power: bool) {
        self.tell(|| format!("{id} crashes{}", if power { " with its machine" } else { "" }));
        self.clients.forget(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.replica = None;
        node.crash_in = None;
        node.hangs = false;
        if power {
            node.disk.power_loss();
        } else {
            node.disk.revive();
        }
        let life = node.life;
        if !power {
            // The host lives and refuses connections: whoever reaches it knows.
            self.hint(id);
        }
        let pause = 20_000 + below(&mut self.dice, 1_500_000);
        self.later(pause, Event::Start { id, life });
    }

    /// The others are told that its process is gone.
    pub(super) fn hint(&mut self, leader: u64) {
        for id in self.running() {
            if id != leader && !self.cut.contains(&(leader, id)) {
                let after = 5_000 + below(&mut self.dice, 95_000);
                self.later(after, Event::Gone { id, leader });
            }
        }
    }

    pub(super) fn wipe(&mut self, id: u64) -> Result<(), String> {
        self.tell(|| format!("{id} loses its disk"));
        self.wiped = true;
        self.clients.forget(id);
        self.doubtful.insert(id);
        let (seed, mistake) = (self.seed, self.mistake);
        let blank = mainstay_coordinator::raft::store::Checkpoint::default();
        let fresh = crate::node::Node::new(id, seed, &blank, mistake);
        let life = self.nodes[&id].life;
        self.nodes.insert(id, crate::node::Node { life: life + 1, ..fresh });
        self.start(id)?;
        self.stays_unnoticed(id)
    }

    pub(super) fn join(&mut self) -> Result<(), String> {
        let id = self.next_id;
        let running = self.running().len();
        if running >= 6 || self.leader().is_none() {
            return Ok(());
        }
        self.next_id += 1;
        let blank = mainstay_coordinator::raft::store::Checkpoint::default();
        let node = crate::node::Node::new(id, self.seed, &blank, self.mistake);
        self.nodes.insert(id, node);
        self.start(id)?;
        self.change(Change::Add(id))
    }

    pub(super) fn read_disk(&self, id: u64) -> usize {
        self.nodes[&id].disk.used_bytes()
    }
}
