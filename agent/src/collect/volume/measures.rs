//! Sizes of volumes: what was measured when, what is measured next, and the file that outlives a restart.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use mainstay_common::{Timestamp, process::data_dir};
use serde::{Deserialize, Serialize};

use crate::walker::Measured;

/// The file's name within the agent's directory.
const FILE: &str = "volumes.json";
/// A walk that failed is tried again after so long, at the earliest.
const RETRY: Duration = Duration::from_secs(600);

/// A measure and its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Measure {
    /// When, by this machine's clock.
    pub(super) at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub(super) measured: Measured,
}

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// Where the engine keeps its things: another engine's volumes of the same names are others.
    root: String,
    volumes: BTreeMap<String, Measure>,
}

/// All measures.
#[derive(Debug)]
pub(super) struct Measures {
    file: Option<PathBuf>,
    kept: Kept,
    every: Duration,
    /// Walks that failed, and when.
    failed: BTreeMap<String, (Timestamp, String)>,
}

impl Measures {
    /// Reads what was kept. A file that cannot be read is an empty one: everything in it can be measured again.
    pub(super) fn load(folder: Option<&Path>, every: Duration) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        let text = file.as_ref().and_then(|file| fs::read(file).ok()).unwrap_or_default();
        Self { file, kept: serde_json::from_slice(&text).unwrap_or_default(), every, failed: BTreeMap::new() }
    }

    /// Keeps only what is of this engine and of these volumes.
    pub(super) fn keep_only(&mut self, root: &str, names: impl Fn(&str) -> bool) {
        if self.kept.root != root {
            self.kept = Kept { root: root.to_owned(), volumes: BTreeMap::new() };
        }
        self.kept.volumes.retain(|name, _| names(name));
        self.failed.retain(|name, _| names(name));
    }

    pub(super) fn of(&self, name: &str) -> Option<&Measure> {
        self.kept.volumes.get(name)
    }

    /// Why the last walk failed.
    pub(super) fn failure(&self, name: &str) -> Option<&str> {
        self.failed.get(name).map(|(_, why)| why.as_str())
    }

    pub(super) fn measured(&mut self, name: &str, at: Timestamp, measured: Measured) {
        self.failed.remove(name);
        self.kept.volumes.insert(name.to_owned(), Measure { at, measured });
    }

    pub(super) fn not_measured(&mut self, name: &str, at: Timestamp, why: String) {
        self.failed.insert(name.to_owned(), (at, why));
    }

    /// When a volume is due; the start of time where it never was measured.
    fn due(&self, name: &str) -> Timestamp {
        let retry = self.failed.get(name).map_or(Timestamp(0), |(at, _)| at.plus(RETRY));
        let again = self.of(name).map_or(Timestamp(0), |measure| measure.at.plus(jittered(self.every, name)));
        again.max(retry)
    }

    /// Which of these is due first, and when.
    pub(super) fn next<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<(&'a str, Timestamp)> {
        names.map(|name| (name, self.due(name))).min_by(|a, b| (a.1, a.0).cmp(&(b.1, b.0)))
    }

    /// What to write where; writing blocks.
    pub(super) fn to_write(&self) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static> {
        let (file, kept) = (self.file.clone()?, self.kept.clone());
        Some(move || {
            let text = serde_json::to_vec(&kept).map_err(io::Error::other)?;
            data_dir::replace(&file, &text, 0o600)
        })
    }
}

/// Up to a tenth more or less, always the same for one name: volumes of one moment are not measured at one moment again.
fn jittered(every: Duration, name: &str) -> Duration {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    every.mul_f64(0.9 + 0.2 * f64::from(hash) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const NOON: Timestamp = Timestamp(43_200_000);

    #[test]
    fn what_was_never_measured_comes_first_and_then_what_is_oldest() {
        let mut measures = Measures::load(None, HOUR * 6);
        measures.measured("a", NOON, Measured::default());
        measures.measured("b", NOON.plus(HOUR * 3), Measured::default());
        let next = |measures: &Measures| measures.next(["a", "b", "new"].into_iter()).unwrap();
        assert_eq!(next(&measures), ("new", Timestamp(0)));
        measures.not_measured("new", NOON.plus(HOUR * 9), "no".into());
        let (name, due) = next(&measures);
        assert_eq!(name, "a");
        assert!(due >= NOON.plus(HOUR * 5) && due <= NOON.plus(HOUR * 7), "{due}");
        assert_eq!(measures.failure("new"), Some("no"));
        measures.measured("a", NOON.plus(HOUR * 20), Measured::default());
        measures.measured("b", NOON.plus(HOUR * 20), Measured::default());
        assert_eq!(next(&measures), ("new", NOON.plus(HOUR * 9).plus(RETRY)));
    }

    #[test]
    fn measures_outlive_a_restart_but_not_another_engine() {
        let place = tempfile::tempdir().unwrap();
        let mut measures = Measures::load(Some(place.path()), HOUR);
        measures.keep_only("/var/lib/docker", |_| true);
        let measured = Measured { size_bytes: 7, apparent_bytes: 8, files: 9, approximate: true };
        measures.measured("data", NOON, measured);
        measures.to_write().unwrap()().unwrap();
        let mut again = Measures::load(Some(place.path()), HOUR);
        again.keep_only("/var/lib/docker", |_| true);
        assert_eq!(again.of("data"), Some(&Measure { at: NOON, measured }));
        again.keep_only("/elsewhere", |_| true);
        assert_eq!(again.of("data"), None);
        fs::write(place.path().join(FILE), "half").unwrap();
        assert_eq!(Measures::load(Some(place.path()), HOUR).of("data"), None);
    }
}
