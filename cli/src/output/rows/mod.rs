//! One file per noun: a row's keys, its columns and its place.

mod alert;
mod audit;
mod container;
mod context;
mod disk;
mod mount;
mod node;
mod receiver;
mod replica;
mod rule;
mod token;
mod user;
mod volume;

pub(crate) use alert::{AlertOrder, AlertRow};
pub(crate) use audit::AuditRow;
pub(crate) use container::{ContainerOrder, ContainerRow, state_tone as container_tone};
pub(crate) use context::ContextRow;
pub(crate) use disk::{DiskOrder, DiskRow, state_tone as disk_tone};
pub(crate) use mount::{MountOrder, MountRow, state_tone as mount_tone};
pub(crate) use node::{NodeOrder, NodeRow, state_tone as node_tone};
pub(crate) use receiver::ReceiverRow;
pub(crate) use replica::ReplicaRow;
pub(crate) use rule::RuleRow;
pub(crate) use token::TokenRow;
pub(crate) use user::UserRow;
pub(crate) use volume::{VolumeOrder, VolumeRow};

#[cfg(test)]
mod tests;
