//! The audit trail: a line for every entry that was decided, kept apart from the state and longer than the log.
//!
//! A folder of files `audit-INDEX` (20 digits, of the first entry in it), each a JSON object a line. Lines carry the
//! SHA-256 of all before them, so that one that is changed or taken out shows. The trail follows the log: what is
//! missing at its end after a crash is written again from there, so it is synced only when the log is about to forget.

mod line;
mod reading;
mod scribe;
mod trail;

pub(crate) use line::Line;
pub(crate) use reading::{Found, Wanted, read};
pub(crate) use scribe::{Scribe, Written};
pub(crate) use trail::{FOLDER, Trail};
