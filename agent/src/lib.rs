//! The agent: runs on every node, knows nothing of policies or rules.
//!
//! Two halves that only exchange messages over the [`board`]: *eyes* ([`collect`]) and *voice* ([`session`]).
//! Whatever may hang is asked by disposable children ([`probe`], [`walker`]), never by this process.

pub mod board;
pub mod check;
mod children;
pub mod clock;
pub mod collect;
pub mod config;
pub mod delta;
pub mod enroll;
pub mod expose;
pub mod footprint;
pub mod identity;
pub mod probe;
pub mod run;
pub mod session;
pub mod walker;

/// Call this first in `main` of every binary that contains the agent: where the process was started as one of the
/// agent's own children (`probe`, `walker`), it does that work and never returns.
pub fn become_child_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some(probe::CHILD) => probe::child(),
        Some(walker::CHILD) => walker::child(),
        _ => {}
    }
}
