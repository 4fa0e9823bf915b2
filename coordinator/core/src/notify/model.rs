//! What receivers, routes and deliveries are.

use std::fmt;

use mainstay_common::{ReceiverName, Timestamp, state::Severity, text};
use minicbor::{Decode, Encode};

use crate::{
    alert::{AlertId, Event, Told},
    cluster::Fence,
    pattern::Pattern,
};

/// Where messages go, as it was declared. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Receiver {
    /// A `POST` with JSON.
    #[n(0)]
    Webhook(#[n(0)] Webhook),
}

/// A webhook as it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Webhook {
    /// Where to.
    #[n(0)]
    pub address: Address,
    /// Whether loopback and private addresses may be reached.
    #[n(1)]
    pub allow_private_address: bool,
}

/// Where a webhook's URL stands. It is a secret.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Address {
    /// In the declaration.
    #[n(0)]
    Url(#[n(0)] String),
    /// In a file on every replica.
    #[n(1)]
    File(#[n(0)] String),
}

impl Address {
    /// What may be shown of it: scheme and host, or the file.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => format!("url_file {}", text::Shown::new(path)),
            Self::Url(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("?", ""));
                let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = place.rsplit('@').next().unwrap_or_default();
                format!("{}://{}/…", text::Shown::new(scheme).cut(10), text::Shown::new(host).cut(100))
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Webhook(webhook) = self;
        let private = if webhook.allow_private_address { " allow_private_address" } else { "" };
        write!(f, "webhook {}{private}", webhook.address.shown())
    }
}

/// Which alerts a route is about. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Matcher {
    /// Of this severity.
    #[n(0)]
    pub severity: Option<Severity>,
    /// Of these rules.
    #[n(1)]
    pub rule: Option<Pattern>,
    /// On these nodes.
    #[n(2)]
    pub node: Option<Pattern>,
    /// On these mounts.
    #[n(3)]
    pub mount: Option<Pattern>,
}

impl Matcher {
    /// Whether it is about this.
    #[must_use]
    pub fn matches(&self, told: &Told) -> bool {
        let meant =
            |pattern: &Option<Pattern>, text: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(text));
        self.severity.is_none_or(|severity| severity == told.severity)
            && meant(&self.rule, told.alert.rule.as_str())
            && meant(&self.node, told.alert.node.as_str())
            && (self.mount.is_none() || meant(&self.mount, &text::exact(&told.alert.target)))
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.severity.map(|severity| format!("severity={severity}")));
        let patterns = [("rule", &self.rule), ("node", &self.node), ("mount", &self.mount)];
        parts.extend(patterns.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))));
        f.write_str(&if parts.is_empty() { "everything".into() } else { parts.join(" ") })
    }
}

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Subject {
    /// A person wants to see one arrive.
    #[n(0)]
    Test,
    /// An alert.
    #[n(1)]
    Alert(#[n(0)] AlertId),
}

/// A delivery's name. Ordered so that what one receiver is told of one alert stands together, and in the order in which
/// it must arrive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct DeliveryId {
    /// To whom.
    #[n(0)]
    pub receiver: ReceiverName,
    /// About what.
    #[n(1)]
    pub subject: Subject,
    /// Which episode of it.
    #[n(2)]
    pub since: Timestamp,
    /// What of it.
    #[n(3)]
    pub event: Event,
}

impl DeliveryId {
    /// The alert's id, or that of a test.
    #[must_use]
    pub fn alert(&self) -> String {
        match &self.subject {
            Subject::Test => format!("test/{}", self.receiver),
            Subject::Alert(alert) => alert.to_string(),
        }
    }
}

/// `alert@since#event`: what the receiver knows a repetition by.
impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}", self.alert(), self.since, self.event.as_str())
    }
}

/// A message that is owed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Delivery {
    /// What there is to tell; `None` for a test.
    #[n(0)]
    pub told: Option<Told>,
    /// Since when it is owed.
    #[n(1)]
    pub owed_at: Timestamp,
    /// Attempts that were begun.
    #[n(2)]
    pub attempts: u32,
    /// How far it is.
    #[n(3)]
    pub progress: Progress,
    /// Whether the receiver has heard of the episode: who has not is not told that it is over.
    #[n(4)]
    pub heard: bool,
    /// Why the last attempt failed.
    #[n(5)]
    pub reason: Option<String>,
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Progress {
    /// Nobody is at it; not to be tried before that moment.
    #[n(0)]
    Owed(#[n(0)] Timestamp),
    /// A leader said that it would send it, then. Whether it did is not known before its outcome is recorded.
    #[n(1)]
    Claimed(#[n(0)] Fence, #[n(1)] Timestamp),
}

/// A delivery that is over.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Finished {
    /// Which.
    #[n(0)]
    pub id: DeliveryId,
    /// When it ended.
    #[n(1)]
    pub at: Timestamp,
    /// How.
    #[n(2)]
    pub outcome: Outcome,
    /// Attempts that it took.
    #[n(3)]
    pub attempts: u32,
}

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The receiver has it.
    #[n(0)]
    Delivered,
    /// It has not, and will not.
    #[n(1)]
    GivenUp(#[n(0)] String),
}

/// How a receiver fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Standing {
    /// When it last took something.
    #[n(0)]
    pub delivered_at: Option<Timestamp>,
    /// What is wrong since.
    #[n(1)]
    pub failing: Option<Failing>,
}

/// A receiver that does not take what it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failing {
    /// Since when.
    #[n(0)]
    pub since: Timestamp,
    /// Attempts in a row that failed.
    #[n(1)]
    pub failures: u32,
    /// It is left alone until then.
    #[n(2)]
    pub not_before: Timestamp,
    /// Why the last one failed.
    #[n(3)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::RuleId;

    #[test]
    fn a_delivery_is_named_by_episode_and_event() {
        let alert = AlertId { node: "n1".parse().unwrap(), rule: RuleId::FsSpace, target: b"/data".to_vec() };
        let id = DeliveryId {
            receiver: "ops".parse().unwrap(),
            subject: Subject::Alert(alert),
            since: Timestamp(0),
            event: Event::Fired,
        };
        assert_eq!(id.to_string(), "fs.space/n1//data@1970-01-01T00:00:00.000Z#fired");
        let test = DeliveryId { subject: Subject::Test, ..id };
        assert_eq!(test.to_string(), "test/ops@1970-01-01T00:00:00.000Z#fired");
    }

    #[test]
    fn a_url_is_a_secret() {
        for (url, shown) in [
            ("https://chat.example/hook/s3cret?s3cret", "https://chat.example/…"),
            ("http://user:s3cret@10.0.0.1:8080/x", "http://10.0.0.1:8080/…"),
            ("s3cret", "?:///…"),
        ] {
            assert_eq!(format!("{:?}", Address::Url(url.into())), shown);
        }
    }
}
