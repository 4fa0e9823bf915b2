//! A cluster's CA key, taken as only root on a replica's machine could: out of the log, with the opener beside it.

use std::{fs, path::Path};

use data_encoding::HEXLOWER;
use mainstay_coordinator::raft::store::{Settings, Store, disk::Folder};
use mainstay_core::State;
use rcgen::KeyPair;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// The key of the root that issues, as the newest checkpoint has it.
///
/// # Panics
/// Where the data directory holds no cluster, or its opener does not fit.
#[must_use]
pub fn of(data_dir: &Path) -> KeyPair {
    let state = state(data_dir);
    let (_, root) = state.ca.issuing().expect("a root that issues");
    let sealed = root.sealed.as_ref().expect("a sealed key");
    let opener = fs::read_to_string(data_dir.join("ca-opener.key")).expect("the opener");
    let opener = HEXLOWER.decode(opener.trim().as_bytes()).expect("hexadecimal digits");
    let opener = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &opener).expect("256 bits"));
    let cluster = state.cluster.about().id.to_string();
    let about = [b"mainstay ca key\0", cluster.as_bytes(), b"\0", &root.key.0[..]].concat();
    let mut text = sealed.ciphertext.clone();
    let nonce = Nonce::assume_unique_for_key(sealed.nonce);
    let key = opener.open_in_place(nonce, Aad::from(about), &mut text).expect("what this opener sealed");
    KeyPair::try_from(&*key).expect("a private key")
}

/// A copy is read: the replica that runs has the log for itself.
fn state(data_dir: &Path) -> State {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(data_dir.join("log")).expect("the log").flatten() {
        // The reserve for a full disk is nothing but zeros.
        if entry.file_name() != "ballast" {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
        }
    }
    let disk = Folder::at(copy.path()).expect("the copy");
    let settings = Settings { ballast_bytes: 0, ..Settings::default() };
    let (_, recovered) = Store::open(disk, settings).expect("a log");
    let sections = recovered.checkpoint.sections.iter().map(|section| (&section.name, [&section.bytes]));
    State::from_sections(sections).expect("a state")
}
