//! The webhook against real servers on loopback, good ones and bad ones.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod answers;
mod misbehaviour;
mod names;
mod receiver;
mod tls;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mainstay_coordinator::{
    VERSION,
    receivers::{Answer, Client, IdempotencyKey, Limits, Message, Receiver as Declared, Webhook},
};
use receiver::Receiver;
use rustls::RootCertStore;
use tokio::time::timeout;

/// Longer than anything here takes; only a defect meets it.
const AGES: Duration = Duration::from_secs(15);
const SECRET: &str = "T0/s3cret";

#[tokio::test]
async fn a_message_arrives_as_documented() {
    let receiver = Receiver::answers("HTTP/1.1 204 No Content\r\n\r\n").await;
    let url = format!("http://{}/hook/{SECRET}?token=s3cret", receiver.address);
    let key = IdempotencyKey::of("fs.space/n1//mnt/a b\u{e9}@2026-08-22T10:00:00Z#fired");
    let json = serde_json::to_vec(&serde_json::json!({ "id": key.as_str(), "event": "fired" })).unwrap();
    let message = Message { key: &key, json: &json };
    let webhook = Declared::Webhook(Webhook::at(&url, true).unwrap());

    assert_eq!(webhook.send(&patient(), &message).await, Answer::Delivered { status: 204 });
    let [request] = &receiver.requests()[..] else { panic!("one request") };
    assert_eq!(request.head.lines().next(), Some("POST /hook/T0/s3cret?token=s3cret HTTP/1.1"));
    assert_eq!(request.header("host"), Some(receiver.address.to_string().as_str()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some(format!("mainstay/{VERSION}").as_str()));
    assert_eq!(request.header("idempotency-key"), Some("fs.space/n1//mnt/a b\\xc3\\xa9@2026-08-22T10:00:00Z#fired"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["id"].as_str(), request.header("idempotency-key"));
}

#[test]
fn the_documented_message_is_one() {
    let page = include_str!("../../../../docs/webhook.md");
    let json = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    let mut keys = json.lines().filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once('"')?.0));
    for key in
        ["id", "alert", "event", "rule", "severity", "node", "target", "value", "summary", "text", "since", "cluster"]
    {
        assert_eq!(keys.next(), Some(key));
    }
    assert_eq!(keys.next(), None);
    let id = message["id"].as_str().unwrap();
    assert_eq!(IdempotencyKey::of(id).as_str(), id);
    assert!(page.contains(&format!("Idempotency-Key: {id}\n")), "the header is the id");
}

fn patient() -> Client {
    Client::new(RootCertStore::empty(), Limits::default())
}

fn hasty() -> Client {
    Client::new(RootCertStore::empty(), Limits { total: Duration::from_millis(300), ..Limits::default() })
}

fn named(client: Client, addresses: &[SocketAddr]) -> Client {
    let addresses = addresses.to_vec();
    client.with_lookup(Arc::new(move |_, _| Ok(addresses.clone())))
}

async fn send(client: &Client, receiver: &Receiver) -> Answer {
    send_to(client, &format!("http://{}/{SECRET}?token=s3cret", receiver.address)).await
}

async fn send_to(client: &Client, url: &str) -> Answer {
    send_by(client, Webhook::at(url, true).unwrap()).await
}

/// Every attempt of every test ends, and its answer is looked through for the URL's secret.
async fn send_by(client: &Client, webhook: Webhook) -> Answer {
    let key = IdempotencyKey::of("fs.space/n1//@0#fired");
    let (webhook, message) = (Declared::Webhook(webhook), Message { key: &key, json: b"{}" });
    let answer = timeout(AGES, webhook.send(client, &message)).await.expect("every attempt ends");
    assert!(!format!("{answer:?}").contains("s3cret"), "{answer:?}");
    answer
}

fn again(answer: Answer) -> String {
    match answer {
        Answer::TryAgain { reason, retry_after: None } => reason,
        other @ (Answer::Delivered { .. } | Answer::TryAgain { .. } | Answer::GiveUp { .. }) => panic!("{other:?}"),
    }
}
