//! The trail has a thread of its own: its disk keeps nobody waiting but those who want to read.

use std::{
    io, iter,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use mainstay_common::process::now;
use tokio::{sync::oneshot, time::timeout};

use super::{Line, Trail};

/// How long its end waits for what is being written; the log has what is missing then.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How long a reader waits for lines that are on their way.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// Where lines go in.
#[derive(Debug)]
pub(crate) struct Scribe {
    last: u64,
    notes: Sender<Note>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// For those who read: what was noted is written.
#[derive(Clone, Debug)]
pub(crate) struct Written(Sender<Note>);

#[derive(Debug)]
enum Note {
    Line(Box<Line>),
    Keep(Sender<io::Result<()>>),
    Written(oneshot::Sender<()>),
    End,
}

impl Scribe {
    /// Writes on behind this trail.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn start(mut trail: Trail) -> io::Result<(Self, Written)> {
        let (notes, todo) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        let last = trail.last();
        let life = move || {
            let _ends: Sender<()> = ends;
            while let Ok(first) = todo.recv() {
                for note in iter::once(first).chain(todo.try_iter()) {
                    match note {
                        Note::Line(line) => trail.add(*line),
                        Note::Keep(answer) => {
                            let kept = trail.forget(now()).and_then(|()| trail.sync());
                            // Whoever wanted it may have ended.
                            answer.send(kept).unwrap_or(());
                        }
                        Note::Written(answer) => {
                            trail.write();
                            answer.send(()).unwrap_or(());
                        }
                        Note::End => return trail.write(),
                    }
                }
                // What came at once is one write.
                trail.write();
            }
        };
        let thread = thread::Builder::new().name("audit".into()).spawn(life)?;
        Ok((Self { last, notes: notes.clone(), ended, thread: Some(thread) }, Written(notes)))
    }

    /// The entry of the last line.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Adds a line, in its own time.
    pub(crate) fn add(&mut self, line: Line) {
        self.last = line.index;
        // A thread that is gone keeps nothing either, and so the log forgets nothing.
        self.notes.send(Note::Line(Box::new(line))).unwrap_or(());
    }

    /// Something that waits until all lines so far are durable; too old ones go.
    pub(crate) fn keep(&self) -> impl FnOnce() -> io::Result<()> + Send + use<> {
        let (answer, kept) = mpsc::channel();
        self.notes.send(Note::Keep(answer)).unwrap_or(());
        move || kept.recv().unwrap_or_else(|_| Err(io::Error::other("the audit trail's thread is gone")))
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.notes.send(Note::End).unwrap_or(());
        if self.ended.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Disconnected) {
            // It has told of its panic already.
            self.thread.take().map_or(Ok(()), JoinHandle::join).unwrap_or(());
        }
    }
}

impl Written {
    /// Waits for what was noted so far, but not for ever.
    pub(crate) async fn wait(&self) {
        let (answer, written) = oneshot::channel();
        self.0.send(Note::Written(answer)).unwrap_or(());
        // What is late is missing at the end, as it is on a replica that lags.
        drop(timeout(READER_PATIENCE, written).await);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use mainstay_common::Timestamp;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::audit::{FOLDER, Wanted, read, trail::tests::line};

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_only_those_waiting_who_want_it_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (mut scribe, written) = Scribe::start(Trail::open(folder.path()).unwrap()).unwrap();
        // A pipe without a reader does not even open.
        let pipe = folder.path().join(FOLDER).join(format!("audit-{:020}", 1));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        (1..=3).for_each(|index| scribe.add(line(index)));
        assert_eq!(scribe.last(), 3);
        let kept = thread::spawn(scribe.keep());
        let (drawn, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut pipe = File::open(pipe).unwrap();
            io::copy(&mut pipe, &mut io::sink()).unwrap();
            drawn.send(()).unwrap();
        });
        written.wait().await;
        // A pipe cannot be synced: there is no checkpoint without what was seen.
        assert!(kept.join().unwrap().is_err());
        drop(scribe);
        lines.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    #[tokio::test]
    async fn readers_find_what_was_noted_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut scribe, written) = Scribe::start(Trail::open(folder.path()).unwrap()).unwrap();
        (1..=50).for_each(|index| scribe.add(line(index)));
        written.wait().await;
        let all = Wanted { since: Timestamp(0), actor: String::new(), limit: 100 };
        assert_eq!(read(folder.path(), &all).unwrap().lines.len(), 50);
        scribe.keep()().unwrap();
        drop(scribe);
        assert_eq!(Trail::open(folder.path()).unwrap().last(), 50);
        fs::remove_dir_all(folder.path()).unwrap();
    }
}
