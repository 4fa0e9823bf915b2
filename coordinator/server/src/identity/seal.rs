//! The CA's private keys lie sealed in the state, which every replica, checkpoint and copy holds. What opens them lies
//! beside it on each replica's machine and is never part of the state.

use std::{env, fs, io, path::PathBuf};

use data_encoding::HEXLOWER;
use mainstay_common::{
    ClusterId, Failure,
    process::{
        data_dir::{self, DataDir},
        random,
    },
};
use mainstay_core::{KeyFingerprint, ca::Sealed};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

/// The opener's file in the data directory: 64 hexadecimal digits.
pub(crate) const OPENER_FILE: &str = "ca-opener.key";
/// The opener's name among systemd's credentials, which go before the file.
const CREDENTIAL: &str = "ca-opener";

/// Why a sealed key stays closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    /// There is no opener, or it cannot be read.
    #[error("{path}: {why}", path = .path.display())]
    NoOpener {
        /// Where it should be.
        path: PathBuf,
        /// What the disk says, or what is there instead.
        why: String,
    },
    /// It is another one's.
    #[error("{path} opens other keys than this cluster's", path = .path.display())]
    OtherOpener {
        /// Where it came from.
        path: PathBuf,
    },
    /// The sealed key itself was changed.
    #[error("the sealed key is damaged")]
    Damaged,
}

/// 256 random bits that open what they sealed. Made at random, never from a token or a password.
pub(crate) struct Opener {
    key: [u8; 32],
    path: PathBuf,
}

impl Opener {
    /// Makes one and writes it into the data directory (0600).
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn make(dir: &DataDir) -> Result<Self, Failure> {
        let opener = Self { key: random(), path: dir.file(OPENER_FILE) };
        opener.write()?;
        Ok(opener)
    }

    /// Reads systemd's credential, else the file in the data directory.
    ///
    /// # Errors
    /// [`Closed::NoOpener`] names the file.
    pub(crate) fn read(dir: &DataDir) -> Result<Self, Closed> {
        let credential = env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(CREDENTIAL));
        Self::read_file(credential.filter(|path| path.exists()).unwrap_or_else(|| dir.file(OPENER_FILE)))
    }

    fn read_file(path: PathBuf) -> Result<Self, Closed> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Closed::NoOpener { path, why: "the file is missing".into() });
            }
            Err(error) => return Err(Closed::NoOpener { path, why: error.to_string() }),
        };
        let key = HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        match key {
            Some(key) => Ok(Self { key, path }),
            None => Err(Closed::NoOpener { path, why: "it is damaged: an opener is 64 hexadecimal digits".into() }),
        }
    }

    /// Writes one that another replica gave into the data directory (0600).
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn keep(dir: &DataDir, key: [u8; 32]) -> Result<(), Failure> {
        Self { key, path: dir.file(OPENER_FILE) }.write()
    }

    /// The one that a backup holds, written into the data directory (0600).
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn given(dir: &DataDir, key: [u8; 32]) -> Result<Self, Failure> {
        let opener = Self { key, path: dir.file(OPENER_FILE) };
        opener.write()?;
        Ok(opener)
    }

    /// Its bits, for a replica that joined and for a backup.
    pub(crate) fn bits(&self) -> [u8; 32] {
        self.key
    }

    fn write(&self) -> Result<(), Failure> {
        let text = format!("{}\n", HEXLOWER.encode(&self.key));
        let written = data_dir::replace(&self.path, text.as_bytes(), 0o600);
        written.map_err(|error| data_dir::unusable(&self.path, &error))
    }

    /// Closes a private key for this cluster and that public key: elsewhere it cannot be opened.
    pub(crate) fn seal(&self, cluster: &ClusterId, of: KeyFingerprint, private: &[u8]) -> Sealed {
        let nonce: [u8; 12] = random();
        let mut ciphertext = private.to_vec();
        self.aead()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(about(cluster, of)),
                &mut ciphertext,
            )
            .expect("a key is short");
        Sealed { nonce, ciphertext, opener: self.id() }
    }

    /// Opens what was sealed for this cluster and that public key: PKCS#8, DER.
    ///
    /// # Errors
    /// Another opener sealed it, or it was changed since.
    pub(crate) fn open(&self, cluster: &ClusterId, of: KeyFingerprint, sealed: &Sealed) -> Result<Vec<u8>, Closed> {
        if sealed.opener != self.id() {
            return Err(Closed::OtherOpener { path: self.path.clone() });
        }
        let mut text = sealed.ciphertext.clone();
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let opened = self.aead().open_in_place(nonce, Aad::from(about(cluster, of)), &mut text);
        let length = opened.map_err(|_| Closed::Damaged)?.len();
        text.truncate(length);
        Ok(text)
    }

    /// Tells openers apart and says nothing of their bits.
    fn id(&self) -> KeyFingerprint {
        KeyFingerprint(Sha256::new_with_prefix(b"mainstay ca opener\0").chain_update(self.key).finalize().into())
    }

    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.key).expect("256 bits are 256 bits"))
    }
}

fn about(cluster: &ClusterId, of: KeyFingerprint) -> Vec<u8> {
    [b"mainstay ca key\0", cluster.as_str().as_bytes(), b"\0", &of.0[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_for_its_own_cluster_key_and_opener_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::take(folder.path()).unwrap();
        let (cluster, of) = (cluster("c1"), KeyFingerprint([1; 32]));
        let opener = Opener::make(&dir).unwrap();
        let sealed = opener.seal(&cluster, of, b"private");
        assert!(!sealed.ciphertext.windows(7).any(|window| window == b"private"));
        let read = Opener::read(&dir).unwrap();
        assert_eq!(read.open(&cluster, of, &sealed).unwrap(), b"private");
        assert_eq!(read.open(&self::cluster("c2"), of, &sealed), Err(Closed::Damaged));
        assert_eq!(read.open(&cluster, KeyFingerprint([2; 32]), &sealed), Err(Closed::Damaged));
        let mut changed = sealed.clone();
        changed.ciphertext[0] ^= 1;
        assert_eq!(read.open(&cluster, of, &changed), Err(Closed::Damaged));
        assert_ne!(opener.seal(&cluster, of, b"private").nonce, sealed.nonce);
        let other = Opener::make(&dir).unwrap();
        assert!(matches!(other.open(&cluster, of, &sealed), Err(Closed::OtherOpener { .. })));
    }

    #[test]
    fn a_lost_or_damaged_opener_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::take(folder.path()).unwrap();
        let words = || Opener::read(&dir).err().unwrap().to_string();
        assert!(words().ends_with("ca-opener.key: the file is missing"), "{}", words());
        fs::write(dir.file(OPENER_FILE), "abc").unwrap();
        assert!(words().contains("64 hexadecimal digits"), "{}", words());
    }

    fn cluster(id: &str) -> ClusterId {
        id.parse().unwrap()
    }
}
