//! Checkpoints: all of the state at one index, as a file that proves itself whole.

use std::{
    collections::BTreeSet,
    io::{self, Read},
};

use sha2::{Digest as _, Sha256};

use super::{
    Identity,
    disk::{Disk, DiskFile as _},
    error::{Damage, OpenError},
    identity::{self, Kind},
    layout::{Fields, length_u32},
    log::Position,
    sector::SECTOR,
};

/// Bytes of a section that stand under one checksum.
const CHUNK: usize = 256 << 10;
/// Bytes before a block's content: kind, length, checksum.
const BLOCK_HEADER: usize = 9;
/// A checkpoint that this replica made, or adopted.
const PREFIX: &str = "checkpoint-";
/// One that came from elsewhere, until a record of the log says that it counts.
const RECEIVED: &str = "received-";

/// The name of a checkpoint's file.
pub(super) fn file(index: u64) -> String {
    format!("{PREFIX}{index:020}")
}

/// The name of a checkpoint that does not count yet.
pub(super) fn received(index: u64) -> String {
    format!("{RECEIVED}{index:020}")
}

/// The index of the checkpoint with this name.
pub(super) fn index(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 20)?;
    digits.parse().ok()
}

/// The index of the checkpoint with this name that does not count yet.
pub(super) fn received_index(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(RECEIVED).filter(|digits| digits.len() == 20)?;
    digits.parse().ok()
}

/// Who decides: Raft's configuration, which lives in checkpoints only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Replicas that vote.
    pub voters: Vec<u64>,
    /// Replicas that only follow.
    pub learners: Vec<u64>,
    /// While the group changes: the voters before.
    pub voters_outgoing: Vec<u64>,
    /// While the group changes: voters that will be learners.
    pub learners_next: Vec<u64>,
    /// The change ends by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// Everybody who belongs to the group, whatever for.
    #[must_use]
    pub fn all(&self) -> BTreeSet<u64> {
        let Self { voters, learners, voters_outgoing, learners_next, .. } = self;
        [voters, learners, voters_outgoing, learners_next].into_iter().flatten().copied().collect()
    }
}

/// A part of a checkpoint. Its bytes mean nothing to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The concept that it belongs to.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What a checkpoint's body is made of, as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A section of this name begins.
    Section(&'a str),
    /// More bytes of the section.
    Bytes(&'a [u8]),
}

/// Takes a body, piece by piece.
pub type PutPiece<'a> = dyn FnMut(Piece<'_>) -> io::Result<()> + 'a;

/// Sections as pieces.
///
/// # Errors
/// What `put` says.
pub fn each_piece(sections: &[Section], put: &mut PutPiece<'_>) -> io::Result<()> {
    sections.iter().try_for_each(|section| {
        put(Piece::Section(&section.name))?;
        put(Piece::Bytes(&section.bytes))
    })
}

/// All of the state at one index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last entry that is in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Who decides, as of that entry.
    pub conf_state: ConfState,
    /// The state, in the order in which it was given.
    pub sections: Vec<Section>,
}

impl Checkpoint {
    /// The first one of a cluster: as if an entry at index 1 in term 1 had made `replica` its only voter. A log that
    /// begins at 1 would let a fresh replica replay changes of members on to no members at all.
    #[must_use]
    pub fn bootstrap(replica: u64, sections: Vec<Section>) -> Self {
        let conf_state = ConfState { voters: vec![replica], ..ConfState::default() };
        Self { index: 1, term: 1, conf_state, sections }
    }

    /// Its place in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { index: self.index, term: self.term }
    }

    /// Writes it into an empty file; the SHA-256 that proves it.
    pub(super) fn write<D: Disk>(&self, identity: &Identity, file: &D::File) -> io::Result<[u8; 32]> {
        write::<D>(identity, file, self.position(), &self.conf_state, |put| each_piece(&self.sections, put))
    }

    /// Reads the content of `file`, block by block, and the SHA-256 that proves it.
    pub(super) fn read(identity: &Identity, file: &str, source: impl Read) -> Result<(Self, [u8; 32]), OpenError> {
        let mut source = Source { file, source, offset: 0, sha256: Sha256::new() };
        let head = source.take(SECTOR)?;
        let (found, mut own) = identity::read_head(Kind::Checkpoint, file, &head)?;
        source.sha256.update(&head);
        let expected = Identity { replica: 0, ..identity.clone() };
        if found != expected {
            return Err(OpenError::Foreign { file: file.to_owned(), found, expected });
        }
        let nonsense = |offset| Damage::new(file, offset, "it is intact, but makes no sense");
        let (index, term) = own.u64().zip(own.u64()).ok_or_else(|| nonsense(0))?;
        let mut checkpoint = Self { index, term, ..Self::default() };
        loop {
            let offset = source.offset;
            let (block, content) = source.block()?;
            let known = match block {
                Block::ConfState => conf_state(&content).map(|conf_state| checkpoint.conf_state = conf_state),
                Block::Section => String::from_utf8(content)
                    .ok()
                    .map(|name| checkpoint.sections.push(Section { name, bytes: Vec::new() })),
                Block::Chunk => checkpoint.sections.last_mut().map(|section| section.bytes.extend_from_slice(&content)),
                Block::Trailer => {
                    let proof: [u8; 32] = source.sha256.clone().finalize().into();
                    if content != [(offset as u64).to_le_bytes().as_slice(), &proof].concat() {
                        return Err(Damage::new(file, offset, "it is not what its trailer says").into());
                    }
                    let end = source.offset;
                    if !source.take(1)?.is_empty() {
                        return Err(Damage::new(file, end, "something stands behind its end").into());
                    }
                    return Ok((checkpoint, proof));
                }
            };
            known.ok_or_else(|| nonsense(offset))?;
        }
    }
}

/// A checkpoint's file as it is read.
struct Source<'a, R> {
    file: &'a str,
    source: R,
    offset: usize,
    /// Of everything before the block that is read.
    sha256: Sha256,
}

impl<R: Read> Source<'_, R> {
    /// The next bytes; fewer where it ends.
    fn take(&mut self, bytes: usize) -> Result<Vec<u8>, OpenError> {
        let mut taken = Vec::with_capacity(bytes);
        let read = self.source.by_ref().take(bytes as u64).read_to_end(&mut taken);
        read.map_err(|error| OpenError::Disk { file: self.file.to_owned(), error })?;
        self.offset += taken.len();
        Ok(taken)
    }

    fn block(&mut self) -> Result<(Block, Vec<u8>), OpenError> {
        let offset = self.offset;
        let header = self.take(BLOCK_HEADER)?;
        let mut fields = Fields(&header);
        let fields = (|| Some((fields.u8()?, fields.length()?, fields.u32()?)))();
        let (kind, length, crc) = fields.ok_or_else(|| Damage::new(self.file, offset, "it ends before its trailer"))?;
        let content = if length <= CHUNK { self.take(length)? } else { Vec::new() };
        if content.len() != length {
            return Err(
                Damage::new(self.file, offset, "it ends within a block, or that block's length was changed").into()
            );
        }
        if crc != block_checksum(offset as u64, kind, &content) {
            return Err(Damage::new(self.file, offset, "a block fails its checksum").into());
        }
        let all = [Block::ConfState, Block::Section, Block::Chunk, Block::Trailer];
        let block = all.into_iter().find(|known| *known as u8 == kind);
        let block = block.ok_or_else(|| Damage::new(self.file, offset, "a block is of an unknown kind"))?;
        if block != Block::Trailer {
            self.sha256.update(&header);
            self.sha256.update(&content);
        }
        Ok((block, content))
    }
}

/// Writes a checkpoint whose body comes in pieces into an empty file: no more than one chunk of it is held. However the
/// pieces are cut, the file is the same. The SHA-256 that proves it.
pub(super) fn write<D: Disk>(
    identity: &Identity,
    file: &D::File,
    at: Position,
    conf_state: &ConfState,
    body: impl FnOnce(&mut PutPiece<'_>) -> io::Result<()>,
) -> io::Result<[u8; 32]> {
    let own: Vec<u8> = [at.index, at.term].into_iter().flat_map(u64::to_le_bytes).collect();
    // Without the replica: the same checkpoint is the same file everywhere.
    let head = identity::head(Kind::Checkpoint, &Identity { replica: 0, ..identity.clone() }, &own);
    let mut out = Writer::<D> { file, offset: 0, sha256: Sha256::new(), chunk: Vec::new() };
    out.put(&head)?;
    out.block(Block::ConfState, &conf_state_bytes(conf_state))?;
    body(&mut |piece| match piece {
        Piece::Section(name) => {
            out.end_chunk()?;
            out.block(Block::Section, name.as_bytes())
        }
        Piece::Bytes(bytes) => out.gather(bytes),
    })?;
    out.end_chunk()?;
    let proof: [u8; 32] = out.sha256.clone().finalize().into();
    let trailer = [out.offset.to_le_bytes().as_slice(), &proof].concat();
    out.block(Block::Trailer, &trailer)?;
    Ok(proof)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    ConfState = 1,
    Section = 2,
    Chunk = 3,
    Trailer = 4,
}

struct Writer<'a, D: Disk> {
    file: &'a D::File,
    offset: u64,
    sha256: Sha256,
    /// What is not a block yet.
    chunk: Vec<u8>,
}

impl<D: Disk> Writer<'_, D> {
    fn gather(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        if !chunk.is_empty() {
            self.block(Block::Chunk, &chunk)?;
            chunk.clear();
        }
        self.chunk = chunk;
        Ok(())
    }

    fn block(&mut self, block: Block, content: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(BLOCK_HEADER + content.len());
        bytes.push(block as u8);
        bytes.extend_from_slice(&length_u32(content.len()).to_le_bytes());
        bytes.extend_from_slice(&block_checksum(self.offset, block as u8, content).to_le_bytes());
        bytes.extend_from_slice(content);
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.offset, bytes)?;
        self.sha256.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn block_checksum(offset: u64, kind: u8, content: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[kind]), content)
}

fn conf_state_bytes(conf_state: &ConfState) -> Vec<u8> {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    let mut bytes = vec![u8::from(*auto_leave)];
    for replicas in [voters, learners, voters_outgoing, learners_next] {
        bytes.extend_from_slice(&length_u32(replicas.len()).to_le_bytes());
        bytes.extend(replicas.iter().flat_map(|replica| replica.to_le_bytes()));
    }
    bytes
}

fn conf_state(bytes: &[u8]) -> Option<ConfState> {
    let mut fields = Fields(bytes);
    let auto_leave = match fields.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut replicas = || {
        let count = fields.length()?;
        (0..count).map(|_| fields.u64()).collect::<Option<Vec<_>>>()
    };
    let (voters, learners) = (replicas()?, replicas()?);
    let (voters_outgoing, learners_next) = (replicas()?, replicas()?);
    fields.0.is_empty().then_some(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::store::disk::{faulty::FaultyDisk, read_whole};

    #[test]
    fn a_checkpoint_reads_back() {
        for checkpoint in [Checkpoint::default(), Checkpoint::bootstrap(7, vec![]), large()] {
            assert_eq!(Checkpoint::read(&identity(), "f", bytes(&checkpoint).as_slice()).unwrap().0, checkpoint);
        }
    }

    #[test]
    fn the_same_checkpoint_is_the_same_file_on_every_replica() {
        let disk = FaultyDisk::new(1);
        let other = Identity { replica: 2, ..identity() };
        let proof = large().write::<FaultyDisk>(&other, &disk.create("f").unwrap()).unwrap();
        assert_eq!(Checkpoint::read(&identity(), "f", bytes(&large()).as_slice()).unwrap().1, proof);
        assert_eq!(read_whole(&disk, "f").unwrap(), bytes(&large()));
        let foreign = Identity { generation: 2, ..identity() };
        assert!(matches!(Checkpoint::read(&foreign, "f", bytes(&large()).as_slice()), Err(OpenError::Foreign { .. })));
    }

    #[test]
    fn nothing_may_be_missing_changed_or_added() {
        let checkpoint = Checkpoint::bootstrap(1, vec![Section { name: "node".into(), bytes: vec![0; 700] }]);
        let whole = bytes(&checkpoint);
        let refused = |bytes: &[u8]| matches!(Checkpoint::read(&identity(), "f", bytes), Err(OpenError::Damaged(_)));
        for end in 0..whole.len() {
            assert!(refused(&whole[..end]), "cut at {end}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&flipped), "bit {bit}");
        }
        assert!(refused(&[whole.as_slice(), &[0]].concat()));
    }

    #[test]
    fn however_its_pieces_are_cut_it_is_the_same_file() {
        let whole = large();
        for length in [1_000, CHUNK, CHUNK + 7] {
            let disk = FaultyDisk::new(1);
            let file = disk.create("f").unwrap();
            let body = |put: &mut PutPiece<'_>| {
                whole.sections.iter().try_for_each(|section| {
                    put(Piece::Section(&section.name))?;
                    section.bytes.chunks(length).try_for_each(|bytes| put(Piece::Bytes(bytes)))
                })
            };
            write::<FaultyDisk>(&identity(), &file, whole.position(), &whole.conf_state, body).unwrap();
            assert_eq!(read_whole(&disk, "f").unwrap(), bytes(&whole), "{length}");
        }
    }

    #[test]
    fn names_are_indexes() {
        assert_eq!(index(&file(12)), Some(12));
        assert_eq!(received_index(&received(12)), Some(12));
        assert_eq!(index("checkpoint-00000000000000000012.tmp"), None);
        assert_eq!(index(&received(12)), None);
    }

    fn large() -> Checkpoint {
        let conf_state = ConfState {
            voters: vec![1, 2],
            learners: vec![u64::MAX],
            voters_outgoing: vec![1, 2, 3],
            learners_next: vec![3],
            auto_leave: true,
        };
        let section = |name: &str, bytes| Section { name: name.into(), bytes: vec![3; bytes] };
        let sections = vec![section("node", 2 * CHUNK), section("alert", 0), section("run", CHUNK + 1)];
        Checkpoint { index: 9, term: 4, conf_state, sections }
    }

    fn bytes(checkpoint: &Checkpoint) -> Vec<u8> {
        let disk = FaultyDisk::new(1);
        checkpoint.write::<FaultyDisk>(&identity(), &disk.create("f").unwrap()).unwrap();
        read_whole(&disk, "f").unwrap()
    }

    fn identity() -> Identity {
        Identity { cluster: "c1".parse().unwrap(), generation: 1, replica: 1 }
    }
}
