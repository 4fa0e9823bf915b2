//! A coordinator under attack: what it costs it, and what others notice of it.

use std::{
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    Cluster, Outcome,
    caller::Caller,
    eventually,
    fake_nodes::{FakeNode, enrol},
    forger::Forger,
    http2, machine,
    memory::Memory,
    raw,
    shell::sh,
    wait::holds,
};

/// Longest wait for anything that should come soon: the machine is shared, and the coordinator is a debug build.
const PATIENCE: Duration = Duration::from_secs(60);

/// Identities that were stolen.
const STOLEN: usize = 4;

/// What an attack works with.
#[derive(Clone, Debug)]
pub struct Besieged {
    /// Where the coordinator listens.
    pub address: String,
    /// Somebody without a certificate.
    pub nobody: Caller,
    /// Nodes whose identities were stolen.
    pub members: Vec<FakeNode>,
    done: Arc<AtomicU64>,
}

impl Besieged {
    /// A connection from that loopback address.
    pub async fn tcp_from(&self, from: [u8; 4]) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((from, 0).into()).ok()?;
        socket.connect(self.address.parse().ok()?).await.ok()
    }

    /// Counts what was done of the attack.
    pub fn did(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

/// A coordinator under attack.
#[derive(Debug)]
pub struct Siege {
    name: &'static str,
    cluster: Cluster,
    attacks: JoinSet<()>,
    memory: Memory,
    besieged: Besieged,
    operator: PathBuf,
}

impl std::ops::Deref for Siege {
    type Target = Besieged;

    fn deref(&self) -> &Besieged {
        &self.besieged
    }
}

impl Siege {
    /// A cluster with one agent, and somebody's stolen identity.
    ///
    /// # Panics
    /// Where it cannot be set up.
    pub async fn begin(name: &'static str) -> Self {
        machine::raise_descriptors();
        let mut cluster = Cluster::found();
        let members = enrol(&cluster, (0..STOLEN).map(|n| format!("stolen{n}")).collect()).await;
        let forger = Forger::of(&cluster);
        let nobody = Caller::anonymous(&cluster.listen, &forger.cluster, &forger.trusted);
        let operator = cluster.folder().join("oscar.context");
        let file = operator.to_str().expect("UTF-8");
        cluster.mainstay(&["user", "add", "oscar", "--role", "operator", "--out", file]).done();
        // What any cluster has in memory once it did its first work.
        cluster.add_agent("before", &[]);
        let memory = Memory::watch(cluster.coordinator().pid());
        let address = cluster.listen.clone();
        let besieged = Besieged { address, nobody, members, done: Arc::default() };
        Self { name, cluster, attacks: JoinSet::new(), memory, besieged, operator }
    }

    /// Does something again and again; it counts by itself.
    pub fn hold<F>(&mut self, attack: impl Fn(Besieged) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Option<()>> + Send + 'static,
    {
        let besieged = self.besieged.clone();
        self.attacks.spawn(async move {
            loop {
                attack(besieged.clone()).await;
                tokio::task::yield_now().await;
            }
        });
    }

    /// Sends frames as fast as they are taken, one after the other on streams 1, 3, 5, ... and on the next connection
    /// when one is cut.
    pub fn flood(&mut self, caller: Caller, of: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) {
        self.stream(caller, move |sent| (sent < 20_000).then(|| of(2 * sent + 1)));
    }

    /// Sends what `next` makes of how often it was asked, until it is cut or there is no more.
    pub fn stream(&mut self, caller: Caller, next: impl Fn(u32) -> Option<Vec<u8>> + Send + Sync + 'static) {
        let next = Arc::new(next);
        self.hold(move |siege: Besieged| {
            let (caller, next) = (caller.clone(), Arc::clone(&next));
            async move {
                let (mut sender, receiver) = http2::open(&caller).await.ok()?;
                let reading = tokio::spawn(receiver.to_the_end());
                let mut sent = 0;
                while let Some(bytes) = next(sent) {
                    sent += 1;
                    siege.did(1);
                    if reading.is_finished() || !sender.send(&bytes).await {
                        break;
                    }
                }
                reading.abort();
                Some(())
            }
        });
    }

    /// So many connections from an address, each of which says this and then nothing; whoever is cut comes again.
    pub fn say_and_wait(&mut self, count: usize, from: [u8; 4], words: Vec<u8>) {
        let words = Arc::new(words);
        for _ in 0..count {
            let words = Arc::clone(&words);
            self.hold(move |siege: Besieged| {
                let words = Arc::clone(&words);
                async move {
                    let mut tcp = siege.tcp_from(from).await?;
                    tcp.write_all(&words).await.ok()?;
                    siege.did(1);
                    while tcp.read(&mut [0; 64]).await.ok()? > 0 {}
                    Some(())
                }
            });
        }
    }

    /// Session after session of a stolen identity, each with this message.
    pub fn send_again_and_again(&mut self, node: usize, message: Vec<u8>, encoding: Option<&'static str>) {
        let (message, caller) = (Arc::new(message), self.members[node].caller.clone());
        self.hold(move |siege: Besieged| {
            let (message, caller) = (Arc::clone(&message), caller.clone());
            async move {
                raw::one_session(caller.channel().await.ok()?, encoding, &message).await;
                siege.did(1);
                Some(())
            }
        });
    }

    /// 256 MiB of zeros in a quarter of one.
    ///
    /// # Panics
    /// Where `gzip` lacks.
    #[must_use]
    pub fn zipped_zeros(&self) -> Vec<u8> {
        let file = self.cluster.folder().join("zeros.gz");
        sh(&format!("head -c 268435456 /dev/zero | gzip -9 > {}", file.display()));
        std::fs::read(file).expect("the file")
    }

    /// A new machine comes in and an operator gets an answer while the attack goes on, and when at least so much of it
    /// was done, the coordinator's memory never was more than so many MiB above what it was.
    ///
    /// # Panics
    /// Where any of it is not so.
    pub async fn is_withstood(mut self, at_least: u64, mib: u64) {
        let done = Arc::clone(&self.besieged.done);
        let attacked = |count: u64| {
            eventually("the attack is under way", PATIENCE, || {
                let so_far = done.load(Ordering::Relaxed);
                holds(so_far >= count, || format!("{so_far} of {count}"))
            });
        };
        let (came_in, answered) = tokio::task::block_in_place(|| {
            attacked(at_least / 10 + 1);
            let begun = Instant::now();
            self.cluster.add_agent("new", &[]);
            let came_in = begun.elapsed();
            let begun = Instant::now();
            let mut ask = self.cluster.command_as(&self.operator, &["node", "ls", "-o", "json"]);
            assert_eq!(Outcome::of(&mut ask).rows().len(), STOLEN + 2);
            (came_in, begun.elapsed())
        });
        tokio::task::block_in_place(|| attacked(at_least));
        self.attacks.shutdown().await;
        let (before, peak, after) = (self.memory.before / 1_024, self.memory.peak() / 1_024, self.memory.now() / 1_024);
        let count = done.load(Ordering::Relaxed);
        let line = format!(
            "abuse: {}: {count} done; RSS {before} MiB before, {peak} at most, {after} after (bound +{mib}); \
             a new agent was ready in {came_in:.1?}, an operator answered in {answered:.1?}\n",
            self.name
        );
        // Past the harness, which keeps what a passing test prints.
        drop(std::io::stderr().write_all(line.as_bytes()));
        assert!(peak <= before + mib, "{line}");
        assert!(came_in < PATIENCE / 2 && answered < PATIENCE / 4, "{line}");
        assert_eq!(self.cluster.coordinator().ended(), None);
    }
}
