//! The way between replicas of one process: calls, which can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread,
};

use mainstay_coordinator::raft::{ConfState, Log, Peers, Position};

use crate::toy::Toy;

#[derive(Default)]
pub(crate) struct Board {
    logs: Mutex<BTreeMap<u64, Log<Toy>>>,
    cut: Mutex<BTreeSet<(u64, u64)>>,
}

/// One replica's end of it.
pub(crate) struct Wire {
    pub(crate) own: u64,
    pub(crate) board: Arc<Board>,
}

impl Board {
    pub(crate) fn plug(&self, id: u64, log: Log<Toy>) {
        self.logs.lock().unwrap().insert(id, log);
    }

    pub(crate) fn unplug(&self, id: u64) {
        self.logs.lock().unwrap().remove(&id);
    }

    pub(crate) fn isolate(&self, id: u64) {
        let others = (1..=9).filter(|other| *other != id);
        self.cut.lock().unwrap().extend(others.flat_map(|other| [(id, other), (other, id)]));
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    fn reach(&self, from: u64, to: u64) -> Option<Log<Toy>> {
        if self.cut.lock().unwrap().contains(&(from, to)) {
            return None;
        }
        self.logs.lock().unwrap().get(&to).cloned()
    }
}

impl Peers for Wire {
    fn send(&self, to: u64, frame: Vec<u8>) {
        if let Some(log) = self.board.reach(self.own, to) {
            log.deliver(self.own, frame);
        }
    }

    fn fetch(&self, from: u64, checkpoint: Position) {
        let (own, board) = (self.own, Arc::clone(&self.board));
        thread::spawn(move || {
            let Some(log) = board.reach(own, own) else { return };
            let bytes = board.reach(own, from).and_then(|source| {
                let file = source.open_checkpoint(checkpoint.index).ok()?;
                let (mut bytes, mut part) = (Vec::new(), vec![0; 64 << 10]);
                loop {
                    match file.read_at(bytes.len() as u64, &mut part).ok()? {
                        0 => return Some(bytes),
                        read => bytes.extend_from_slice(&part[..read]),
                    }
                }
            });
            match bytes {
                Some(bytes) => log.checkpoint_arrived(checkpoint, &bytes).unwrap(),
                None => log.checkpoint_missed(checkpoint),
            }
        });
    }

    fn members(&self, _: &ConfState) {}
}
