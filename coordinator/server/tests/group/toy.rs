//! A state of numbers, each only once.

use std::sync::atomic::{AtomicU64, Ordering};

use mainstay_coordinator::raft::{Machine, Position, Undecodable, store::Section};

/// Whoever applies this last of three has another state than the others.
pub(crate) const ODD: u64 = u64::MAX;
static APPLIED: AtomicU64 = AtomicU64::new(0);

/// Numbers in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toy(pub(crate) Vec<u64>);

impl Machine for Toy {
    type Entry = u64;
    type Outcome = ();

    fn apply(&mut self, _: Position, entry: &u64) {
        if *entry == ODD {
            self.0.push(ODD - APPLIED.fetch_add(1, Ordering::Relaxed) % 3 / 2);
        } else if !self.0.contains(entry) {
            self.0.push(*entry);
        }
    }

    fn encode(entry: &u64) -> Vec<u8> {
        [entry.to_le_bytes().as_slice(), &[0; 248]].concat()
    }

    fn decode(data: &[u8]) -> Result<u64, Undecodable> {
        Ok(u64::from_le_bytes(data[..8].try_into().unwrap()))
    }

    fn is_essential(_: &u64) -> bool {
        false
    }

    fn sections(&self) -> Vec<Section> {
        vec![Section { name: "toy".into(), bytes: self.0.iter().flat_map(|number| number.to_le_bytes()).collect() }]
    }

    fn from_sections(sections: &[Section]) -> Result<Self, Undecodable> {
        let bytes = &sections[0].bytes;
        Ok(Self(bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect()))
    }
}
