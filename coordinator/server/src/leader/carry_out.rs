//! A message out of the house, and its outcome into the log.

use std::{sync::Arc, time::Duration};

use mainstay_common::text::Shown;
use mainstay_core::{
    Actor, Command,
    effect::Send,
    notify::{self, Address, Again},
};

use crate::{
    failpoint,
    log::{Log, ProposeError},
    raft,
    receivers::{self, Answer, Client, IdempotencyKey, Message, Webhook},
};

/// How soon an outcome is proposed again that found no room.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// Sends it once, and records what came of it. An outcome that cannot be recorded leaves the claim: it is sent again
/// under the same id.
pub(super) async fn send(log: Log, client: Arc<Client>, send: Send) {
    let answer = attempt(&client, &send).await;
    failpoint::reach("answered");
    tell(&send, &answer);
    let Send { claim, .. } = send;
    let outcome = match answer {
        Answer::Delivered { .. } => notify::Command::Delivered(claim),
        Answer::TryAgain { reason, retry_after } => notify::Command::Again(claim, Again { reason, retry_after }),
        Answer::GiveUp { reason } => notify::Command::GiveUp(claim, reason),
    };
    loop {
        match log.propose(log.own(Actor::Leader), Command::Notify(outcome.clone())).await {
            Ok(_) => break failpoint::reach("recorded"),
            Err(ProposeError::Log(raft::ProposeError::NoRoom)) => tokio::time::sleep(RECORD_EVERY).await,
            Err(error) => break tracing::warn!(%error, "the outcome of a delivery is not recorded"),
        }
    }
}

async fn attempt(client: &Client, send: &Send) -> Answer {
    let receiver = match receiver(&send.receiver) {
        Ok(receiver) => receiver,
        // It was declared by a version that knew more.
        Err(reason) => return Answer::GiveUp { reason },
    };
    let key = IdempotencyKey::of(&send.message.id);
    // The body's id is the header's, also where a path had to be escaped or cut.
    let message = notify::Message { id: key.as_str().to_owned(), ..send.message.clone() };
    match serde_json::to_vec(&message) {
        Ok(json) => receiver.send(client, &Message { key: &key, json: &json }).await,
        Err(error) => Answer::GiveUp { reason: error.to_string() },
    }
}

/// A receiver as it was declared, ready to send.
///
/// # Errors
/// What is wrong with the declaration.
pub(crate) fn receiver(declared: &notify::Receiver) -> Result<receivers::Receiver, String> {
    let notify::Receiver::Webhook(webhook) = declared;
    let made = match &webhook.address {
        Address::Url(url) => Webhook::at(url, webhook.allow_private_address).map_err(|error| error.to_string()),
        Address::File(path) => Webhook::in_file(path, webhook.allow_private_address).map_err(|error| error.to_string()),
    };
    made.map(receivers::Receiver::Webhook)
}

fn tell(send: &Send, answer: &Answer) {
    let (delivery, receiver, attempt) = (Shown::new(&send.message.id), &send.claim.id.receiver, send.claim.attempt);
    match answer {
        Answer::Delivered { status } => tracing::info!(%delivery, %receiver, attempt, %status, "delivered"),
        Answer::TryAgain { reason, .. } => {
            tracing::warn!(%delivery, %receiver, attempt, reason = %Shown::new(reason), "not delivered yet");
        }
        Answer::GiveUp { reason } => {
            tracing::error!(%delivery, %receiver, attempt, reason = %Shown::new(reason), "given up");
        }
    }
}
