//! Registers that a cluster keeps, with clients who read and write them at random, and note when they asked and what they
//! were answered: the raw material of a linearizability check.
//!
//! A register is a receiver: its name is the register's, and the number in its host is the value. 0 is a register that
//! nobody has written.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mainstay_common::process::{context::Context, tls::Channel};
use mainstay_proto::v1::{self as pb, admin_client::AdminClient, viewer_client::ViewerClient};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tonic::{Request, Status, metadata::MetadataValue};

use crate::{
    Replicas,
    caller::{Caller, of_context},
    writer::{Fate, fate, leader_of, runtime},
};

/// Longest wait for a connection.
const DIAL: Duration = Duration::from_millis(300);
/// Longest wait for an answer to a write: later nobody knows.
const ANSWER: Duration = Duration::from_secs(1);

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It read this.
    Read(u64),
    /// It wrote this.
    Write(u64),
}

/// A question, and the moments of it and of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// What it was, with what it gave.
    pub operation: Operation,
    /// When it was asked.
    pub called: Instant,
    /// When it was answered; `None` where nobody knows whether it was done.
    pub answered: Option<Instant>,
}

/// How clients ask.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many at once.
    pub clients: u64,
    /// How many questions each asks of each register.
    pub operations: u64,
    /// The span over which they are spread.
    pub span: Duration,
    /// Reads take a replica's own view.
    pub stale: bool,
}

/// Clients of one register, at work.
#[derive(Debug)]
pub struct Clients(JoinHandle<Vec<Done>>);

impl Clients {
    /// Sets them to work on the register of that name, from where the calling thread is. Reads go to all replicas in
    /// turn.
    ///
    /// # Panics
    /// Where the administrator's context cannot be read.
    #[must_use]
    pub fn start(replicas: &Replicas, name: &str, load: Load) -> Self {
        let context = Context::load(&replicas.context()).unwrap_or_else(|error| panic!("{error}"));
        let addresses = replicas.addresses();
        let caller = Caller::with(&addresses[0], &context.cluster_id, &of_context(&replicas.context()));
        let done = Arc::<Mutex<Vec<Done>>>::default();
        let client = |number| Client {
            caller: caller.clone(),
            addresses: addresses.clone(),
            name: name.to_owned(),
            number,
            load,
            done: Arc::clone(&done),
        };
        let clients: Vec<Client> = (0..load.clients).map(client).collect();
        Self(thread::spawn(move || {
            runtime().block_on(async {
                let mut tasks: JoinSet<()> = clients.into_iter().map(Client::work).collect();
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap_or_else(|crash| panic!("{crash}"));
                }
            });
            let mut done = std::mem::take(&mut *done.lock().unwrap_or_else(PoisonError::into_inner));
            done.sort_by_key(|done| done.called);
            done
        }))
    }

    /// Whether any of them still asks.
    #[must_use]
    pub fn work(&self) -> bool {
        !self.0.is_finished()
    }

    /// Waits for their end; everything that may have changed something, and everything that was read.
    ///
    /// # Panics
    /// Where one broke.
    #[must_use]
    pub fn history(self) -> Vec<Done> {
        self.0.join().unwrap_or_else(|_| panic!("a client broke"))
    }
}

struct Client {
    caller: Caller,
    addresses: Vec<String>,
    name: String,
    number: u64,
    load: Load,
    done: Arc<Mutex<Vec<Done>>>,
}

impl Client {
    async fn work(self) {
        let (begun, Load { operations, span, .. }) = (tokio::time::Instant::now(), self.load);
        let mut ways: Vec<Option<Channel>> = vec![None; self.addresses.len()];
        let mut writes_to = 0;
        for turn in 0..operations {
            let share = u32::try_from(turn * 1_000 / operations).unwrap_or(0);
            sleep_until(begun + span * share / 1_000).await;
            // Who asks where, and what, follows from numbers: no two clients do the same.
            let dice = (self.number * 31 + turn * 7 + turn * turn) % 8;
            if dice < 3 {
                // A value is written once in a history.
                let value = 1 + self.number + turn * self.load.clients;
                self.write(value, &mut ways, &mut writes_to).await;
            } else {
                let at = usize::try_from(self.number + turn).unwrap_or(0) % self.addresses.len();
                self.read(at, &mut ways).await;
            }
        }
    }

    async fn way(&self, at: usize, ways: &mut [Option<Channel>]) -> Option<Channel> {
        if ways[at].is_none() {
            ways[at] = timeout(DIAL, self.caller.at(&self.addresses[at]).channel()).await.ok()?.ok();
        }
        ways[at].clone()
    }

    fn note(&self, operation: Operation, called: Instant, is_answered: bool) {
        let answered = is_answered.then(Instant::now);
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(Done { operation, called, answered });
    }

    /// Whoever is refused asks the leader, or somebody else; a doubt is noted, and not asked again.
    async fn write(&self, value: u64, ways: &mut [Option<Channel>], to: &mut usize) {
        for _ in 0..3 {
            let Some(channel) = self.way(*to, ways).await else {
                *to = (*to + 1) % self.addresses.len();
                continue;
            };
            let receiver = pb::DeclaredReceiver {
                name: self.name.clone(),
                kind: "webhook".into(),
                url: format!("https://v{value}.example/"),
                ..pb::DeclaredReceiver::default()
            };
            let request = pb::DeclareRequest { receivers: vec![receiver], ..pb::DeclareRequest::default() };
            let called = Instant::now();
            let status = match timeout(ANSWER, AdminClient::new(channel).declare(request)).await {
                Ok(Ok(_)) => return self.note(Operation::Write(value), called, true),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(""),
            };
            ways[*to] = None;
            let leader = leader_of(&status).and_then(|leader| self.addresses.iter().position(|at| *at == leader));
            *to = leader.unwrap_or((*to + 1) % self.addresses.len());
            if fate(&status) == Fate::Unknown {
                return self.note(Operation::Write(value), called, false);
            }
        }
    }

    /// What is not answered was not read.
    async fn read(&self, at: usize, ways: &mut [Option<Channel>]) {
        let Some(channel) = self.way(at, ways).await else { return };
        let mut request = Request::new(pb::ListReceiversRequest {});
        if self.load.stale {
            request.metadata_mut().insert("mainstay-stale", MetadataValue::from_static("1"));
        }
        let called = Instant::now();
        match timeout(ANSWER, ViewerClient::new(channel).list_receivers(request)).await {
            Ok(Ok(answer)) => {
                let rows = answer.into_inner().rows;
                let target = rows.iter().find(|row| row.name == self.name).map(|row| row.target.as_str());
                let value = target.map_or(0, |target| value(target).unwrap_or_else(|| panic!("no value: {target}")));
                self.note(Operation::Read(value), called, true);
            }
            Ok(Err(_)) | Err(_) => ways[at] = None,
        }
    }
}

/// The number in a receiver's host.
fn value(target: &str) -> Option<u64> {
    target.strip_prefix("https://v")?.split('.').next()?.parse().ok()
}
