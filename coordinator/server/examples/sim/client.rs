//! Clients: each does one thing after the other, and remembers what was told when it asked.

use std::collections::BTreeMap;

/// What a client waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) what: What,
    /// What anybody had been told when it asked.
    pub(crate) told: u64,
}

/// What it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Write(u64),
    Read,
    Change,
}

/// Who asks.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// By replica and ticket.
    pub(crate) waiting: BTreeMap<(u64, u64), Asked>,
    pub(crate) next_name: u64,
    pub(crate) next_ticket: u64,
}

impl Clients {
    pub(crate) fn ticket(&mut self, id: u64, asked: Asked) -> u64 {
        self.next_ticket += 1;
        self.waiting.insert((id, self.next_ticket), asked);
        self.next_ticket
    }

    /// A replica is gone: nobody knows what became of what was asked there.
    pub(crate) fn forget(&mut self, id: u64) {
        self.waiting.retain(|(at, _), _| *at != id);
    }
}
