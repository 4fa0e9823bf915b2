//! The state, as the log knows it.

use std::io;

use mainstay_core::{Consequence, Entry, Rejected, State, Unreadable, codec};

use crate::{
    raft::{
        Machine, Position, Undecodable,
        store::{Piece, PutPiece, Section},
    },
    versions,
};

impl Machine for State {
    type Entry = Entry;
    type Outcome = Result<Consequence, Rejected>;

    fn apply(&mut self, at: Position, entry: &Entry) -> Self::Outcome {
        self.apply(at.index, entry)
    }

    fn encode(entry: &Entry) -> Vec<u8> {
        codec::encode(entry)
    }

    fn decode(data: &[u8]) -> Result<Entry, Undecodable> {
        let entry: Entry = codec::decode(data).map_err(undecodable)?;
        let (version, known) = (entry.version(), versions::known());
        if version > known {
            let what =
                format!("{}, of version {version} of entries where {known} is the latest,", entry.command.kind());
            return Err(Undecodable::Newer { what, version: None });
        }
        Ok(entry)
    }

    fn is_essential(entry: &Entry) -> bool {
        entry.command.is_essential()
    }

    fn sections(&self) -> Vec<Section> {
        let whole = |section: mainstay_core::Section<'_>| Section {
            name: section.name.to_owned(),
            bytes: section.pieces.flatten().collect(),
        };
        self.sections().map(whole).collect()
    }

    fn pieces(&self, put: &mut PutPiece<'_>) -> io::Result<()> {
        self.sections().try_for_each(|mut section| {
            put(Piece::Section(section.name))?;
            section.pieces.try_for_each(|piece| put(Piece::Bytes(&piece)))
        })
    }

    fn from_sections(sections: &[Section]) -> Result<Self, Undecodable> {
        Self::from_sections(sections.iter().map(|section| (&section.name, [&section.bytes]))).map_err(|why| match why {
            Unreadable::Section(name) => Undecodable::Newer { what: format!("section {name}"), version: None },
            Unreadable::Row { section, row, why } => match undecodable(why) {
                Undecodable::Newer { what, version } => {
                    Undecodable::Newer { what: format!("section {section}, row {row}: {what}"), version }
                }
                Undecodable::Nonsense(why) => Undecodable::Nonsense(format!("section {section}, row {row}: {why}")),
            },
            Unreadable::Cut(_) | Unreadable::NoCluster => Undecodable::Nonsense(why.to_string()),
        })
    }
}

fn undecodable(why: codec::Undecodable) -> Undecodable {
    match why {
        codec::Undecodable::Newer(what) => Undecodable::Newer { what, version: None },
        codec::Undecodable::Garbage(why) => Undecodable::Nonsense(why),
    }
}
