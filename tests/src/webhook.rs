//! A receiver that counts: what arrived, in which order, and with which key.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The header.
    pub key: String,
    /// The body.
    pub body: Value,
}

impl Arrived {
    /// A text of the body.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or_default()
    }
}

/// Listens on loopback until it is dropped.
#[derive(Debug)]
pub struct WebhookReceiver {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    status: Arc<Mutex<&'static str>>,
    ends: Arc<AtomicBool>,
}

impl WebhookReceiver {
    /// Answers every request with 204 until it is told otherwise.
    ///
    /// # Panics
    /// Where it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
        let receiver = Self {
            address: listener.local_addr().unwrap_or_else(|error| panic!("{error}")),
            arrived: Arc::default(),
            status: Arc::new(Mutex::new("204 No Content")),
            ends: Arc::default(),
        };
        let (arrived, status, ends) =
            (Arc::clone(&receiver.arrived), Arc::clone(&receiver.status), Arc::clone(&receiver.ends));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (arrived, status) = (Arc::clone(&arrived), Arc::clone(&status));
                thread::spawn(move || {
                    let Ok(stream) = stream else { return };
                    serve(&stream, &arrived, &status);
                });
            }
        });
        receiver
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The status line from now on: `503 Service Unavailable`.
    pub fn answers(&self, status: &'static str) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Everything that was answered with success, in the order of arrival.
    #[must_use]
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often each key arrived.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for one in self.arrived() {
            *counts.entry(one.key).or_insert(0) += 1;
        }
        counts
    }

    /// The events that arrived, repetitions left out.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut events = Vec::new();
        for one in self.arrived() {
            if !keys.contains(&one.key) {
                events.push(one.text("event").to_owned());
                keys.push(one.key);
            }
        }
        events
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
    }
}

/// One request per connection. Counted before it is answered: whoever dies in between will repeat it.
fn serve(stream: &TcpStream, arrived: &Mutex<Vec<Arrived>>, status: &Mutex<&'static str>) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap_or(());
    let mut reader = BufReader::new(stream);
    let (mut key, mut length) = (String::new(), 0_u64);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "idempotency-key" => value.clone_into(&mut key),
                "content-length" => length = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    let mut body = Vec::new();
    if reader.take(length).read_to_end(&mut body).is_err() {
        return;
    }
    let status = *status.lock().unwrap_or_else(PoisonError::into_inner);
    if status.starts_with('2') {
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        arrived.lock().unwrap_or_else(PoisonError::into_inner).push(Arrived { key, body });
    }
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // Whoever went away asks again.
    (&mut (&*stream)).write_all(answer.as_bytes()).unwrap_or(());
}
