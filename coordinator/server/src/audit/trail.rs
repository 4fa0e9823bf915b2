//! Writing: lines are added at the end, in the order of the log.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mainstay_common::Timestamp;

use super::{
    Line,
    line::BEGINNING,
    reading::{files, lines},
};

/// Its folder within the data directory.
pub(crate) const FOLDER: &str = "audit";
/// A file as large as this is followed by another.
const FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Lines that are written together at most.
const LINES: usize = 1_024;
/// How long lines are kept.
pub(crate) const KEPT: Duration = Duration::from_secs(400 * 86_400);

/// The end of the trail.
#[derive(Debug)]
pub(crate) struct Trail {
    folder: PathBuf,
    file: Option<(File, u64)>,
    last: u64,
    chain: String,
    /// Lines that are not written yet; where the disk is full, as many as the log takes then.
    owed: VecDeque<Line>,
    is_failing: bool,
}

impl Trail {
    /// Opens the trail in this data directory; a half-written line at its end is cut, the log has it still.
    ///
    /// # Errors
    /// Where the folder cannot be made or read.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut trail =
            Self { folder, file: None, last: 0, chain: BEGINNING.to_owned(), owed: VecDeque::new(), is_failing: false };
        let Some((_, path)) = files(&trail.folder)?.pop() else { return Ok(trail) };
        let text = fs::read(&path)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (mut broken, mut first) = (None, true);
        for (number, line) in lines(&text[..whole]).enumerate() {
            let Ok(line) = line else {
                broken = broken.or(Some(number + 1));
                continue;
            };
            // What the first line of a file follows stands in the file before.
            if !first && !line.follows(&trail.chain) {
                broken = broken.or(Some(number + 1));
            }
            first = false;
            trail.last = line.index;
            trail.chain = line.chain;
        }
        if let Some(number) = broken {
            tracing::error!(file = %path.display(), line = number, "the audit trail was changed by somebody else");
        }
        let file = OpenOptions::new().append(true).open(&path)?;
        if whole < text.len() {
            file.set_len(whole as u64)?;
        }
        trail.file = Some((file, whole as u64));
        Ok(trail)
    }

    /// The entry of the last line; what follows it in the log is missing here.
    pub(crate) fn last(&self) -> u64 {
        self.owed.back().map_or(self.last, |line| line.index)
    }

    /// Adds a line, which [`Trail::write`] writes; one that is there already changes nothing.
    pub(crate) fn add(&mut self, line: Line) {
        if line.index > self.last() {
            self.owed.push_back(line);
        }
        if self.owed.len() >= LINES {
            self.write();
        }
    }

    /// Writes what was added, at once. What cannot be written is owed, and tried again with the next.
    pub(crate) fn write(&mut self) {
        match self.pay() {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::info!(last = self.last, "the audit trail is written again; it lacks nothing");
            }
            Ok(()) => {}
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::warn!(%error, "the audit trail cannot be written; the log keeps what it lacks");
            }
            Err(_) => {}
        }
    }

    /// Makes everything durable, before the log forgets it.
    ///
    /// # Errors
    /// Where something is owed still: the log must not forget yet.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.pay()?;
        if let Some((file, _)) = &self.file {
            file.sync_data()?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Takes out files whose every line is too old; the newest file stays.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn forget(&self, now: Timestamp) -> io::Result<()> {
        let files = files(&self.folder)?;
        for pair in files.windows(2) {
            let next = fs::read(&pair[1].1)?;
            // All of a file is at least as old as the first line of the next.
            let Some(Ok(line)) = lines(&next).next() else { break };
            if now.since(line.at()) <= KEPT {
                break;
            }
            fs::remove_file(&pair[0].1)?;
        }
        Ok(())
    }

    fn pay(&mut self) -> io::Result<()> {
        while let Some(first) = self.owed.front().map(|line| line.index) {
            let left = FILE_BYTES - self.room(first)?.1;
            let (mut text, mut last, mut chain, mut lines) = (Vec::new(), self.last, self.chain.clone(), 0);
            for line in self.owed.iter().take(LINES) {
                if text.len() as u64 >= left {
                    break;
                }
                let line = line.clone().chained(&chain);
                serde_json::to_writer(&mut text, &line).map_err(io::Error::other)?;
                text.push(b'\n');
                (last, chain, lines) = (line.index, line.chain, lines + 1);
            }
            let file = self.room(first)?;
            let before = file.1;
            if let Err(error) = file.0.write_all(&text) {
                // Half a line must not stand before the next one.
                file.0.set_len(before)?;
                return Err(error);
            }
            file.1 += text.len() as u64;
            (self.last, self.chain) = (last, chain);
            self.owed.drain(..lines);
        }
        Ok(())
    }

    fn room(&mut self, index: u64) -> io::Result<&mut (File, u64)> {
        if self.file.as_ref().is_none_or(|(_, bytes)| *bytes >= FILE_BYTES) {
            if let Some((file, _)) = &self.file {
                file.sync_data()?;
            }
            let path = self.folder.join(format!("audit-{index:020}"));
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            self.file = Some((file, 0));
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("no file"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::audit::{Wanted, read};

    pub(in crate::audit) fn line(index: u64) -> Line {
        Line {
            index,
            term: 1,
            at_ms: i64::try_from(index).unwrap() * 1_000,
            actor: if index.is_multiple_of(2) { "admin/anna".into() } else { "leader".into() },
            from: "10.0.0.1:5".into(),
            action: "token create".into(),
            object: format!("t{index}"),
            outcome: "done".into(),
            detail: String::new(),
            through: if index < 3 { String::new() } else { "r1".into() },
            chain: String::new(),
        }
    }

    fn indexes(folder: &Path, wanted: &Wanted) -> Vec<u64> {
        read(folder, wanted).unwrap().lines.iter().map(|line| line.index).collect()
    }

    fn all() -> Wanted {
        Wanted { since: Timestamp(0), actor: String::new(), limit: 100 }
    }

    #[test]
    fn a_crash_in_the_middle_of_a_line_loses_that_line_only_and_the_log_brings_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut trail = Trail::open(folder.path()).unwrap();
        (1..=5).for_each(|index| trail.add(line(index)));
        trail.write();
        drop(trail);
        let path = files(&folder.path().join(FOLDER)).unwrap()[0].1.clone();
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 20]).unwrap();
        let mut trail = Trail::open(folder.path()).unwrap();
        assert_eq!(trail.last(), 4);
        // The log tells everything anew from somewhere before.
        (3..=6).for_each(|index| trail.add(line(index)));
        trail.sync().unwrap();
        assert_eq!(indexes(folder.path(), &all()), [1, 2, 3, 4, 5, 6]);
        assert!(is_chained(&fs::read(&path).unwrap()));
    }

    #[test]
    fn a_line_that_was_changed_or_taken_out_shows() {
        let folder = tempfile::tempdir().unwrap();
        let mut trail = Trail::open(folder.path()).unwrap();
        (1..=5).for_each(|index| trail.add(line(index)));
        trail.write();
        let path = files(&folder.path().join(FOLDER)).unwrap()[0].1.clone();
        let text = fs::read_to_string(&path).unwrap();
        assert!(is_chained(text.as_bytes()));
        assert!(!is_chained(text.replace("\"t3\"", "\"t9\"").as_bytes()));
        assert!(!is_chained(text.replace(r#""through":"r1""#, r#""through":"r2""#).as_bytes()));
        let without: String =
            text.lines().filter(|line| !line.contains("\"t3\"")).map(|line| format!("{line}\n")).collect();
        assert!(!is_chained(without.as_bytes()));
    }

    #[test]
    fn what_cannot_be_written_is_owed() {
        let folder = tempfile::tempdir().unwrap();
        let mut trail = Trail::open(folder.path()).unwrap();
        trail.add(line(1));
        trail.write();
        // Like a full disk: the next file cannot be made.
        trail.file = None;
        fs::rename(folder.path().join(FOLDER), folder.path().join("away")).unwrap();
        trail.add(line(2));
        assert!(trail.sync().is_err());
        assert_eq!(trail.last(), 2);
        fs::rename(folder.path().join("away"), folder.path().join(FOLDER)).unwrap();
        trail.add(line(3));
        trail.sync().unwrap();
        assert_eq!(indexes(folder.path(), &all()), [1, 2, 3]);
    }

    #[test]
    fn old_files_go_and_the_newest_stays() {
        let folder = tempfile::tempdir().unwrap();
        for index in 1..=3 {
            let mut trail = Trail::open(folder.path()).unwrap();
            trail.file = None;
            trail.add(line(index));
            trail.write();
        }
        let trail = Trail::open(folder.path()).unwrap();
        trail.forget(Timestamp(2_500).plus(KEPT)).unwrap();
        assert_eq!(indexes(folder.path(), &all()), [2, 3]);
        trail.forget(Timestamp(i64::MAX)).unwrap();
        assert_eq!(indexes(folder.path(), &all()), [3]);
    }

    #[test]
    fn the_newest_that_are_wanted_come_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for first in [1, 4] {
            let mut trail = Trail::open(folder.path()).unwrap();
            trail.file = None;
            (first..first + 3).for_each(|index| trail.add(line(index)));
            trail.write();
        }
        assert_eq!(indexes(folder.path(), &Wanted { actor: "admin/*".into(), ..all() }), [2, 4, 6]);
        assert_eq!(indexes(folder.path(), &Wanted { since: Timestamp(3_000), ..all() }), [3, 4, 5, 6]);
        let found = read(folder.path(), &Wanted { limit: 2, ..all() }).unwrap();
        assert_eq!((found.lines.len(), found.lines[0].index, found.more), (2, 5, true));
        assert!(!read(folder.path(), &Wanted { limit: 6, ..all() }).unwrap().more);
    }

    fn is_chained(text: &[u8]) -> bool {
        let mut before = BEGINNING.to_owned();
        lines(text).all(|line| {
            let line = line.unwrap();
            let follows = line.follows(&before);
            before = line.chain;
            follows
        })
    }
}
