//! When checkpoints are made; each is written by a thread of its own, so that entries do not wait for it.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mainstay_common::process::now;

use super::{
    Keep, Machine, Position, Pulse, Settings,
    mail::Sender,
    runner::Message,
    store::{CheckpointWriter, ConfState, Disk, Piece, SavedCheckpoint, WriteError},
};

/// A full disk is not met with one checkpoint after the other: after so many retry intervals the next one.
const PAUSES_WHEN_FULL: u32 = 30;

/// Counts what a checkpoint would spare the next start, and makes it when that is enough.
pub(super) struct Keeping<M: Machine> {
    every_entries: u64,
    every_bytes: u64,
    retry_interval: Duration,
    inbox: Sender<Message<M>>,
    pulse: Arc<Pulse>,
    /// Since the last checkpoint was begun, or failed.
    entries: u64,
    bytes: u64,
    under_way: Option<UnderWay>,
    not_before: Option<Instant>,
}

struct UnderWay {
    thread: JoinHandle<Result<SavedCheckpoint, Unmade>>,
    since: Instant,
    at: Position,
    conf_state: ConfState,
    entries: u64,
    bytes: u64,
}

/// Why there is no checkpoint.
enum Unmade {
    /// What was seen of the log is not durable, and a checkpoint would forget it.
    Unkept(io::Error),
    Unwritten(WriteError),
}

/// Tells the log's thread that a checkpoint is done, however that came.
struct Done<M: Machine>(Sender<Message<M>>);

impl<M: Machine> Drop for Done<M> {
    fn drop(&mut self) {
        // With the log's thread gone nobody waits for it.
        self.0.send(Message::CheckpointDone).unwrap_or(());
    }
}

impl<M: Machine> Drop for Keeping<M> {
    fn drop(&mut self) {
        // Nothing may use the disk when the log has ended, unless it hangs there.
        self.under_way.take().map_or(Ok(()), |under_way| under_way.thread.join().map(drop)).unwrap_or(());
    }
}

impl<M: Machine> Keeping<M> {
    pub(super) fn new(
        settings: &Settings,
        inbox: Sender<Message<M>>,
        pulse: Arc<Pulse>,
        entries: u64,
        bytes: u64,
    ) -> Self {
        Self {
            every_entries: settings.checkpoint_entries,
            every_bytes: settings.checkpoint_bytes,
            retry_interval: settings.retry_interval,
            inbox,
            pulse,
            entries,
            bytes,
            under_way: None,
            not_before: None,
        }
    }

    /// An entry of so many bytes was written.
    pub(super) fn count(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
    }

    /// Whether a checkpoint should be made now. On a full disk any is worth it: it gives room back. One that a peer needs
    /// is made where there is anything new in it.
    pub(super) fn is_due(&self, is_full: bool, is_wanted: bool) -> bool {
        let enough = self.entries >= self.every_entries || self.bytes >= self.every_bytes;
        self.may_begin() && (enough || (is_full || is_wanted) && self.entries > 0)
    }

    /// Whether one is made just behind that entry: every replica makes one there, so that they can be compared.
    pub(super) fn is_due_at(&self, index: u64) -> bool {
        index.is_multiple_of(self.every_entries) && self.may_begin()
    }

    fn may_begin(&self) -> bool {
        self.under_way.is_none() && self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The disk hangs: whoever writes a checkpoint is not waited for.
    pub(super) fn abandon(&mut self) {
        self.under_way = None;
    }

    /// Begins a checkpoint of `state`, which has all entries up to `at`; `conf_state` are the members as of there. What
    /// observers saw is kept first.
    pub(super) fn begin<D: Disk>(
        &mut self,
        writer: CheckpointWriter<D>,
        at: Position,
        conf_state: ConfState,
        state: M,
        keeps: Vec<Keep>,
        is_full: bool,
    ) {
        self.put_off(if is_full { PAUSES_WHEN_FULL } else { 0 });
        let (members, done, pulse) = (conf_state.clone(), Done(self.inbox.clone()), Arc::clone(&self.pulse));
        let write = move || {
            let _done = done;
            keeps.into_iter().try_for_each(Keep::carry_out).map_err(Unmade::Unkept)?;
            let mut bytes = 0;
            let saved = writer.write_pieces(at, &members, |put| {
                bytes = 0;
                state.pieces(&mut |piece| {
                    bytes += match piece {
                        Piece::Section(_) => 0,
                        Piece::Bytes(piece) => piece.len() as u64,
                    };
                    put(piece)
                })
            });
            let saved = saved.map_err(Unmade::Unwritten)?;
            pulse.checkpoint(bytes, Some(now().0));
            Ok(saved)
        };
        match thread::Builder::new().name("log-checkpoint".into()).spawn(write) {
            Ok(thread) => {
                let (entries, bytes) = (std::mem::take(&mut self.entries), std::mem::take(&mut self.bytes));
                self.under_way = Some(UnderWay { thread, since: Instant::now(), at, conf_state, entries, bytes });
            }
            Err(error) => {
                tracing::warn!(%error, "no thread for a checkpoint");
                self.put_off(1);
            }
        }
    }

    /// The checkpoint that is done; `None` where it could not be made for now.
    ///
    /// # Errors
    /// [`WriteError::Broken`].
    pub(super) fn finish(&mut self) -> Result<Option<(SavedCheckpoint, Position, ConfState)>, WriteError> {
        let Some(UnderWay { thread, since, at, conf_state, entries, bytes }) = self.under_way.take() else {
            return Ok(None);
        };
        let mut pauses = PAUSES_WHEN_FULL;
        match thread.join() {
            Ok(Ok(saved)) => {
                let took_ms = since.elapsed().as_millis();
                tracing::info!(index = at.index, term = at.term, took_ms, "a checkpoint was made");
                return Ok(Some((saved, at, conf_state)));
            }
            Ok(Err(Unmade::Unwritten(WriteError::NoRoom))) => tracing::warn!("no room on the disk for a checkpoint"),
            Ok(Err(Unmade::Unwritten(error))) => return Err(error),
            Ok(Err(Unmade::Unkept(error))) => {
                tracing::warn!(%error, "no checkpoint: what was seen of the log cannot be kept");
                pauses = 1;
            }
            // It has told why already. The log is whole without a checkpoint; it only grows.
            Err(_) => tracing::error!("making a checkpoint failed"),
        }
        self.entries += entries;
        self.bytes += bytes;
        self.put_off(pauses);
        Ok(None)
    }

    /// Nothing is begun before so many retry intervals have passed.
    pub(super) fn put_off(&mut self, intervals: u32) {
        self.not_before = Some(Instant::now() + self.retry_interval * intervals);
    }
}
