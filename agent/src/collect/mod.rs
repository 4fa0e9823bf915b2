//! The eyes: one collector per kind of reading, each a task of its own with its own deadline.
//!
//! A collector never waits for another. What blocks without being able to hang (procfs, sysfs, cgroup files) runs on
//! the blocking pool under [`within`]; what can hang is asked by a child.

pub mod container;
pub mod disk;
pub mod engine;
pub mod host;
pub mod listing;
pub mod mount;
pub mod mountinfo;
mod rclone;
pub mod swarm;
pub mod volume;

pub use rclone::understand as understand_rclone;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mainstay_common::process::shutdown::CancellationToken;
use mainstay_proto::v1 as pb;

use crate::{board::Board, config::EyesConfig, probe::Probes};

/// What every collector is given.
#[derive(Clone, Debug)]
pub struct Eyes {
    /// How to work.
    pub config: Arc<EyesConfig>,
    /// Where to write.
    pub board: Board,
    /// Children for whatever may hang.
    pub probes: Probes,
    /// When to stop.
    pub stop: CancellationToken,
}

/// Why a reading did not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Late {
    /// The deadline passed; the reading goes on and is not started again before it ends.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The reading of before still goes on.
    #[error("still waiting for the reading before")]
    Busy,
    /// It panicked.
    #[error("it crashed: {0}")]
    Crashed(String),
}

/// Keeps a blocking reading from being started twice.
#[derive(Clone, Debug, Default)]
pub struct Once(Arc<AtomicBool>);

/// Runs a blocking reading with a deadline; one at a time for each `once`.
///
/// # Errors
/// [`Late`] when there is no value in time.
pub async fn within<T: Send + 'static>(
    once: &Once,
    limit: Duration,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Late> {
    if once.0.swap(true, Ordering::AcqRel) {
        return Err(Late::Busy);
    }
    let busy = Arc::clone(&once.0);
    let reading = tokio::task::spawn_blocking(move || {
        let _free = Free(busy);
        read()
    });
    match tokio::time::timeout(limit, reading).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(crash)) => Err(Late::Crashed(crash.to_string())),
        Err(_) => Err(Late::Deadline(limit)),
    }
}

struct Free(Arc<AtomicBool>);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Waits for a moment that may not be set: then for ever.
pub(crate) async fn sleep_until_some(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Readings as they travel.
#[must_use]
pub fn readings(readings: &mainstay_common::metric::Readings) -> Option<pb::Readings> {
    let (metric, value) = readings.to_lists();
    (!metric.is_empty()).then_some(pb::Readings { metric, value })
}
