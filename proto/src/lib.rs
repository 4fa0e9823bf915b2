//! What goes over the wire: one service per role of certificate, and the messages they share.
//!
//! The `.proto` files are the documentation. They change by addition only: a test compares them with a golden
//! descriptor and fails when a field is renumbered, retyped or removed.

mod codec;
pub mod unfold;

/// Version 1 of the wire.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated; the protos document it")]
pub mod v1 {
    tonic::include_proto!("mainstay.v1");
}

/// The protos' descriptors, for gRPC reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Largest message that either side accepts.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
