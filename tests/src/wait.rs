//! Waiting for a condition, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Asks until there is an answer.
///
/// # Panics
/// When there is none within `limit`; the last objection is in the message.
pub fn eventually<T, E: std::fmt::Display>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(objection) if Instant::now() >= deadline => panic!("not within {limit:?}: {what}: {objection}"),
            Err(_) => thread::park_timeout(LOOK_EVERY),
        }
    }
}

/// Looks again and again for as long as `span` lasts.
///
/// # Panics
/// At the first objection.
pub fn throughout<E: std::fmt::Display>(what: &str, span: Duration, mut look: impl FnMut() -> Result<(), E>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(objection) = look() {
            panic!("not throughout {span:?}: {what}: {objection}");
        }
        thread::park_timeout(LOOK_EVERY);
    }
}

/// `Ok` where it holds, else the sentence.
///
/// # Errors
/// The sentence.
pub fn holds(is: bool, objection: impl FnOnce() -> String) -> Result<(), String> {
    if is { Ok(()) } else { Err(objection()) }
}
