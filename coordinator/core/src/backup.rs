//! A backup's content: the whole state at one moment, with what opens the CA's key, as a stream of frames.
//!
//! A frame is its kind (1 byte), its length (4 bytes, big-endian) and its content: first a [`Head`]; then for each section
//! of the state its name and its pieces, as [`crate::checkpoint`] writes them; last the number of frames before.

use mainstay_common::{ClusterId, Timestamp};
use minicbor::{Decode, Encode};

use crate::{
    Restoring, State, Unreadable,
    codec::{self, Undecodable},
};

/// Bytes of the longest frame that is believed.
const MAX_FRAME: usize = 32 * 1024 * 1024;
/// Bytes before a frame's content.
const FRAME_HEADER: usize = 5;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The cluster for ever.
    #[n(0)]
    pub cluster: ClusterId,
    /// Its name for people.
    #[n(1)]
    pub name: String,
    /// Counts disaster restores.
    #[n(2)]
    pub generation: u64,
    /// Nothing in it is of a later entry.
    #[n(3)]
    pub index: u64,
    /// That entry's term.
    #[n(4)]
    pub term: u64,
    /// When it was taken.
    #[n(5)]
    pub taken_at: Timestamp,
    /// What opens the CA's sealed keys: the reason why whoever holds a backup holds the cluster.
    #[n(6)]
    pub opener: Secret,
}

/// 256 secret bits, which no log shows.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Secret(
    /// The bits.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub [u8; 32],
);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Why bytes are no backup's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It does not begin with what it is of.
    #[error("it does not say what it is of")]
    NoHead,
    /// What it is of cannot be read.
    #[error("what it is of cannot be read: {0}")]
    Head(Undecodable),
    /// A frame of the future.
    #[error("a newer version of Mainstay wrote it: a frame of kind {0} is not known here")]
    Frame(u8),
    /// A frame of no length that any version writes.
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// The state.
    #[error(transparent)]
    State(#[from] Unreadable),
    /// It ends before its last frame, or that one does not fit.
    #[error("it ends before its end")]
    Cut,
    /// Something stands behind the last frame.
    #[error("something stands behind its end")]
    Behind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head = 1,
    Section = 2,
    Piece = 3,
    End = 4,
}

/// The content of a backup, frame by frame.
pub fn frames<'a>(head: &Head, state: &'a State) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let first = std::iter::once(frame(Kind::Head, &codec::encode(head)));
    let sections = state.sections().flat_map(|section| {
        let name = std::iter::once(frame(Kind::Section, section.name.as_bytes()));
        name.chain(section.pieces.map(|piece| frame(Kind::Piece, &piece)))
    });
    let mut all = first.chain(sections);
    let (mut count, mut ended) = (0_u64, false);
    std::iter::from_fn(move || {
        if let Some(next) = all.next() {
            count += 1;
            return Some(next);
        }
        (!std::mem::replace(&mut ended, true)).then(|| frame(Kind::End, &count.to_be_bytes()))
    })
}

fn frame(kind: Kind, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    [&[kind as u8][..], &length.to_be_bytes(), content].concat()
}

/// What the content of a backup says.
///
/// # Errors
/// [`Unusable`] says why it is none.
pub fn read(mut content: &[u8]) -> Result<(Head, State), Unusable> {
    let (mut head, mut restoring, mut count) = (None, Restoring::new(), 0_u64);
    loop {
        let (kind, body, rest) = split(content)?;
        match kind {
            Kind::Head => head = Some(codec::decode(body).map_err(Unusable::Head)?),
            _ if head.is_none() => return Err(Unusable::NoHead),
            Kind::Section => restoring.begin(&String::from_utf8_lossy(body))?,
            Kind::Piece => restoring.piece(body)?,
            Kind::End => {
                let fits = body == count.to_be_bytes();
                return match (fits, rest.is_empty(), head) {
                    (true, true, Some(head)) => Ok((head, restoring.finish()?)),
                    (true, false, _) => Err(Unusable::Behind),
                    _ => Err(Unusable::Cut),
                };
            }
        }
        (content, count) = (rest, count + 1);
    }
}

fn split(content: &[u8]) -> Result<(Kind, &[u8], &[u8]), Unusable> {
    let (header, rest) = content.split_first_chunk::<FRAME_HEADER>().ok_or(Unusable::Cut)?;
    let [kind, length @ ..] = *header;
    let known = [Kind::Head, Kind::Section, Kind::Piece, Kind::End].into_iter().find(|known| *known as u8 == kind);
    let known = known.ok_or(Unusable::Frame(kind))?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(Unusable::Length(length));
    }
    let (body, rest) = rest.split_at_checked(length).ok_or(Unusable::Cut)?;
    Ok((known, body, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Founding;

    #[test]
    fn a_state_reads_back_from_its_backup() {
        let (head, state) = (head(), state());
        let content: Vec<u8> = frames(&head, &state).flatten().collect();
        assert_eq!(read(&content), Ok((head, state)));
    }

    #[test]
    fn a_backup_that_ends_anywhere_else_is_none() {
        let content: Vec<u8> = frames(&head(), &state()).flatten().collect();
        for end in 0..content.len() {
            assert_eq!(read(&content[..end]), Err(Unusable::Cut), "cut at {end}");
        }
        assert_eq!(read(&[&content[..], &[1]].concat()), Err(Unusable::Behind));
        let frames: Vec<_> = frames(&head(), &state()).collect();
        assert_eq!(read(&frames[1..].concat()), Err(Unusable::NoHead));
        let without_one = [&frames[..1], &frames[3..]].concat().concat();
        assert_eq!(read(&without_one), Err(Unusable::Cut), "a frame is missing");
        let mut future = content;
        future[0] = 9;
        assert_eq!(read(&future), Err(Unusable::Frame(9)));
    }

    fn head() -> Head {
        let (cluster, name) = ("c1".parse().unwrap(), "prod".into());
        Head { cluster, name, generation: 1, index: 7, term: 2, taken_at: Timestamp(9), opener: Secret([5; 32]) }
    }

    fn state() -> State {
        State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        })
    }
}
