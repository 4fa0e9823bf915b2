//! Data directories from before the state held the CA: their key lies in the open, and is taken in and sealed.

use std::{fs, io};

use mainstay_common::{
    ExitCode, Failure,
    process::data_dir::{self, DataDir},
};
use mainstay_core::{Actor, Command, ca};
use rcgen::KeyPair;

use super::{CA_FILE, Ca, Opener, new_root};
use crate::log::{Log, PLAIN_KEY_FILE};

/// Takes the plain key into the state where the state has none yet, then removes the file. Interrupted anywhere, the
/// next start completes it.
///
/// # Errors
/// Where the old files cannot be used, or the log does not take them.
pub(crate) async fn adopt_plain_key(dir: &DataDir, log: &Log) -> Result<(), Failure> {
    let path = dir.file(PLAIN_KEY_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(data_dir::unusable(&path, &error)),
    };
    let state = log.read();
    if state.ca.issuing().is_none() {
        let damaged = |name: &str, why: String| {
            let what = format!("{} is damaged", dir.file(name).display());
            Failure::new(ExitCode::Failed, what, why, "put it back from a copy of the data directory")
        };
        let certificate = fs::read_to_string(dir.file(CA_FILE)).map_err(|error| damaged(CA_FILE, error.to_string()))?;
        let key = || KeyPair::from_pem(&text).map_err(|error| damaged(PLAIN_KEY_FILE, error.to_string()));
        let cluster = &state.cluster.about().id;
        let root = Ca::load(cluster.clone(), certificate, key()?).map_err(|why| damaged(CA_FILE, why.to_string()))?;
        let opener = Opener::make(dir)?;
        let command = Command::Ca(ca::Command::Adopt(new_root(cluster, &root, &key()?, &opener, None)));
        let by = log.own(Actor::Replica(log.replica().clone()));
        log.propose(by, command).await.map_err(|error| {
            Failure::new(ExitCode::Failed, "the CA's key was not taken into the log", error.to_string(), "start again")
        })?;
        tracing::info!("the CA's key lies sealed in the log now, and {} opens it", super::OPENER_FILE);
    }
    fs::remove_file(&path).map_err(|error| data_dir::unusable(&path, &error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay_common::Timestamp;
    use mainstay_core::{Founding, State};

    use super::*;
    use crate::{
        config::Lives,
        identity::{Authority, OPENER_FILE},
        log,
        raft::Alone,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_key_in_the_open_is_taken_in_and_its_file_goes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::take(folder.path()).unwrap();
        let (cluster, replica) = ("c1".parse().unwrap(), "r1".parse().unwrap());
        let (root, private) = Ca::make(&cluster, "old", Timestamp(1_700_000_000_000)).unwrap();
        fs::write(dir.file(CA_FILE), root.pem()).unwrap();
        fs::write(dir.file(PLAIN_KEY_FILE), private.serialize_pem()).unwrap();
        let founding = Founding { id: cluster.clone(), name: "old".into(), replica, address: "h:1".into() };
        log::found(&dir, &State::founded(founding)).unwrap();

        for start in ["the first", "a second"] {
            let (log, running) = Log::start(&dir, Arc::new(Alone)).unwrap();
            adopt_plain_key(&dir, &log).await.unwrap();
            assert!(!dir.file(PLAIN_KEY_FILE).exists() && dir.file(OPENER_FILE).exists(), "{start}");
            let authority = Authority::new(cluster.clone(), log.watch(), Opener::read(&dir), Lives::default());
            assert_eq!(authority.issuing().unwrap().pin(), root.pin(), "{start}");
            assert_eq!(log.read().ca.roots().count(), 1, "{start}");
            running.end().await;
        }
    }
}
