//! The replicated log. So far its floor: where entries and checkpoints are kept.

pub mod store;
