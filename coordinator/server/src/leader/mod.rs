//! What only the leader does: it lives from the first applied entry of its term to the loss of leadership.
//!
//! Core plans, this room carries out: proposals into the log, messages out of the house. It decides nothing.

mod carry_out;
mod control_loop;
mod membership;

pub(crate) use carry_out::receiver;
pub(crate) use control_loop::ControlLoop;
pub(crate) use membership::Membership;
