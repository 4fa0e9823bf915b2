//! What a running program needs: configuration, data directory, logs, TLS, signals, the clock.

pub mod backup;
pub mod config;
pub mod context;
pub mod data_dir;
pub mod http;
pub mod log;
pub mod ready;
pub mod shutdown;
pub mod tls;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Timestamp;

/// The machine's wall clock.
#[must_use]
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Random bytes from the kernel.
///
/// # Panics
/// Where the kernel has no randomness: nothing may go on then.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}
