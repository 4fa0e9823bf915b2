//! A queue to one thread, which wakes that thread only where it sleeps, and outside of its lock. With the standard
//! channel whoever is woken meets the lock of who woke it, a thousand times a second.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{RecvTimeoutError, SendError},
    },
    time::{Duration, Instant},
};

/// Both ends.
pub(super) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), sleeps: false, senders: 1, is_closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), fresh: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Puts in; the last one that goes ends the receiver's waiting.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// Takes out; what is left when it goes is dropped.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    fresh: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    /// The receiver waits, and was not woken yet.
    sleeps: bool,
    senders: usize,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Puts one in.
    ///
    /// # Errors
    /// Nobody takes it any more.
    pub(super) fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state();
        if state.is_closed {
            return Err(SendError(item));
        }
        state.queue.push_back(item);
        let sleeps = std::mem::take(&mut state.sleeps);
        drop(state);
        if sleeps {
            self.0.fresh.notify_one();
        }
        Ok(())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.senders -= 1;
        let is_last = state.senders == 0;
        drop(state);
        if is_last {
            self.0.fresh.notify_one();
        }
    }
}

impl<T> Receiver<T> {
    /// The next one; `None` when nobody is left to send any.
    pub(super) fn recv(&self) -> Option<T> {
        self.next(None).ok()
    }

    /// The next one, if it comes in time.
    ///
    /// # Errors
    /// It did not, or nobody is left to send any.
    pub(super) fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        self.next(Some(Instant::now() + limit))
    }

    /// The next one, if it is here.
    pub(super) fn try_recv(&self) -> Option<T> {
        self.0.state().queue.pop_front()
    }

    fn next(&self, until: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let mut state = self.0.state();
        loop {
            if let Some(item) = state.queue.pop_front() {
                state.sleeps = false;
                return Ok(item);
            }
            if state.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                state.sleeps = false;
                return Err(RecvTimeoutError::Timeout);
            }
            state.sleeps = true;
            state = match left {
                Some(left) => self.0.fresh.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.0.fresh.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        let left = std::mem::take(&mut state.queue);
        drop(state);
        // What is in it may hold an end of this queue itself.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn whatever_is_sent_comes_in_order_also_to_a_sleeper() {
        let (sender, receiver) = channel();
        let senders: Vec<_> = (0..4_u64)
            .map(|who| {
                let sender = sender.clone();
                thread::spawn(move || (0..5_000_u64).for_each(|number| sender.send((who, number)).unwrap()))
            })
            .collect();
        drop(sender);
        let mut next = [0; 4];
        while let Some((who, number)) = receiver.recv() {
            let next = &mut next[usize::try_from(who).unwrap()];
            assert_eq!(*next, number);
            *next += 1;
        }
        assert_eq!(next, [5_000; 4]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn a_sleeper_is_woken_by_the_first_and_by_the_end() {
        let (sender, receiver) = channel();
        let taking = thread::spawn(move || (receiver.recv_timeout(LONG), receiver.recv_timeout(LONG)));
        sender.send(7).unwrap();
        drop(sender);
        assert_eq!(taking.join().unwrap(), (Ok(7), Err(RecvTimeoutError::Disconnected)));
    }

    #[test]
    fn nothing_goes_in_when_nobody_takes_it_and_what_was_in_is_dropped() {
        let (sender, receiver) = channel();
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        let item = Arc::new(());
        sender.send(Arc::clone(&item)).unwrap();
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
        assert!(sender.send(item).is_err());
    }
}
