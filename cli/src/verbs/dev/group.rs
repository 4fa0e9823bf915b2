//! The replicas of a mesh of several: each in a runtime of its own, so that one can die as a process does.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mainstay_common::{ExitCode, Failure, process::shutdown::CancellationToken};
use mainstay_coordinator::Started;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::replicas::{self, Place};

/// How long one that was killed may take to let go of its data directory.
const LETTING_GO: Duration = Duration::from_secs(10);
/// How often that is tried.
const AGAIN: Duration = Duration::from_millis(50);
/// How long one may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// All of them.
pub(super) struct Group {
    folder: PathBuf,
    places: Vec<Place>,
    http: SocketAddr,
    stop: CancellationToken,
    lives: Vec<Option<Life>>,
    begun: u64,
    farewells: mpsc::UnboundedSender<Farewell>,
    ended: mpsc::UnboundedReceiver<Farewell>,
}

/// One that runs. Dropped, it is dead: its tasks stop where they are, and nobody waits for them.
struct Life {
    number: u64,
    runtime: Option<Runtime>,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a life ended with; nothing where it crashed.
struct Farewell {
    number: u64,
    outcome: Option<Result<(), Failure>>,
}

/// Says it, however it came.
struct Dying {
    number: u64,
    outcome: Option<Result<(), Failure>>,
    farewells: mpsc::UnboundedSender<Farewell>,
}

impl Dying {
    fn of(mut self, outcome: Result<(), Failure>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        let farewell = Farewell { number: self.number, outcome: self.outcome.take() };
        // With the mesh gone nobody wants to know.
        self.farewells.send(farewell).unwrap_or(());
    }
}

impl Group {
    /// Nobody runs yet. `http` is where the first one serves `/metrics`.
    pub(super) fn new(folder: &Path, places: Vec<Place>, http: SocketAddr, stop: CancellationToken) -> Self {
        let (farewells, ended) = mpsc::unbounded_channel();
        let lives = places.iter().map(|_| None).collect();
        Self { folder: folder.to_owned(), places, http, stop, lives, begun: 0, farewells, ended }
    }

    /// Where they are.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether there is a data directory of that one.
    pub(super) fn is_made(&self, at: usize) -> bool {
        mainstay_coordinator::holds_cluster(&replicas::folder_of(&self.folder, at))
    }

    /// Those that run.
    pub(super) fn alive(&self) -> impl Iterator<Item = usize> {
        self.lives.iter().enumerate().filter(|(_, life)| life.is_some()).map(|(at, _)| at)
    }

    /// Those that do not.
    pub(super) fn down(&self) -> Vec<usize> {
        self.lives.iter().enumerate().filter(|(_, life)| life.is_none()).map(|(at, _)| at).collect()
    }

    /// Starts that one; tells when it serves.
    ///
    /// # Errors
    /// Where this machine has no threads left.
    pub(super) fn begin(&mut self, at: usize) -> Result<oneshot::Receiver<Started>, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot start", error.to_string(), "check this machine's limits: ulimit -a")
        })?;
        let (tell, started) = oneshot::channel();
        let http = if at == 0 { self.http } else { SocketAddr::from(([127, 0, 0, 1], 0)) };
        let config = replicas::config_of(&self.folder, at, self.places[at], http);
        self.begun += 1;
        let (number, stop) = (self.begun, self.stop.clone());
        // At first nobody of this mesh is in the way.
        let is_again = number > self.places.len() as u64;
        let deadline = Instant::now() + if is_again { LETTING_GO } else { Duration::ZERO };
        let dying = Dying { number, outcome: None, farewells: self.farewells.clone() };
        runtime.spawn(async move {
            let mut tell = Some(tell);
            let outcome = loop {
                let (told, telling) = oneshot::channel();
                let running = mainstay_coordinator::run(config.clone(), stop.clone(), told);
                tokio::pin!(running);
                let outcome = tokio::select! {
                    outcome = &mut running => outcome,
                    Ok(started) = telling => {
                        // Whoever waited may have given up.
                        drop(tell.take().map(|tell| tell.send(started)));
                        running.await
                    }
                };
                match outcome {
                    // The life before is not quite over.
                    Err(failure) if failure.code == ExitCode::Conflict && Instant::now() < deadline => {
                        sleep(AGAIN).await
                    }
                    outcome => break outcome,
                }
            };
            dying.of(outcome);
        });
        self.lives[at] = Some(Life { number, runtime: Some(runtime) });
        Ok(started)
    }

    /// Kills that one: its tasks stop where they are, its sockets close, its log ends without handing anything over.
    pub(super) fn kill(&mut self, at: usize) {
        self.lives[at] = None;
    }

    /// Waits until one ends by itself.
    pub(super) async fn ended(&mut self) -> Failure {
        loop {
            // The group has a sender itself.
            let Some(Farewell { number, outcome }) = self.ended.recv().await else {
                return std::future::pending().await;
            };
            if !self.lives.iter().flatten().any(|life| life.number == number) {
                continue;
            }
            let why = match outcome {
                Some(Err(failure)) => return failure,
                Some(Ok(())) => "nobody asked it to",
                None => "it crashed",
            };
            let try_next = "start dev again, and report this: RUST_LOG=debug mainstay dev";
            return Failure::new(ExitCode::Failed, "a coordinator ended", why, try_next);
        }
    }

    /// Waits until all have ended that were told to.
    pub(super) async fn end(mut self) {
        let mut left: Vec<u64> = self.lives.iter().flatten().map(|life| life.number).collect();
        let all = async {
            while !left.is_empty()
                && let Some(Farewell { number, .. }) = self.ended.recv().await
            {
                left.retain(|other| *other != number);
            }
        };
        // Whoever hangs is left behind: the process ends.
        drop(timeout(PATIENCE, all).await);
    }
}
