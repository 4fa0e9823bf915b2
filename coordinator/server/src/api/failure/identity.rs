//! What is said of people, tokens and signatures.

use mainstay_common::UserName;
use tonic::{Code, Status};

use super::status;
use crate::identity::Unsigned;

/// A person whose certificate counts no more.
pub(crate) fn user_revoked(name: &UserName) -> Status {
    status(
        Code::Unauthenticated,
        format!("{name} may not come in"),
        "that certificate was revoked or replaced",
        "ask an administrator for a new context: mainstay user add",
    )
}

/// A token that `revoke` does not find.
pub(crate) fn token_unknown(id: &str) -> Status {
    status(Code::NotFound, format!("token {id:?} is unknown"), "no token has that id", "mainstay token ls")
}

/// A token whose id another one has: the ids are 40 bits of a hash.
pub(crate) fn token_taken() -> Status {
    status(Code::Internal, "no token was made", "another token has its id, by chance", "mainstay token create again")
}

/// A certificate that was not signed.
pub(crate) fn unsigned(error: &Unsigned) -> Status {
    match error {
        Unsigned::Request(_) => status(Code::InvalidArgument, "no certificate was signed", error.to_string(), ""),
        Unsigned::Ca(_) => {
            status(Code::Internal, "no certificate was signed", error.to_string(), "look at the coordinator's log")
        }
        Unsigned::Closed(_) => status(
            Code::FailedPrecondition,
            "no certificate was signed",
            error.to_string(),
            "on the coordinator's machine: put that file back from a copy, and start the coordinator again",
        ),
    }
}

/// A backup without what opens the CA's key would restore nobody's way in.
pub(crate) fn no_backup(error: &Unsigned) -> Status {
    let try_next = "put that file back on this replica's machine; or take the backup when another replica leads: mainstay \
                    cluster transfer";
    status(Code::FailedPrecondition, "no backup was made", error.to_string(), try_next)
}
