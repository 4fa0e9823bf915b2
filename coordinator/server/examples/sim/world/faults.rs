//! Faults, as they come.

use std::collections::BTreeMap;

use mainstay_coordinator::raft::{
    driver::{Change, Input, Mistake},
    store::disk::faulty::FaultyDisk,
};

use super::{Event, World};
use crate::{fault::Fault, node::Replica};

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        if self.healed_at.is_some() {
            return Ok(());
        }
        self.tell(|| format!("fault: {fault:?}"));
        let running = self.running();
        let whom = |who: u64| running.get(usize::try_from(who % running.len().max(1) as u64).unwrap_or(0)).copied();
        match fault {
            Fault::Crash { who, after, power } => self.crash_soon(whom(who), after, power),
            Fault::CrashLeader { after, power } => self.crash_soon(self.leader(), after, power),
            Fault::DieWriting { who, changes } => {
                if let Some(id) = whom(who) {
                    self.nodes[&id].disk.die_after(Some(usize::try_from(changes).unwrap_or(0)));
                }
            }
            Fault::PowerCut => running.iter().for_each(|id| self.crash(*id, true)),
            Fault::StartAll => return self.start_all(),
            Fault::Isolate { who } => self.isolate(whom(who)),
            Fault::IsolateLeader => self.isolate(self.leader()),
            Fault::OneWay { from, to } => self.cut.extend(whom(from).zip(whom(to))),
            Fault::Heal => self.cut.clear(),
            Fault::Weather { lost, doubled, delayed } => self.weather = (lost, doubled, delayed),
            Fault::Slow { who, ms } => {
                if let Some(node) = whom(who).and_then(|id| self.nodes.get_mut(&id)) {
                    node.write_us = ms * 1_000;
                }
            }
            Fault::HangLeader => {
                if let Some(node) = self.leader().and_then(|id| self.nodes.get_mut(&id)) {
                    node.hangs = true;
                }
            }
            Fault::SyncError { who } => {
                if let Some(id) = whom(who) {
                    self.nodes[&id].disk.fail_sync_after(Some(0));
                }
            }
            Fault::Full { who } => {
                if let Some(id) = whom(who) {
                    self.nodes[&id].disk.set_room(Some(self.read_disk(id)));
                    self.later(1_000_000, Event::Room { id });
                }
            }
            Fault::Pause { who, ms } => {
                let now = self.now;
                if let Some(node) = whom(who).and_then(|id| self.nodes.get_mut(&id)) {
                    node.paused_until = now + ms * 1_000;
                }
            }
            Fault::WrongHint => {
                if let Some(id) = self.leader() {
                    self.hint(id);
                }
            }
            Fault::Add => return self.join(),
            Fault::Remove { who } => {
                if let Some(id) = whom(who).filter(|_| !self.wiped) {
                    return self.change(Change::Remove(id));
                }
            }
            Fault::Replace { who } => {
                let learner = self.leader().and_then(|leader| {
                    let replica = self.nodes[&leader].replica.as_ref()?;
                    replica.conf_state.learners.first().copied()
                });
                if let Some((remove, promote)) = whom(who).zip(learner).filter(|_| !self.wiped) {
                    return self.change(Change::Replace { remove, promote });
                }
            }
            Fault::Transfer => {
                if let Some(id) = self.leader() {
                    return self.feed(id, Input::Transfer(None));
                }
            }
            Fault::GoBack { who, ms } => {
                if let Some(id) = whom(who) {
                    let then = self.nodes[&id].disk.content();
                    self.later(ms * 1_000, Event::Back { id, then });
                }
            }
            Fault::Flip { who, bit } => {
                if let Some(id) = whom(who).filter(|id| self.may_lose(*id)) {
                    self.wiped = true;
                    self.crash(id, false);
                    self.flip(id, bit);
                }
            }
            Fault::ClockJump { who, ms } => {
                if let Some(id) = whom(who) {
                    *self.clocks.entry(id).or_default() += ms;
                }
            }
            Fault::Checkpoint { who } => {
                if let Some(id) = whom(who) {
                    self.make_checkpoint(id)?;
                }
            }
            Fault::Wipe { who } => {
                if let Some(id) = whom(who).filter(|id| self.may_lose(*id)) {
                    return self.wipe(id);
                }
            }
        }
        Ok(())
    }

    /// Whether all can be well without it: nobody is lost yet, members do not change, and enough are left.
    fn may_lose(&self, id: u64) -> bool {
        let confs = self.nodes.values().filter_map(|node| node.replica.as_ref()).map(|replica| &replica.conf_state);
        let all_run = self.nodes.values().all(|node| node.replica.is_some());
        let mut confs = confs.peekable();
        let Some(first) = confs.peek().copied().cloned() else { return false };
        let is_simple = first.voters_outgoing.is_empty() && first.learners.is_empty();
        let stable = confs.all(|conf| *conf == first);
        !self.wiped
            && self.open_changes == 0
            && all_run
            && stable
            && is_simple
            && first.voters.len() >= 3
            && first.voters.contains(&id)
    }

    fn flip(&mut self, id: u64, bit: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_flipped = true;
        let files: Vec<_> = node.disk.content().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let bits: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64 * 8).sum();
        let mut at = bit % bits.max(1);
        for (name, mut bytes) in files {
            let here = bytes.len() as u64 * 8;
            if at < here {
                if let Some(byte) = usize::try_from(at / 8).ok().and_then(|byte| bytes.get_mut(byte)) {
                    *byte ^= 1 << (at % 8);
                }
                node.disk.put(&name, &bytes);
                self.tell(|| format!("{id}: bit {at} of {name} is another"));
                return;
            }
            at -= here;
        }
    }

    /// A disk is again what it was a while ago, and its program starts on it.
    pub(super) fn back(&mut self, id: u64, then: BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        if self.healed_at.is_some() || !self.may_lose(id) {
            return Ok(());
        }
        let Some(now) = self.nodes.get(&id).and_then(|node| node.replica.as_ref()).map(Replica::kept) else {
            return Ok(());
        };
        self.tell(|| format!("{id}: its disk is what it was"));
        self.wiped = true;
        self.clients.forget(id);
        self.exchange(id, then);
        self.start(id)?;
        let Some(replica) = self.nodes.get(&id).and_then(|node| node.replica.as_ref()) else { return Ok(()) };
        if replica.kept() == now {
            // Nothing had happened since: it goes on.
            self.doubtful.remove(&id);
            return Ok(());
        }
        self.stays_unnoticed(id)
    }

    fn exchange(&mut self, id: u64, files: BTreeMap<String, Vec<u8>>) {
        self.doubtful.insert(id);
        let disk = FaultyDisk::new(self.seed ^ (id << 40));
        files.iter().for_each(|(name, bytes)| disk.put(name, bytes));
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.disk, node.replica, node.crash_in, node.hangs) = (disk, None, None, false);
        }
    }

    /// Nobody refused it. Where nobody can know better that is no mistake of the program's: somebody has to see it.
    pub(super) fn stays_unnoticed(&mut self, id: u64) -> Result<(), String> {
        let Some(replica) = self.nodes.get(&id).and_then(|node| node.replica.as_ref()) else { return Ok(()) };
        let shown = replica.driver.shown();
        if self.mistake == Some(Mistake::ReuseId) {
            return Ok(());
        }
        if let Some(by) = self.is_known_better(id, shown) {
            return Err(format!("{by} was told of more than {id} has, and lets it in: {shown:?}"));
        }
        self.lose(id)
    }

    /// It never comes back, and somebody replaces it.
    pub(super) fn lose(&mut self, id: u64) -> Result<(), String> {
        self.clients.forget(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            (node.replica, node.is_lost) = (None, true);
        }
        self.change(Change::Remove(id))
    }

    fn crash_soon(&mut self, id: Option<u64>, after: u64, power: bool) {
        if let Some(node) = id.and_then(|id| self.nodes.get_mut(&id)) {
            node.crash_in = Some((after, power));
        }
    }

    fn isolate(&mut self, id: Option<u64>) {
        let Some(id) = id else { return };
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        self.cut.extend(others.into_iter().flat_map(|other| [(id, other), (other, id)]));
    }

    fn start_all(&mut self) -> Result<(), String> {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].replica.is_none() && !self.nodes[&id].is_lost {
                self.start(id)?;
            }
        }
        Ok(())
    }

    /// Nothing is wrong any more.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.tell(|| "all faults end".into());
        self.healed_at = Some(self.now);
        self.cut.clear();
        self.weather = (0, 0, 0);
        let now = self.now;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            (node.crash_in, node.paused_until, node.write_us) = (None, now, 500);
            node.disk.set_room(None);
            let was_stuck = std::mem::take(&mut node.hangs) && node.replica.is_some();
            if node.disk.is_dead() || was_stuck {
                self.crash(id, true);
            }
            if let Some(node) = self.nodes.get(&id) {
                node.disk.die_after(None);
                node.disk.fail_sync_after(None);
            }
        }
        self.start_all()
    }
}
