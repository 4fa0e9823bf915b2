//! What waits for one peer: control first, then entries; what does not fit is dropped, and that is told once.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Bytes of entries that may wait.
const APPENDS_BYTES: usize = 32 << 20;
/// Messages without entries that may wait: more are of no use to anybody.
const CONTROLS: usize = 4_096;
/// Bytes that are sent at once; one frame may have more.
const BATCH_BYTES: usize = 1 << 20;
/// How an append begins: field 1, the message's type, 3. Fields are written in the order of their numbers.
const APPEND: [u8; 2] = [0x08, 3];

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    fresh: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// There is a stream that takes them.
    is_open: bool,
    /// That something was dropped was told since the last stream began, or the queue was last empty.
    told: bool,
    control: VecDeque<Vec<u8>>,
    appends: VecDeque<Vec<u8>>,
    append_bytes: usize,
}

impl Queue {
    /// Takes a frame, or drops it; true where a loss has to be told.
    pub(super) fn push(&self, frame: Vec<u8>) -> bool {
        let mut waiting = self.waiting();
        let is_append = frame.starts_with(&APPEND);
        let fits = if is_append {
            waiting.append_bytes + frame.len() <= APPENDS_BYTES
        } else {
            waiting.control.len() < CONTROLS
        };
        if !waiting.is_open || !fits {
            return !std::mem::replace(&mut waiting.told, true);
        }
        if is_append {
            waiting.append_bytes += frame.len();
            waiting.appends.push_back(frame);
        } else {
            waiting.control.push_back(frame);
        }
        drop(waiting);
        self.fresh.notify_one();
        false
    }

    /// A stream begins.
    pub(super) fn open(&self) {
        *self.waiting() = Waiting { is_open: true, ..Waiting::default() };
    }

    /// The stream ended: what waits is lost with it, and that is told by whoever closes.
    pub(super) fn close(&self) {
        *self.waiting() = Waiting { told: true, ..Waiting::default() };
    }

    /// The next frames to send, as soon as there are any.
    pub(super) async fn take(&self) -> Vec<Vec<u8>> {
        loop {
            let batch = self.batch();
            if !batch.is_empty() {
                return batch;
            }
            self.fresh.notified().await;
        }
    }

    fn batch(&self) -> Vec<Vec<u8>> {
        let mut waiting = self.waiting();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let is_control = !waiting.control.is_empty();
            let next = if is_control { waiting.control.front() } else { waiting.appends.front() };
            let Some(length) = next.map(Vec::len) else { break };
            if !batch.is_empty() && bytes + length > BATCH_BYTES {
                break;
            }
            bytes += length;
            let next = if is_control {
                waiting.control.pop_front()
            } else {
                waiting.append_bytes -= length;
                waiting.appends.pop_front()
            };
            batch.extend(next);
        }
        if waiting.control.is_empty() && waiting.appends.is_empty() {
            waiting.told = false;
        }
        batch
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use raft::eraftpb::{Message, MessageType};

    use super::*;

    fn frame(kind: MessageType, bytes: usize) -> Vec<u8> {
        let mut message = Message { from: 1, to: 2, ..Message::default() };
        message.set_msg_type(kind);
        message.set_context(vec![7; bytes].into());
        message.write_to_bytes().unwrap()
    }

    #[test]
    fn control_goes_before_entries() {
        let queue = Queue::default();
        queue.open();
        let kinds = [MessageType::MsgAppend, MessageType::MsgHeartbeat, MessageType::MsgAppend];
        for kind in kinds {
            assert!(!queue.push(frame(kind, 1)));
        }
        let expected = [MessageType::MsgHeartbeat, MessageType::MsgAppend, MessageType::MsgAppend];
        assert_eq!(queue.batch(), expected.map(|kind| frame(kind, 1)));
    }

    #[test]
    fn a_loss_is_told_once() {
        let queue = Queue::default();
        assert!(queue.push(frame(MessageType::MsgHeartbeat, 1)), "there is no stream yet");
        assert!(!queue.push(frame(MessageType::MsgHeartbeat, 1)));
        queue.open();
        let mut lost = Vec::new();
        for _ in 0..40 {
            lost.push(queue.push(frame(MessageType::MsgAppend, 1 << 20)));
        }
        assert_eq!(lost.iter().filter(|lost| **lost).count(), 1);
        assert!(!queue.push(frame(MessageType::MsgHeartbeat, 1)), "control still fits");
        assert_eq!(queue.batch().len(), 1, "and goes first");
        while !queue.batch().is_empty() {}
        assert!(!queue.push(frame(MessageType::MsgAppend, 1)));
        assert_eq!(queue.batch().len(), 1);
    }
}
