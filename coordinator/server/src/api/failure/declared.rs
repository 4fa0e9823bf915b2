//! What is said of declarations and receivers.

use mainstay_common::process::config::nearest;
use mainstay_core::State;
use tonic::{Code, Status};

use super::status;

/// A declaration that makes no sense; `place` is its file and line, where that is known.
pub(crate) fn declaration(place: &str, what: &str, why: &str) -> Status {
    let (what, try_next) = match place.rsplit_once(':') {
        Some((file, _)) => {
            (format!("{place}: {what}"), format!("correct {file}; mainstay apply --dry-run changes nothing"))
        }
        None => (what.to_owned(), "mainstay apply --dry-run changes nothing".to_owned()),
    };
    status(Code::InvalidArgument, what, why, try_next)
}

/// Declarations that somebody else changed since they were compared.
pub(crate) fn declarations_changed(why: &str) -> Status {
    status(Code::Aborted, "the declarations changed meanwhile", why, "mainstay apply again, and look at the difference")
}

/// A receiver that nobody declared, with the nearest names.
pub(crate) fn receiver_unknown(name: &str, state: &State) -> Status {
    let near = nearest(name, state.notifications.receivers().map(|(name, ..)| name.as_str()));
    let why = near.map_or_else(|| "no receiver has that name".into(), |near| format!("nearest: {near}"));
    status(Code::NotFound, format!("receiver {name:?} is unknown"), why, "mainstay receiver ls")
}

/// A delivery that is neither owed nor remembered.
pub(crate) fn delivery_unknown(id: &str) -> Status {
    let why = "it never was, or ended long ago: the last 1000 are remembered";
    status(Code::NotFound, format!("delivery {id:?} is unknown"), why, "mainstay audit")
}
