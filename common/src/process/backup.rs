//! The file of `mainstay cluster backup`: content in chunks that prove themselves whole, sealed where there is a recovery
//! key.
//!
//! Numbers are little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | `MSTAYBAK` |
//! | 8..12 | version: 1 |
//! | 12..16 | 0 in the open, 1 sealed |
//! | 16..48 | SHA-256 of `mainstay recovery key`, a zero byte and the recovery key; zeros in the open |
//! | 48..80 | random; HKDF-SHA256 makes of it and the recovery key the key of this file |
//! | chunks | length of the content (4 bytes, the highest bit set in the last chunk), content, tag (16 bytes) |
//! | at the end | SHA-256 of everything before |
//!
//! A tag is AES-256-GCM's over the content, with the header and the length beside it and the chunk's number as the nonce;
//! in the open the first 16 bytes of the SHA-256 of all these.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use data_encoding::HEXLOWER;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use sha2::{Digest as _, Sha256};

use super::{
    data_dir::{self, unusable},
    random,
};
use crate::{ExitCode, Failure};

const MAGIC: &[u8; 8] = b"MSTAYBAK";
const VERSION: u32 = 1;
/// Bytes before the first chunk.
const HEADER: usize = 80;
/// Bytes of a chunk's content.
const CHUNK: usize = 256 << 10;
/// Bytes of the longest chunk that is believed.
const MAX_CHUNK: usize = 1 << 20;
/// Set in the length of the last chunk.
const LAST: u32 = 1 << 31;
/// Bytes behind each chunk.
const TAG: usize = 16;
/// Bytes at the end.
const TRAILER: usize = 32;
/// What the text of a recovery key begins with: nobody shall take it for another key.
const KEY_PREFIX: &str = "mainstay-recovery-";

/// 256 random bits that seal backups. Who loses it has lost the backups, too.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey([u8; 32]);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey")
    }
}

impl RecoveryKey {
    /// Makes one and writes it into a file that must not be there (0600).
    ///
    /// # Errors
    /// A conflict where it is; else what the disk says.
    pub fn make(path: &Path) -> Result<Self, Failure> {
        if path.exists() {
            let what = format!("{} exists already", path.display());
            let why = "it may be the only key to other backups";
            return Err(Failure::new(
                ExitCode::Conflict,
                what,
                why,
                "--recovery-key-file uses it; or give another name",
            ));
        }
        let key = Self(random());
        let text = format!("{KEY_PREFIX}{}\n", HEXLOWER.encode(&key.0));
        data_dir::replace(path, text.as_bytes(), 0o600).map_err(|error| unusable(path, &error))?;
        Ok(key)
    }

    /// Reads one.
    ///
    /// # Errors
    /// A usage failure that names the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |why: String| {
            let what = format!("{} is no recovery key", path.display());
            Failure::new(ExitCode::Usage, what, why, "give the file that --new-recovery-key made")
        };
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let digits = text.trim().strip_prefix(KEY_PREFIX).map(|digits| HEXLOWER.decode(digits.as_bytes()));
        let key = digits.and_then(Result::ok).and_then(|bytes| bytes.try_into().ok());
        key.map(Self).ok_or_else(|| failed(format!("one is {KEY_PREFIX} and 64 hexadecimal digits")))
    }

    /// Tells keys apart and says nothing of their bits.
    fn id(&self) -> [u8; 32] {
        Sha256::new_with_prefix(b"mainstay recovery key\0").chain_update(self.0).finalize().into()
    }
}

/// Why a file is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another kind of file.
    #[error("it is no backup: it does not begin as one")]
    Foreign,
    /// A later version wrote it.
    #[error("it is of version {0}; this program knows versions up to {VERSION}")]
    Newer(u32),
    /// It is not as it was written.
    #[error("it is damaged at byte {offset}: {why}")]
    Damaged {
        /// Where the damage shows.
        offset: usize,
        /// How.
        why: &'static str,
    },
    /// It is sealed, and no key was given.
    #[error("it is sealed with a recovery key")]
    Sealed,
    /// It is sealed with another key.
    #[error("it is sealed with another recovery key than the one given")]
    OtherKey,
}

impl Unreadable {
    /// What a person is told of the file at `path`.
    #[must_use]
    pub fn failure(&self, path: &Path) -> Failure {
        let (code, try_next) = match self {
            Self::Foreign => (ExitCode::Usage, "give a file that `mainstay cluster backup` made"),
            Self::Newer(_) => (ExitCode::Failed, "use the version of Mainstay that wrote it, or a later one"),
            Self::Damaged { .. } => {
                (ExitCode::Failed, "take another copy of it, or an older backup; nothing was changed")
            }
            Self::Sealed => (ExitCode::Usage, "--recovery-key-file FILE"),
            Self::OtherKey => (ExitCode::Denied, "give the recovery key that it was made with"),
        };
        Failure::new(code, format!("{} cannot be read", path.display()), self.to_string(), try_next)
    }
}

/// How chunks prove that they are whole.
enum Proof {
    Open,
    Sealed(Box<LessSafeKey>),
}

impl Proof {
    fn of(key: Option<&RecoveryKey>, salt: &[u8]) -> Self {
        let Some(key) = key else { return Self::Open };
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&key.0);
        let expanded = extracted.expand(&[b"mainstay backup"], &AES_256_GCM).expect("a key is short");
        Self::Sealed(Box::new(LessSafeKey::new(UnboundKey::from(expanded))))
    }

    /// Turns content into what is written; the tag.
    fn seal(&self, header: &[u8], number: u64, word: u32, content: &mut [u8]) -> [u8; TAG] {
        match self {
            Self::Open => open_tag(header, number, word, content),
            Self::Sealed(key) => {
                let beside = Aad::from([header, &word.to_le_bytes()].concat());
                let tag = key.seal_in_place_separate_tag(nonce(number), beside, content).expect("a chunk is short");
                let mut bytes = [0; TAG];
                bytes.copy_from_slice(tag.as_ref());
                bytes
            }
        }
    }

    /// The content of what was written, where its tag fits.
    fn open(&self, header: &[u8], number: u64, word: u32, written: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Open => (open_tag(header, number, word, written) == tag).then(|| written.to_vec()),
            Self::Sealed(key) => {
                let beside = Aad::from([header, &word.to_le_bytes()].concat());
                let mut text = [written, tag].concat();
                key.open_in_place(nonce(number), beside, &mut text).ok()?;
                text.truncate(written.len());
                Some(text)
            }
        }
    }
}

fn open_tag(header: &[u8], number: u64, word: u32, content: &[u8]) -> [u8; TAG] {
    let hash = Sha256::new().chain_update(header).chain_update(number.to_le_bytes()).chain_update(word.to_le_bytes());
    let hash = hash.chain_update(content).finalize();
    let mut tag = [0; TAG];
    tag.copy_from_slice(&hash[..TAG]);
    tag
}

/// The key is of this file alone, so counting is enough.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What was written, when it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its length.
    pub bytes: u64,
    /// Of all of it.
    pub sha256: [u8; 32],
}

/// Writes a backup's file piece by piece; it is none before [`Writer::finish`].
pub struct Writer<W: Write> {
    out: W,
    proof: Proof,
    header: Vec<u8>,
    waiting: Vec<u8>,
    number: u64,
    bytes: u64,
    sha256: Sha256,
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, key: Option<&RecoveryKey>) -> io::Result<Self> {
        let salt: [u8; 32] = random();
        let id = key.map_or([0; 32], RecoveryKey::id);
        let mode = u32::from(key.is_some());
        let header = [&MAGIC[..], &VERSION.to_le_bytes(), &mode.to_le_bytes(), &id, &salt].concat();
        let proof = Proof::of(key, &salt);
        let mut writer = Self { out, proof, header, waiting: Vec::new(), number: 0, bytes: 0, sha256: Sha256::new() };
        let header = writer.header.clone();
        writer.put(&header)?;
        Ok(writer)
    }

    /// The next bytes of the content.
    ///
    /// # Errors
    /// What the output says.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(piece);
        while self.waiting.len() > CHUNK {
            let rest = self.waiting.split_off(CHUNK);
            let chunk = std::mem::replace(&mut self.waiting, rest);
            self.chunk(chunk, 0)?;
        }
        Ok(())
    }

    /// Ends it; the output, to be made durable, and what is in it.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<(W, Written)> {
        let chunk = std::mem::take(&mut self.waiting);
        self.chunk(chunk, LAST)?;
        let trailer = self.sha256.clone().finalize();
        self.put(&trailer)?;
        self.out.flush()?;
        let written = Written { bytes: self.bytes, sha256: self.sha256.finalize().into() };
        Ok((self.out, written))
    }

    fn chunk(&mut self, mut content: Vec<u8>, last: u32) -> io::Result<()> {
        let word = u32::try_from(content.len()).map_err(io::Error::other)? | last;
        let tag = self.proof.seal(&self.header, self.number, word, &mut content);
        self.number += 1;
        self.put(&word.to_le_bytes())?;
        self.put(&content)?;
        self.put(&tag)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// The content of a backup's file.
///
/// # Errors
/// [`Unreadable`], where anything of it is not as it was written.
pub fn read(file: &[u8], key: Option<&RecoveryKey>) -> Result<Vec<u8>, Unreadable> {
    if !file.starts_with(MAGIC) {
        return Err(Unreadable::Foreign);
    }
    let damaged = |offset, why| Unreadable::Damaged { offset, why };
    let header = file.get(..HEADER).ok_or_else(|| damaged(file.len(), "it ends within its header"))?;
    let version = number(header, 8);
    if version != VERSION {
        return Err(Unreadable::Newer(version));
    }
    // Its own checksum first: who changed a byte of the header shall not be told to look for another key.
    let whole = file.split_at_checked(file.len() - TRAILER).filter(|(rest, _)| rest.len() > HEADER);
    let whole = whole.is_some_and(|(rest, trailer)| Sha256::digest(rest)[..] == *trailer);
    let proof = match (number(header, 12), key) {
        (0, _) => Proof::Open,
        (1, None) => return Err(Unreadable::Sealed),
        (1, Some(key)) if header[16..48] == key.id() => Proof::of(Some(key), &header[48..]),
        (1, Some(_)) if whole => return Err(Unreadable::OtherKey),
        _ => return Err(damaged(12, "its header makes no sense")),
    };
    let (mut content, mut offset) = (Vec::new(), HEADER);
    for at in 0.. {
        let word = file.get(offset..offset + 4).ok_or_else(|| damaged(offset, "it ends before its last chunk"))?;
        let word = number(word, 0);
        let length = usize::try_from(word & !LAST).unwrap_or(usize::MAX);
        if length > MAX_CHUNK {
            return Err(damaged(offset, "a chunk of a length that is never written"));
        }
        let begins = offset + 4;
        let chunk = file.get(begins..begins + length + TAG).ok_or_else(|| damaged(offset, "it ends within a chunk"))?;
        let (written, tag) = chunk.split_at(length);
        let opened =
            proof.open(header, at, word, written, tag).ok_or_else(|| damaged(offset, "a chunk was changed"))?;
        content.extend(opened);
        offset = begins + length + TAG;
        if word & LAST != 0 {
            break;
        }
    }
    match file.len() - offset {
        TRAILER if whole => Ok(content),
        TRAILER => Err(damaged(offset, "it is not what its checksum says")),
        ..TRAILER => Err(damaged(file.len(), "it ends within its checksum")),
        _ => Err(damaged(offset + TRAILER, "something stands behind its end")),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn content_of_any_length_reads_back() {
        for key in [None, Some(RecoveryKey([7; 32]))] {
            for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
                let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
                let file = file(&content, key.as_ref());
                assert_eq!(read(&file, key.as_ref()).as_ref(), Ok(&content), "{length}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let sealed = RecoveryKey([7; 32]);
        for key in [None, Some(&sealed)] {
            let whole = file(b"what must not be lost", key);
            for end in 0..whole.len() {
                assert!(read(&whole[..end], key).is_err(), "cut at {end}");
            }
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&flipped, key).is_err(), "bit {bit}");
                assert_ne!(read(&flipped, key), Err(Unreadable::OtherKey), "bit {bit}");
            }
            let longer = [whole.as_slice(), &[0]].concat();
            let offset = whole.len();
            let why = "something stands behind its end";
            assert_eq!(read(&longer, key), Err(Unreadable::Damaged { offset, why }));
        }
    }

    #[test]
    fn damage_is_named_where_it_is() {
        let mut file = file(&vec![1; 2 * CHUNK], None);
        file[HEADER + 4 + CHUNK + TAG + 100] ^= 1;
        let offset = HEADER + 4 + CHUNK + TAG;
        assert_eq!(read(&file, None), Err(Unreadable::Damaged { offset, why: "a chunk was changed" }));
    }

    #[test]
    fn only_its_own_key_opens_what_is_sealed() {
        let (key, other) = (RecoveryKey([7; 32]), RecoveryKey([8; 32]));
        let file = file(b"secret", Some(&key));
        assert!(!file.windows(6).any(|window| window == b"secret"));
        assert_eq!(read(&file, None), Err(Unreadable::Sealed));
        assert_eq!(read(&file, Some(&other)), Err(Unreadable::OtherKey));
        assert_eq!(read(b"a letter", None), Err(Unreadable::Foreign));
    }

    #[test]
    fn chunks_stay_in_their_order_and_none_is_missing() {
        let key = RecoveryKey([7; 32]);
        for key in [None, Some(&key)] {
            let whole = file(&[vec![1; CHUNK], vec![2; CHUNK], vec![3; 10]].concat(), key);
            let one = 4 + CHUNK + TAG;
            let (first, second) = (HEADER..HEADER + one, HEADER + one..HEADER + 2 * one);
            let swapped = [&whole[..HEADER], &whole[second.clone()], &whole[first], &whole[second.end..]].concat();
            let missing = [&whole[..second.start], &whole[second.end..]].concat();
            for changed in [swapped, missing] {
                let end = changed.len() - TRAILER;
                let proof = Sha256::digest(&changed[..end]);
                let forged = [&changed[..end], &proof].concat();
                assert!(matches!(read(&forged, key), Err(Unreadable::Damaged { .. })));
            }
        }
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recovery.key");
        let key = RecoveryKey::make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(RecoveryKey::read(&path), Ok(key));
        assert_eq!(RecoveryKey::make(&path).unwrap_err().code, ExitCode::Conflict);
        fs::write(&path, HEXLOWER.encode(&[7; 32])).unwrap();
        assert_eq!(RecoveryKey::read(&path).unwrap_err().code, ExitCode::Usage, "an opener is no recovery key");
    }

    fn file(content: &[u8], key: Option<&RecoveryKey>) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), key).unwrap();
        for piece in content.chunks(100_000) {
            writer.write(piece).unwrap();
        }
        let (file, written) = writer.finish().unwrap();
        assert_eq!(written.bytes, file.len() as u64);
        assert_eq!(written.sha256[..], Sha256::digest(&file)[..]);
        file
    }
}
