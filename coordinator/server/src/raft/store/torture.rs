//! The store on a disk that fails.
