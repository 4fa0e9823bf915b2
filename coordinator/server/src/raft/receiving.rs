//! A checkpoint on its way in: to the disk as it comes, then into a state, beside the log's thread.

use std::{fmt, sync::Arc};

use super::{
    Log, Machine,
    runner::{Arrived, Message},
    start::{self, Sink, StartError},
    store::{NotReceived, Position, WriteError},
};

/// The log is told what becomes of it, also where this is dropped.
#[must_use = "it is missed when this is dropped"]
pub struct Receiving<M: Machine> {
    pub(super) log: Log<M>,
    pub(super) at: Position,
    pub(super) sink: Option<Box<dyn Sink>>,
}

impl<M: Machine> Receiving<M> {
    /// Some more of its file.
    ///
    /// # Errors
    /// There is no room for it, or the disk failed.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.sink.as_mut().map_or(Ok(()), |sink| sink.write(bytes))
    }

    /// All of it came: it is proven whole, and the log has it.
    ///
    /// # Errors
    /// [`NotReceived`].
    pub fn finish(mut self) -> Result<(), NotReceived> {
        let Some(sink) = self.sink.take() else { return Ok(()) };
        let (checkpoint, received) = sink.finish().inspect_err(|_| self.log.checkpoint_missed(self.at))?;
        let (index, bytes) = (checkpoint.index, start::size(&checkpoint.sections));
        self.log.tell(match M::from_sections(&checkpoint.sections) {
            Ok(state) => Message::CheckpointArrived(Box::new(Arrived { received: Arc::new(received), state, bytes })),
            Err(why) => Message::CheckpointUnreadable(StartError::Checkpoint { index, why }.end()),
        });
        Ok(())
    }
}

impl<M: Machine> Drop for Receiving<M> {
    fn drop(&mut self) {
        if self.sink.is_some() {
            self.log.checkpoint_missed(self.at);
        }
    }
}

impl<M: Machine> fmt::Debug for Receiving<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").field("at", &self.at).finish_non_exhaustive()
    }
}
