//! Reading: the newest lines that somebody wants.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use glob_match::glob_match;
use mainstay_common::Timestamp;

use super::{FOLDER, Line};

/// Which lines.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Proposed at or after.
    pub(crate) since: Timestamp,
    /// An actor or a glob; empty: everybody.
    pub(crate) actor: String,
    /// The newest so many.
    pub(crate) limit: usize,
}

/// Lines, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) lines: Vec<Line>,
    /// There were more than the limit.
    pub(crate) more: bool,
}

/// Reads the trail of this data directory, newest file first, until enough is found.
///
/// # Errors
/// What the disk says.
pub(crate) fn read(data_dir: &Path, wanted: &Wanted) -> io::Result<Found> {
    let mut found = Found::default();
    for (_, path) in files(&data_dir.join(FOLDER))?.into_iter().rev() {
        let text = match fs::read(&path) {
            Ok(text) => text,
            // It was too old a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let all: Vec<Line> = lines(&text).filter_map(Result::ok).collect();
        let begins_before = all.first().is_some_and(|line| line.at() < wanted.since);
        for line in all.into_iter().rev() {
            let wants =
                line.at() >= wanted.since && (wanted.actor.is_empty() || glob_match(&wanted.actor, &line.actor));
            if wants && found.lines.len() == wanted.limit {
                found.more = true;
                break;
            }
            if wants {
                found.lines.push(line);
            }
        }
        if found.more || begins_before {
            break;
        }
    }
    found.lines.reverse();
    Ok(found)
}

/// The files of a trail with the index of their first line, oldest first.
pub(super) fn files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|name| name.strip_prefix("audit-")).and_then(|index| index.parse().ok());
        if let Some(first) = first {
            files.push((first, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Every line of a file; `Err` where it is none of ours.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Result<Line, serde_json::Error>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice)
}
