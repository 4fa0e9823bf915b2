//! Whether the disk failed. Once it has, nobody knows what is durable, and nothing may rely on it any more.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::error::WriteError;

/// Shared by all who use the disk; it only ever turns bad.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<OnceLock<String>>);

impl Health {
    /// # Errors
    /// [`WriteError::Broken`] once anything failed.
    pub(super) fn check(&self) -> Result<(), WriteError> {
        self.0.get().map_or(Ok(()), |why| Err(WriteError::Broken(why.clone())))
    }

    /// It is broken from now on, for the first reason that was given.
    pub(super) fn fail(&self, what: &str, error: &dyn fmt::Display) -> WriteError {
        WriteError::Broken(self.0.get_or_init(|| format!("{what}: {error}")).clone())
    }
}
