//! The cluster itself: its names, its generation, its replicas.

pub mod apply;
pub mod model;
#[cfg(test)]
mod tests;

pub use apply::{Cluster, Command, Consequence, Rejected, Restore};
pub use model::{About, Fence, Founding, Replica, Standing, number, numbered};
