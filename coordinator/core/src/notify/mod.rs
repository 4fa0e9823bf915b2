//! Notifications: texts that are owed to receivers, each delivered once, or visibly not.

pub mod apply;
mod backoff;
pub mod message;
pub mod model;
pub(crate) mod plan;

pub use apply::{Again, Claim, Command, Consequence, Notifications, Rejected};
pub use message::Message;
pub use model::{
    Address, Delivery, DeliveryId, Failing, Finished, Matcher, Outcome, Progress, Receiver, Standing, Subject, Webhook,
};
