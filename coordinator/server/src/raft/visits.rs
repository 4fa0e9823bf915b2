//! Who speaks for a replica: one life of it at a time. Two that live at once run on copies of one data directory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::driver::LogWentBack;

/// The connections of a life that is over are gone by then, also where its host went silent: the way to others notices
/// that within 3 s.
const SILENCE: Duration = Duration::from_secs(6);
/// So many lives that are over are remembered of each replica.
const LIVES: usize = 64;

/// Why a replica is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unadmitted {
    /// An earlier life of it is connected still: in a moment that is gone, or it is no earlier one.
    #[error("an earlier start of r{0} is still connected here")]
    Earlier(u64),
    /// Another process lives under its id.
    #[error("another process runs as r{0} at the same time: both run on copies of one data directory")]
    Copied(u64),
    /// It has less than it promised.
    #[error(transparent)]
    WentBack(#[from] LogWentBack),
    /// This replica ends.
    #[error("this replica is ending")]
    Ending,
}

/// The book of those who are connected; its clones are the same book.
#[derive(Clone, Debug, Default)]
pub(super) struct Visits(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book(BTreeMap<u64, Visitor>);

#[derive(Debug)]
struct Visitor {
    boot: u64,
    /// Its connections, both ways.
    open: usize,
    /// Lives that are over.
    over: VecDeque<u64>,
    /// Another life that came while this one was connected, and when it came first.
    rival: Option<(u64, Instant)>,
}

/// A connection of a life that is let in, until this is dropped.
#[derive(Debug)]
#[must_use = "it ends with this"]
pub struct Visit {
    visits: Visits,
    peer: u64,
    boot: u64,
}

impl Visits {
    /// Whether that life could be let in now.
    pub(super) fn look(&self, peer: u64, boot: u64) -> Result<(), Unadmitted> {
        self.book().look(peer, boot, Instant::now())
    }

    pub(super) fn admit(&self, peer: u64, boot: u64) -> Result<Visit, Unadmitted> {
        self.book().admit(peer, boot, Instant::now())?;
        Ok(Visit { visits: self.clone(), peer, boot })
    }

    /// The life that speaks for that replica now.
    pub(super) fn current(&self, peer: u64) -> Option<u64> {
        self.book().0.get(&peer).filter(|visitor| visitor.open > 0).map(|visitor| visitor.boot)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn look(&mut self, peer: u64, boot: u64, now: Instant) -> Result<(), Unadmitted> {
        let Some(visitor) = self.0.get_mut(&peer).filter(|visitor| visitor.boot != boot) else { return Ok(()) };
        if visitor.over.contains(&boot) {
            // It was over, and another one came: a process does not come back to life.
            return Err(Unadmitted::Copied(peer));
        }
        if visitor.open > 0 {
            let since = visitor.rival.filter(|(rival, _)| *rival == boot).map_or(now, |(_, since)| since);
            visitor.rival = Some((boot, since));
            let is_copy = now.saturating_duration_since(since) > SILENCE;
            return Err(if is_copy { Unadmitted::Copied(peer) } else { Unadmitted::Earlier(peer) });
        }
        Ok(())
    }

    fn admit(&mut self, peer: u64, boot: u64, now: Instant) -> Result<(), Unadmitted> {
        self.look(peer, boot, now)?;
        let visitor =
            self.0.entry(peer).or_insert_with(|| Visitor { boot, open: 0, over: VecDeque::new(), rival: None });
        if visitor.boot != boot {
            visitor.over.push_back(visitor.boot);
            if visitor.over.len() > LIVES {
                visitor.over.pop_front();
            }
            (visitor.boot, visitor.rival) = (boot, None);
        }
        visitor.open += 1;
        Ok(())
    }

    fn leave(&mut self, peer: u64, boot: u64) {
        if let Some(visitor) = self.0.get_mut(&peer).filter(|visitor| visitor.boot == boot) {
            visitor.open = visitor.open.saturating_sub(1);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visits.book().leave(self.peer, self.boot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_no_copy() {
        let (mut book, now) = (Book::default(), Instant::now());
        for boot in 1..200 {
            book.admit(2, boot, now).unwrap();
            // Another connection of the same life.
            book.admit(2, boot, now).unwrap();
            book.leave(2, boot);
            assert_eq!(book.admit(2, boot + 1, now), Err(Unadmitted::Earlier(2)), "the host went silent");
            book.leave(2, boot);
        }
    }

    #[test]
    fn two_lives_at_once_are_copies_and_the_later_one_is_refused() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.admit(2, 1, now).unwrap();
        assert_eq!(book.admit(2, 9, now), Err(Unadmitted::Earlier(2)));
        assert_eq!(book.admit(2, 9, now + SILENCE), Err(Unadmitted::Earlier(2)));
        assert_eq!(book.admit(2, 9, now + SILENCE * 2), Err(Unadmitted::Copied(2)));
        book.admit(2, 1, now + SILENCE * 2).unwrap();
    }

    #[test]
    fn a_life_that_was_over_does_not_come_back() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.admit(2, 1, now).unwrap();
        book.leave(2, 1);
        // The same life may be cut off for a while.
        book.admit(2, 1, now).unwrap();
        book.leave(2, 1);
        book.admit(2, 9, now).unwrap();
        book.leave(2, 9);
        assert_eq!(book.admit(2, 1, now), Err(Unadmitted::Copied(2)));
        book.admit(2, 9, now).unwrap();
    }
}
