//! Stories about the whole: real programs in separate processes, the real command line, the system's own tools beside.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod abuse;
mod alerts;
mod asks;
mod bad_input;
mod ca_rotation;
mod clocks;
mod containers;
mod copies;
mod dev;
mod disaster;
mod disks;
mod failing_disks;
mod hostile_engine;
mod linearizability;
mod mounts;
mod partitions;
mod replicas;
mod set_up;
mod shares;
mod swarm;
mod versions;
mod views;
mod volumes;
mod who_may_enter;
mod write_path;
