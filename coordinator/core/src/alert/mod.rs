//! Alerts: places where a rule holds. Pending until it held long enough, firing until it is surely over.

pub mod apply;
pub mod model;
pub(crate) mod plan;
pub mod quantity;
pub mod rule;
pub(crate) mod words;

pub use apply::{Alerts, Command, Consequence, Known, Pend, Rejected, Turn};
pub use model::{Alert, AlertId, End, Episode, Event, Phase, Resolved, RuleId, Space, Told};
pub use rule::{Change, Rules, Settings, Where};
