//! Children that measure folders: whatever they hang on, and however long they take, nobody else waits.
//!
//! One child for each folder, one folder at a time, idle by priority and slow on purpose. It tells every second how far
//! it is; one that falls silent is left to itself, and the next folder gets a child of its own.

mod child;
mod pace;
#[cfg(test)]
mod swapper;
mod tree;
mod wire;

use std::{ffi::OsStr, io, time::Duration};

use tokio::{io::AsyncWriteExt as _, net::UnixStream, process::Child, time::timeout};

pub use child::child;
pub use wire::Measured;

use crate::children;
use wire::{Order, Tiding};

/// The first argument of such a child.
pub const CHILD: &str = "walker-child";

/// A child that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(30);

/// Why there is no measure.
#[derive(Debug, thiserror::Error)]
pub enum Unmeasured {
    /// The folder cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The child ended, or could not be started.
    #[error("the walk ended early: {0}")]
    Lost(#[from] io::Error),
    /// The child says nothing any longer.
    #[error("the walk hangs")]
    Hangs(Box<Hung>),
}

/// A child that hangs.
#[derive(Debug)]
pub struct Hung {
    socket: UnixStream,
    _child: Child,
}

impl Hung {
    /// Waits for its end: it is told to end as soon as it can hear.
    pub async fn ended(self) {
        let mut socket = self.socket;
        // What it still tells is out of date; it ends when it cannot tell it.
        while children::read::<Tiding>(&mut socket).await.is_ok() {
            if socket.shutdown().await.is_err() {
                return;
            }
        }
    }
}

/// Measures a folder as `du -x` does. Everything mounted at one of `mountpoints` is left out without a look.
///
/// # Errors
/// Why there is no measure.
pub async fn measure(program: &OsStr, folder: &[u8], mountpoints: &[Vec<u8>]) -> Result<Measured, Unmeasured> {
    let (mut socket, child) = children::start(program, CHILD)?;
    let order = Order { folder: folder.to_vec(), mountpoints: mountpoints.to_vec() };
    socket.write_all(&children::frame(&order)).await?;
    loop {
        let tiding = match timeout(SILENCE, children::read::<Tiding>(&mut socket)).await {
            Ok(tiding) => tiding?,
            Err(_) => return Err(Unmeasured::Hangs(Box::new(Hung { socket, _child: child }))),
        };
        if !tiding.error.is_empty() {
            return Err(Unmeasured::Unreadable(tiding.error));
        }
        if let Some(measured) = tiding.measured {
            return Ok(measured);
        }
    }
}
