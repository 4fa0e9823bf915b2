//! What the simulated log is for: core's state, and which names were done, once each.

use std::collections::BTreeMap;

use mainstay_coordinator::raft::{Machine, Position, store::Section};
use mainstay_core::{
    Actor, Command, Entry, Founding, KeyFingerprint, Origin, State, codec,
    token::{self, Token},
};

/// The state of one replica.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) state: State,
    /// The index at which each name was done first.
    pub(crate) names: BTreeMap<u64, u64>,
    /// Of everything that was applied, in order.
    pub(crate) chain: u64,
}

impl Ledger {
    pub(crate) fn founded() -> Self {
        let state = State::founded(Founding {
            id: "c1".parse().expect("a name"),
            name: "sim".into(),
            replica: "r1".parse().expect("a name"),
            address: "h:1".into(),
        });
        Self { state, names: BTreeMap::new(), chain: 0 }
    }

    /// An entry that does `name`, proposed where the clock says that.
    pub(crate) fn entry(name: u64, at_ms: i64) -> Vec<u8> {
        let token = Token {
            secret_sha256: KeyFingerprint([7; 32]),
            created_at: mainstay_common::Timestamp(0),
            created_by: "anna".parse().expect("a name"),
            expires_at: mainstay_common::Timestamp(500),
            uses_left: 1,
            admitted: BTreeMap::new(),
            revoked_at: None,
            role: None,
        };
        let id = format!("t{name}").parse().expect("a name");
        codec::encode(&Entry {
            at: mainstay_common::Timestamp(at_ms),
            actor: Actor::Leader,
            from: Origin::Socket,
            request: Some(name.to_string()),
            command: Command::Token(token::Command::Create(id, token)),
            asked: None,
            through: None,
        })
    }

    /// What an entry does, if anything.
    pub(crate) fn name(data: &[u8]) -> Option<u64> {
        let entry: Entry = codec::decode(data).ok()?;
        entry.request?.parse().ok()
    }

    pub(crate) fn apply(&mut self, at: Position, data: &[u8]) {
        for byte in at.index.to_le_bytes().into_iter().chain(at.term.to_le_bytes()).chain(data.iter().copied()) {
            self.chain = (self.chain ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let Ok(entry) = codec::decode::<Entry>(data) else { return };
        let accepted = self.state.apply(at.index, &entry).is_ok();
        if let Some(name) = entry.request.and_then(|name| name.parse().ok()) {
            self.names.entry(name).or_insert(at.index);
        }
        self.chain = self.chain.wrapping_add(u64::from(accepted));
    }

    pub(crate) fn sections(&self) -> Vec<Section> {
        let mut sections = Machine::sections(&self.state);
        let mut bytes = self.chain.to_le_bytes().to_vec();
        bytes.extend(self.names.iter().flat_map(|(name, index)| [*name, *index]).flat_map(u64::to_le_bytes));
        sections.push(Section { name: "ledger".into(), bytes });
        sections
    }

    pub(crate) fn from_sections(sections: &[Section]) -> Self {
        let Some((ledger, state)) = sections.split_last() else { return Self::founded() };
        let numbers: Vec<u64> = ledger.bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let names = numbers[1..].as_chunks().0.iter().map(|[name, index]| (*name, *index)).collect();
        Self { state: <State as Machine>::from_sections(state).expect("it was whole"), names, chain: numbers[0] }
    }
}
