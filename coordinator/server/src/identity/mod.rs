//! The cluster's own CA: made once, signs what the state allows.

mod ca;

pub(crate) use ca::{Ca, Damaged, Request, Unsigned};

use std::time::Duration;

/// How long an agent's or a person's certificate lives; it is renewed in use.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// How long a replica's certificate lives; a sole replica makes itself a new one at start.
pub(crate) const REPLICA_LIFE: Duration = Duration::from_secs(30 * 86_400);
