//! The whole state as sections of bytes, one per table, and back.
//!
//! A section is rows one after the other: length (4 bytes, big-endian), then key and value as [`crate::codec`] writes
//! them. It comes in pieces, so that nobody has to hold all of it, and may be cut anywhere on the way.

use mainstay_common::ClusterId;
use minicbor::{Decode, Encode};

use crate::{
    State, Table,
    cluster::{About, Founding},
    codec::{self, Undecodable},
};

/// Bytes after which a piece ends.
const PIECE: usize = 64 * 1024;
/// Bytes of the longest row that is believed.
const MAX_ROW: usize = 16 * 1024 * 1024;

/// One table as bytes.
pub struct Section<'a> {
    /// Its name: never changed, never used for something else.
    pub name: &'static str,
    /// Its rows.
    pub pieces: Box<dyn Iterator<Item = Vec<u8>> + 'a>,
}

/// Why sections are no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A table of the future.
    #[error("a newer version of Mainstay wrote it: section {0:?} is not known here")]
    Section(String),
    /// A row that cannot be read.
    #[error("section {section}, row {row}: {why}")]
    Row {
        /// Of which section.
        section: &'static str,
        /// Counted from 0.
        row: usize,
        /// Why.
        why: Undecodable,
    },
    /// It ends in the middle.
    #[error("section {0} ends within a row")]
    Cut(&'static str),
    /// There is nothing without this one.
    #[error("section cluster is missing")]
    NoCluster,
}

/// Names every table once: where its rows come from is where they go.
macro_rules! sections {
    ($($name:literal $($table:tt).+;)*) => {
        const NAMES: &[&str] = &["cluster", $($name),*];

        fn all(state: &State) -> Vec<Section<'_>> {
            let about = std::iter::once(((), Row { about: state.cluster.about.clone(), declared_at: state.declared_at }));
            let first = Section { name: "cluster", pieces: Box::new(Pieces(about.map(|(key, row)| frame(&key, &row)))) };
            let mut sections = vec![first];
            $(sections.push(Section { name: $name, pieces: Box::new(of_table(&state.$($table).+)) });)*
            sections
        }

        fn put(state: &mut State, section: &str, row: &[u8]) -> Result<(), Undecodable> {
            match section {
                $($name => insert(&mut state.$($table).+, row),)*
                _ => {
                    let ((), Row { about, declared_at }) = codec::decode(row)?;
                    (state.cluster.about, state.declared_at) = (about, declared_at);
                    Ok(())
                }
            }
        }
    };
}

sections! {
    "replicas" cluster.replicas;
    "nodes" nodes.0;
    "tokens" tokens.0;
    "users" users.0;
    "rules" alerts.rules.0;
    "alerts" alerts.open;
    "resolved" alerts.resolved;
    "receivers" notifications.receivers;
    "routes" notifications.routes;
    "standing" notifications.standing;
    "told" notifications.told;
    "deliveries" notifications.open;
    "finished" notifications.finished;
    "requests" requests.answered;
    "requests-by-age" requests.by_age;
    "roots" ca.roots;
    "acknowledged" ca.acknowledged;
}

/// What is there once only.
#[derive(Encode, Decode)]
struct Row {
    #[n(0)]
    about: About,
    #[n(1)]
    declared_at: u64,
}

/// Gathers framed rows into pieces.
struct Pieces<I>(I);

impl<I: Iterator<Item = Vec<u8>>> Iterator for Pieces<I> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        while piece.len() < PIECE
            && let Some(row) = self.0.next()
        {
            piece.extend(row);
        }
        (!piece.is_empty()).then_some(piece)
    }
}

fn of_table<K, V>(table: &Table<K, V>) -> impl Iterator<Item = Vec<u8>>
where
    K: Ord + Clone + Encode<()>,
    V: Clone + Encode<()>,
{
    Pieces(table.iter().map(|(key, value)| frame(key, value)))
}

fn frame<K: Encode<()>, V: Encode<()>>(key: &K, value: &V) -> Vec<u8> {
    let row = codec::encode(&(key, value));
    let length = u32::try_from(row.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &row].concat()
}

fn insert<K, V>(table: &mut Table<K, V>, row: &[u8]) -> Result<(), Undecodable>
where
    K: Ord + Clone + for<'b> Decode<'b, ()>,
    V: Clone + for<'b> Decode<'b, ()>,
{
    let (key, value) = codec::decode(row)?;
    table.insert(key, value);
    Ok(())
}

impl State {
    /// A state without anything: of a replica that joined and was told nothing yet.
    ///
    /// # Panics
    /// Never: its names are names.
    #[must_use]
    pub fn blank() -> Self {
        let id: ClusterId = "none".parse().expect("a name");
        let founding =
            Founding { id, name: String::new(), replica: "none".parse().expect("a name"), address: String::new() };
        let mut state = Self::founded(founding);
        state.cluster.replicas = Table::default();
        state
    }

    /// The state as sections, in an order that stays.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        all(self).into_iter()
    }

    /// The state of these sections. Tables that an older version did not have are empty.
    ///
    /// # Errors
    /// [`Unreadable`] names section and row.
    pub fn from_sections<N, P, B>(sections: impl IntoIterator<Item = (N, P)>) -> Result<Self, Unreadable>
    where
        N: AsRef<str>,
        P: IntoIterator<Item = B>,
        B: AsRef<[u8]>,
    {
        let mut restoring = Restoring::new();
        for (name, pieces) in sections {
            restoring.begin(name.as_ref())?;
            for piece in pieces {
                restoring.piece(piece.as_ref())?;
            }
        }
        restoring.finish()
    }
}

/// A state that is read piece by piece.
#[derive(Debug)]
pub struct Restoring {
    state: State,
    section: Option<&'static str>,
    rows: usize,
    /// What was left of the last piece.
    rest: Vec<u8>,
    has_cluster: bool,
}

impl Restoring {
    /// Nothing was read yet.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::blank(), section: None, rows: 0, rest: Vec::new(), has_cluster: false }
    }

    /// The pieces that follow are of this section.
    ///
    /// # Errors
    /// A section that is not known, or one before it that was cut.
    pub fn begin(&mut self, section: &str) -> Result<(), Unreadable> {
        self.ended()?;
        let known = NAMES.iter().find(|name| **name == section);
        self.section = Some(known.ok_or_else(|| Unreadable::Section(section.into()))?);
        self.rows = 0;
        Ok(())
    }

    /// The next bytes of the section.
    ///
    /// # Errors
    /// A row that cannot be read.
    pub fn piece(&mut self, piece: &[u8]) -> Result<(), Unreadable> {
        let section = self.section.unwrap_or("cluster");
        let unreadable = |row, why| Unreadable::Row { section, row, why };
        self.rest.extend_from_slice(piece);
        let mut read = 0;
        while let Some((length, behind)) = self.rest[read..].split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > MAX_ROW {
                return Err(unreadable(self.rows, Undecodable::Garbage(format!("a row of {length} bytes"))));
            }
            let Some(row) = behind.get(..length) else { break };
            put(&mut self.state, section, row).map_err(|why| unreadable(self.rows, why))?;
            self.has_cluster |= section == "cluster";
            self.rows += 1;
            read += 4 + length;
        }
        self.rest.drain(..read);
        Ok(())
    }

    /// The state, when every section was read.
    ///
    /// # Errors
    /// A last section that was cut, or a state without its cluster.
    pub fn finish(mut self) -> Result<State, Unreadable> {
        self.ended()?;
        if self.has_cluster { Ok(self.state) } else { Err(Unreadable::NoCluster) }
    }

    fn ended(&mut self) -> Result<(), Unreadable> {
        match self.section.take() {
            Some(section) if !self.rest.is_empty() => Err(Unreadable::Cut(section)),
            _ => Ok(()),
        }
    }
}

impl Default for Restoring {
    fn default() -> Self {
        Self::new()
    }
}
