//! From what a data directory held to what it holds now, so that an interruption anywhere leaves the one or the other.
//!
//! Everything is made in a folder of its own, which gets another name when it is whole: from then on the restore is
//! decided. What it replaces is moved aside, file by file, and the log last; whoever comes next goes on where that ended.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, lchown},
    path::{Path, PathBuf},
};

use mainstay_common::{
    ExitCode, Failure,
    process::data_dir::{DataDir, replace, unusable},
};

use super::Restored;
use crate::{
    audit::{FOLDER, Line, Trail},
    failpoint,
    identity::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, OPENER_FILE},
    joined, log,
};

/// Where it is made. It counts for nothing.
const UNFINISHED: &str = "restore.unfinished";
/// The same, when it is whole.
const READY: &str = "restore.ready";
/// What the restore says when it is done.
const SUMMARY: &str = "restored.json";
/// What the audit trail gets.
const LINES: &str = "audit.jsonl";
/// Where the files of before are kept; the generation that came follows.
const ASIDE: &str = "before-restore-";
/// What is replaced, in this order: the log says whose directory it is.
const REPLACED: [&str; 6] = [OPENER_FILE, CA_FILE, CERTIFICATE_FILE, KEY_FILE, joined::FILE, log::FOLDER];

/// Whether a restore was decided here and is not through.
pub(crate) fn is_interrupted(data_dir: &Path) -> bool {
    data_dir.join(READY).exists()
}

/// What is said of that.
pub(crate) fn interrupted(data_dir: &Path) -> Failure {
    Failure::new(
        ExitCode::Conflict,
        format!("a restore in {} was interrupted", data_dir.display()),
        "it is decided, and what it made is whole, but not all of it is in its place",
        "run the same `mainstay-coordinator restore` again: it goes on where it ended",
    )
}

/// Where the files of before will be.
pub(super) fn aside(dir: &DataDir, generation: u64) -> PathBuf {
    dir.file(&format!("{ASIDE}{generation}"))
}

/// The highest generation that a restore began here.
pub(super) fn generations_aside(data_dir: &Path) -> Result<u64, Failure> {
    let listed = fs::read_dir(data_dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let listed = listed.map_err(|error| unusable(data_dir, &error))?;
    let names = listed.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.strip_prefix(ASIDE)?.parse().ok()).max().unwrap_or(0))
}

/// A folder in which a restore is made.
pub(super) struct Staging(DataDir);

impl Staging {
    /// An empty one; what an earlier attempt left in it goes.
    pub(super) fn begin(dir: &DataDir) -> Result<Self, Failure> {
        let path = dir.file(UNFINISHED);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(unusable(&path, &error)),
            Ok(()) | Err(_) => {}
        }
        DataDir::take(&path).map(Self)
    }

    pub(super) fn dir(&self) -> &DataDir {
        &self.0
    }

    /// From here on the restore is decided.
    pub(super) fn commit(self, dir: &DataDir, restored: &Restored, lines: &[Line]) -> Result<(), Failure> {
        let path = self.0.path();
        let committed = (|| {
            let lines =
                lines.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
            replace(&self.0.file(LINES), lines.join("\n").as_bytes(), 0o600)?;
            let summary = serde_json::to_vec(restored).map_err(io::Error::other)?;
            replace(&self.0.file(SUMMARY), &summary, 0o600)?;
            failpoint::reach("restore-not-decided");
            fs::rename(path, dir.file(READY))?;
            File::open(dir.path())?.sync_all()
        })();
        committed.map_err(|error: io::Error| unusable(path, &error))?;
        failpoint::reach("restore-decided");
        Ok(())
    }
}

/// Puts everything in its place, from wherever that ended before.
pub(super) fn finish(dir: &DataDir) -> Result<Restored, Failure> {
    let ready = dir.file(READY);
    let finished = (|| {
        let restored: Restored = serde_json::from_slice(&fs::read(ready.join(SUMMARY))?).map_err(io::Error::other)?;
        tell_audit(dir.path(), &ready)?;
        for name in REPLACED {
            exchange(dir.path(), &ready, restored.kept_aside.as_deref(), name)?;
        }
        give_to_owner(dir.path(), restored.kept_aside.as_deref())?;
        fs::remove_dir_all(&ready)?;
        File::open(dir.path())?.sync_all()?;
        Ok(restored)
    })();
    finished.map_err(|error: io::Error| {
        let why = format!("{}: {error}", dir.path().display());
        Failure::new(ExitCode::Failed, "the restore is not through", why, "make that right, and run the same again")
    })
}

/// The audit trail of a surviving replica's directory, in another one; what an earlier attempt left there goes.
pub(super) fn copy_audit(left: &Path, data_dir: &Path) -> Result<(), Failure> {
    let (from, to) = (left.join(FOLDER), data_dir.join(FOLDER));
    let copied = (|| {
        if !from.exists() {
            return Ok(());
        }
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        DirBuilder::new().mode(0o700).create(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let copy = to.join(entry.file_name());
            fs::copy(entry.path(), &copy)?;
            File::open(copy)?.sync_all()?;
        }
        File::open(&to)?.sync_all()
    })();
    copied.map_err(|error: io::Error| unusable(&to, &error))
}

fn tell_audit(data_dir: &Path, ready: &Path) -> io::Result<()> {
    let mut trail = Trail::open(data_dir)?;
    for line in fs::read_to_string(ready.join(LINES))?.lines() {
        // What is there already changes nothing.
        trail.add(serde_json::from_str(line).map_err(io::Error::other)?);
    }
    trail.sync()?;
    File::open(data_dir.join(FOLDER))?.sync_all()
}

/// Root restores, and somebody else runs the replica: what was made is the directory's owner's. (systemd gives a directory
/// to the unit's user only where its owner is another one, and so leaves alone what root puts into it.)
fn give_to_owner(data_dir: &Path, aside: Option<&Path>) -> io::Result<()> {
    let owner = fs::metadata(data_dir)?;
    let (uid, gid) = (owner.uid(), owner.gid());
    let made = REPLACED.iter().chain([&FOLDER]).map(|name| data_dir.join(name));
    let mut todo: Vec<PathBuf> = made.chain(aside.map(Path::to_owned)).filter(|path| path.exists()).collect();
    while let Some(path) = todo.pop() {
        let about = fs::symlink_metadata(&path)?;
        if (about.uid(), about.gid()) != (uid, gid) {
            lchown(&path, Some(uid), Some(gid))?;
        }
        if about.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Moves what is there aside, and what was made to its place; each a step that is durable before the next.
fn exchange(data_dir: &Path, ready: &Path, aside: Option<&Path>, name: &str) -> io::Result<()> {
    let (made, there) = (ready.join(name), data_dir.join(name));
    if !made.exists() {
        return Ok(());
    }
    if let Some(aside) = aside.filter(|_| there.exists()) {
        match DirBuilder::new().mode(0o700).create(aside) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let kept = aside.join(name);
        if kept.exists() {
            return Err(io::Error::new(ErrorKind::AlreadyExists, format!("{} is in the way", kept.display())));
        }
        fs::rename(&there, kept)?;
        File::open(aside)?.sync_all()?;
        File::open(data_dir)?.sync_all()?;
        failpoint::reach("restore-step");
    }
    fs::rename(&made, &there)?;
    File::open(data_dir)?.sync_all()?;
    File::open(ready)?.sync_all()?;
    failpoint::reach("restore-step");
    Ok(())
}
