//! What the leader should do next.

use crate::{
    Command,
    notify::{Claim, Message, Receiver},
};

/// One thing to do. Proposals of a turn are answered before the next turn is made; what is sent ends in a proposal of
/// its outcome, whenever that is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put this into the log, as [`crate::Actor::Leader`].
    Propose(Command),
    /// Send this message, once.
    Send(Box<Send>),
}

/// A message to send: its claim is in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// The claim, for the outcome: `Delivered`, `Again` or `GiveUp` of it.
    pub claim: Claim,
    /// Where to.
    pub receiver: Receiver,
    /// What.
    pub message: Message,
}
