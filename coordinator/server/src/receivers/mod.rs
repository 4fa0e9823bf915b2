//! Where messages go: text in, delivered, try again or give up out. One file per kind of receiver; they decide nothing
//! about what is sent or when.
//!
//! Another kind is a file like `webhook`, a variant of [`Receiver`] and its arm in [`Receiver::send`]; what it says over
//! http goes through [`Client`], so that every kind keeps the same limits and reaches the same addresses only.

mod address;
mod answer;
mod client;
mod dial;
mod idempotency_key;
mod target;
mod webhook;

pub use address::{Reserved, reserved};
pub use answer::{Answer, RETRY_AFTER_MAX};
pub use client::{Client, Limits};
pub use dial::{Lookup, system_roots};
pub use idempotency_key::IdempotencyKey;
pub use target::{InvalidUrl, Target, URL_MAX_BYTES};
pub use webhook::{InvalidUrlFile, Webhook};

/// What is sent: once by intent, and recognisable where it arrives twice.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The delivery's name. `id` in the JSON must be this very text: whoever writes the JSON takes it from here.
    pub key: &'a IdempotencyKey,
    /// The message as JSON.
    pub json: &'a [u8],
}

/// A receiver as it was declared.
#[derive(Clone, Debug)]
pub enum Receiver {
    /// A `POST` with JSON.
    Webhook(Webhook),
}

impl Receiver {
    /// Sends one message. Ends within [`Limits::total`] and [`Limits::goodbye`], and dropping the future ends the
    /// attempt: nothing goes on behind it.
    pub async fn send(&self, client: &Client, message: &Message<'_>) -> Answer {
        match self {
            Self::Webhook(webhook) => webhook.send(client, message).await,
        }
    }
}
