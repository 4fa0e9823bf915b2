//! The cluster's roots: which of them count, which one issues, and who has taken that over.
//!
//! A rotation goes from one root to the next without anybody losing their way in:
//!
//! | phase | trusted | issues and serves | goes on when |
//! |---|---|---|---|
//! | settled | 1 | 1 | somebody begins |
//! | spreading | 1, 2 | 1 | every node has kept both |
//! | replacing | 1, 2 | 2 | every node holds a certificate by 2 |
//! | settled | 2 | 2 | |
//!
//! Until the last step everything goes back the same way. Each change has a version; a node acknowledges it once it has
//! kept the roots and holds a certificate of the one that issues.

pub mod apply;
pub mod model;
#[cfg(test)]
mod tests;

pub(crate) use apply::named;
pub use apply::{Ca, Command, Consequence, Rejected, Step};
pub use model::{Holder, NewRoot, Phase, REMEMBERED, Root, Sealed, Standing, may_come_back};
