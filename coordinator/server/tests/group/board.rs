//! The way between replicas of one process: calls, which can be cut. Connections begin as over a network: both ends
//! show how they stand, and let each other in or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use mainstay_coordinator::raft::{ConfState, Log, Peers, Position, StateHash, Unadmitted, Visit};
use tokio::{sync::watch, time::sleep};

use crate::toy::Toy;

/// Between two attempts to be let in.
const AGAIN: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Board {
    /// Who runs, by life: a replica whose directory was copied may have two.
    lives: Mutex<BTreeMap<u64, (u64, Log<Toy>)>>,
    /// Connections that stand, by the lives that they are between; both ends hold them.
    links: Mutex<BTreeMap<(u64, u64), [Visit; 2]>>,
    /// Lives that somebody refused for good, and why.
    turned_away: watch::Sender<BTreeMap<u64, Unadmitted>>,
    cut: Mutex<BTreeSet<(u64, u64)>>,
}

/// One replica's end of it.
pub(crate) struct Wire {
    pub(crate) own: u64,
    pub(crate) life: u64,
    pub(crate) board: Arc<Board>,
}

impl Board {
    /// A life begins, and is connected to all others.
    pub(crate) fn plug(self: &Arc<Self>, id: u64, life: u64, log: Log<Toy>) {
        let others: Vec<_> = self.lives.lock().unwrap().iter().map(|(life, other)| (*life, other.clone())).collect();
        self.lives.lock().unwrap().insert(life, (id, log.clone()));
        for (other, (peer, its_log)) in others {
            if peer != id {
                tokio::spawn(Arc::clone(self).connect((life, id, log.clone()), (other, peer, its_log)));
            }
        }
    }

    pub(crate) fn unplug(&self, life: u64) {
        self.lives.lock().unwrap().remove(&life);
        self.links.lock().unwrap().retain(|(one, other), _| *one != life && *other != life);
    }

    async fn connect(self: Arc<Self>, one: (u64, u64, Log<Toy>), other: (u64, u64, Log<Toy>)) {
        let runs = |life| self.lives.lock().unwrap().contains_key(&life);
        while runs(one.0) && runs(other.0) {
            let (first, second) = (introduce(&one, &other).await, introduce(&other, &one).await);
            for (life, outcome) in [(one.0, &first), (other.0, &second)] {
                if let Err(why @ (Unadmitted::Copied(_) | Unadmitted::WentBack(_))) = outcome {
                    self.turned_away.send_modify(|all| _ = all.insert(life, *why));
                    return;
                }
            }
            if let (Ok(first), Ok(second)) = (first, second) {
                self.links.lock().unwrap().insert((one.0, other.0), [first, second]);
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Why that life was refused for good.
    pub(crate) fn turned_away(&self, life: u64) -> Option<Unadmitted> {
        self.turned_away.borrow().get(&life).copied()
    }

    /// Waits until that life is refused for good; why.
    pub(crate) async fn turns_away(&self, life: u64) -> Unadmitted {
        let mut turned_away = self.turned_away.subscribe();
        turned_away.wait_for(|all| all.contains_key(&life)).await.unwrap()[&life]
    }

    pub(crate) fn isolate(&self, id: u64) {
        let others = (1..=9).filter(|other| *other != id);
        self.cut.lock().unwrap().extend(others.flat_map(|other| [(id, other), (other, id)]));
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    /// Every life of `to` that this one is connected to.
    fn reach(&self, from: u64, life: u64, to: u64) -> Vec<Log<Toy>> {
        if self.cut.lock().unwrap().contains(&(from, to)) {
            return Vec::new();
        }
        let links = self.links.lock().unwrap();
        let linked = |other: u64| links.contains_key(&(life, other)) || links.contains_key(&(other, life));
        let lives = self.lives.lock().unwrap();
        let reached = lives.iter().filter(|(other, (id, _))| *id == to && linked(**other));
        reached.map(|(_, (_, log))| log.clone()).collect()
    }
}

/// The first shows itself to the second.
async fn introduce(who: &(u64, u64, Log<Toy>), to: &(u64, u64, Log<Toy>)) -> Result<Visit, Unadmitted> {
    let shown = who.2.shown().await.ok_or(Unadmitted::Ending)?;
    to.2.admit(who.1, shown).await
}

impl Peers for Wire {
    fn send(&self, to: u64, frame: Vec<u8>) {
        for log in self.board.reach(self.own, self.life, to) {
            log.deliver(self.own, frame.clone());
        }
    }

    fn fetch(&self, from: u64, checkpoint: Position) {
        let (own, life, board) = (self.own, self.life, Arc::clone(&self.board));
        thread::spawn(move || {
            let Some((_, log)) = board.lives.lock().unwrap().get(&life).cloned() else { return };
            let bytes = board.reach(own, life, from).pop().and_then(|source| {
                let file = source.open_checkpoint(checkpoint.index).ok()?;
                let (mut bytes, mut part) = (Vec::new(), vec![0; 64 << 10]);
                loop {
                    match file.read_at(bytes.len() as u64, &mut part).ok()? {
                        0 => return Some(bytes),
                        read => bytes.extend_from_slice(&part[..read]),
                    }
                }
            });
            let Some(bytes) = bytes else { return log.checkpoint_missed(checkpoint) };
            let mut receiving = log.receive_checkpoint(checkpoint).unwrap();
            bytes.chunks(1_000).for_each(|piece| receiving.write(piece).unwrap());
            receiving.finish().unwrap();
        });
    }

    fn state_hash(&self, hash: StateHash) {
        for other in (1..=9).filter(|other| *other != self.own) {
            for log in self.board.reach(self.own, self.life, other) {
                log.state_hash(self.own, hash);
            }
        }
    }

    fn members(&self, _: &ConfState) {}
}
