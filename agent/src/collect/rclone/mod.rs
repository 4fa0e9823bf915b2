//! rclone behind a mount: what its remote control tells of uploads, cache and remote.
//!
//! The remote control answers while the remote hangs, and hangs while the mount is well: it is asked apart from the
//! mount, by a task of its own for each, and nothing waits for it.

mod access;
mod answers;
mod client;
mod uploads;

use std::{fs, path::Path, sync::Arc, time::Duration};

use mainstay_common::{
    metric::{Readings, catalogue as m},
    state::{RcState, RemoteState},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use self::{
    access::{Access, Address, Control},
    answers::{About, CoreStats, Queue, Version, VfsStats, without_secrets},
    client::{CallError, Client},
    uploads::Uploads,
};
use crate::{
    config::RcloneConfig,
    probe::{Owner, Probes},
};

/// Uploads and cache.
const STATS_EVERY: Duration = Duration::from_secs(10);
/// Errors, and tries of uploads.
const ERRORS_EVERY: Duration = Duration::from_secs(30);
/// The remote itself: a request over the network.
const ABOUT_EVERY: Duration = Duration::from_secs(300);
/// Within one machine an answer takes milliseconds; the walk through a large directory cache longer.
const LIMIT: Duration = Duration::from_secs(3);
/// The remote may take its time.
const ABOUT_LIMIT: Duration = Duration::from_secs(10);
/// A password file is one line.
const PASSWORD_BYTES: u64 = 4_096;

/// What is known of the rclone behind one mount.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    pub(super) rc_state: RcState,
    /// Its version; empty until it was told.
    pub(super) version: String,
    /// Its remote control runs commands for anyone who reaches it.
    pub(super) rc_open: bool,
    /// How the remote answered last; `None` where nobody could ask it.
    pub(super) remote: Option<RemoteState>,
    /// What it complained of last, or why its remote control does not serve.
    pub(super) last_error: String,
    pub(super) readings: Readings,
}

/// What tasks of all mounts share: one question to a remote at a time.
#[derive(Clone, Debug)]
pub(super) struct Remotes(Arc<Semaphore>);

impl Default for Remotes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// How the remote control of a mount is reached: as configured, else as the process's own flags say.
pub(super) struct Way {
    control: Control,
    rc_open: bool,
}

impl Way {
    /// `configured` goes before what the process says.
    pub(super) fn of(owner: Option<&Owner>, configured: Option<&RcloneConfig>) -> Self {
        let rc_open = owner.is_some_and(access::is_open);
        let control = match configured {
            Some(config) => of_config(config),
            None => owner.map_or(Control::None, access::of_process),
        };
        Self { control, rc_open }
    }
}

fn of_config(config: &RcloneConfig) -> Control {
    let Some(address) = Address::parse(&config.rc) else { return Control::Unusable("rc names no address") };
    let authorization = match (&config.user, &config.password_file) {
        (Some(user), Some(file)) => match password(file) {
            Some(password) => Some(access::basic(user, &password)),
            None => return Control::Unusable("its password_file cannot be read"),
        },
        (Some(user), None) => Some(access::basic(user, "")),
        (None, _) => None,
    };
    Control::At(Access { address, base: String::new(), authorization, must_be_local: false })
}

fn password(file: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(file).ok()?.take(PASSWORD_BYTES).read_to_string(&mut text).ok()?;
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// Follows one mount's rclone until nobody listens any more. `source`: what the mount says that it shows.
pub(super) async fn follow(way: Way, source: String, probes: Probes, remotes: Remotes, told: watch::Sender<Known>) {
    let access = match way.control {
        Control::None => return tell_only(&told, RcState::None, "", way.rc_open).await,
        Control::Unusable(why) => return tell_only(&told, RcState::Unreachable, why, way.rc_open).await,
        Control::At(access) => access,
    };
    let mut control = Remote::new(Client::new(access, probes), source, way.rc_open);
    let mut ticks = interval(STATS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = told.closed() => return,
            _ = ticks.tick() => {}
        }
        control.turn().await;
        told.send_if_modified(|known| replace(known, &control.known));
        if control.about_due() {
            // Every other reading is told before the remote has its time.
            let _one = remotes.0.acquire().await;
            control.about().await;
            told.send_if_modified(|known| replace(known, &control.known));
        }
    }
}

fn replace(known: &mut Known, fresh: &Known) -> bool {
    let changed = known != fresh;
    if changed {
        known.clone_from(fresh);
    }
    changed
}

/// There is nothing to ask, and that does not change.
async fn tell_only(told: &watch::Sender<Known>, rc_state: RcState, why: &str, rc_open: bool) {
    told.send_replace(Known { rc_state, last_error: why.to_owned(), rc_open, ..Known::default() });
    told.closed().await;
}

impl Default for Known {
    fn default() -> Self {
        Self {
            rc_state: RcState::None,
            version: String::new(),
            rc_open: false,
            remote: None,
            last_error: String::new(),
            readings: Readings::new(),
        }
    }
}

/// One remote control, and what it told.
struct Remote {
    client: Client,
    source: String,
    known: Known,
    version: Option<Version>,
    /// The remote by the name that `operations/about` wants.
    fs: Option<String>,
    uploads: Uploads,
    errors_at: Option<Instant>,
    about_at: Option<Instant>,
}

impl Remote {
    fn new(client: Client, source: String, rc_open: bool) -> Self {
        Self {
            client,
            source,
            known: Known { rc_state: RcState::Unreachable, rc_open, ..Known::default() },
            version: None,
            fs: None,
            uploads: Uploads::default(),
            errors_at: None,
            about_at: None,
        }
    }

    /// Everything but the remote. What was told before stays where nothing is told now.
    async fn turn(&mut self) {
        let told = self.ask().await;
        match told {
            Ok(()) => self.known.rc_state = RcState::Ok,
            Err(CallError::Denied | CallError::Forbidden) => self.known.rc_state = RcState::Denied,
            Err(error) => {
                self.known.rc_state = RcState::Unreachable;
                self.known.last_error = without_secrets(&error.to_string());
            }
        }
    }

    async fn ask(&mut self) -> Result<(), CallError> {
        if self.version.is_none() {
            let version: Version = self.client.call("core/version", &json!({}), LIMIT).await?;
            self.known.version.clone_from(&version.version);
            self.version = Some(version);
        }
        let stats = self.stats().await?;
        let cache = stats.disk_cache.clone().unwrap_or_default();
        let now = Instant::now();
        let readings = &mut self.known.readings;
        readings.set_count(&m::RCLONE_UPLOADS_QUEUED, cache.uploads_queued);
        readings.set_count(&m::RCLONE_UPLOADS_ACTIVE, cache.uploads_in_progress);
        readings.set_count(&m::RCLONE_CACHE_USED_BYTES, cache.bytes_used);
        readings.set_count(&m::RCLONE_CACHE_MAX_BYTES, stats.cache_max_bytes());
        readings.set_count(&m::RCLONE_CACHE_RESETS_FAILED, cache.errored_files);
        let full = cache.out_of_space.map(|full| self.uploads.full(full, now));
        readings.set_count(&m::RCLONE_CACHE_FULL, full.map(u64::from));
        self.fs = stats.fs.or(self.fs.take());
        if self.errors_at.is_none_or(|at| now >= at + ERRORS_EVERY) {
            self.errors_at = Some(now);
            self.errors(cache.dirty(), now).await?;
        }
        Ok(())
    }

    /// With several filesystems in one process it must be told which.
    async fn stats(&mut self) -> Result<VfsStats, CallError> {
        match self.client.call("vfs/stats", &json!({}), LIMIT).await {
            Err(CallError::Failed(_)) => self.client.call("vfs/stats", &json!({ "fs": self.source }), LIMIT).await,
            // Before 1.58 there is no such call, and nothing else that tells of uploads.
            Err(CallError::NotKnown) => Ok(VfsStats::default()),
            other => other,
        }
    }

    async fn errors(&mut self, dirty: Option<u64>, now: Instant) -> Result<(), CallError> {
        let at_least = |minor| self.version.as_ref().is_some_and(|version| version.is_at_least(1, minor));
        let (short, has_queue) = (at_least(70), at_least(68));
        let input = if short { json!({ "short": true }) } else { json!({}) };
        let stats: CoreStats = self.client.call("core/stats", &input, LIMIT).await?;
        let mut queued = None;
        if has_queue {
            queued = Some(0);
            if dirty.is_some_and(|dirty| dirty > 0) {
                queued = Some(self.queue().await?.failing);
            }
        }
        let failing = self.uploads.failing(dirty, stats.errors, queued, now);
        self.known.readings.set_count(&m::RCLONE_UPLOADS_FAILING, failing);
        self.known.readings.set_count(&m::RCLONE_ERRORS_TOTAL, stats.errors);
        self.known.last_error = stats.last_error.map(|text| without_secrets(&text)).unwrap_or_default();
        Ok(())
    }

    async fn queue(&mut self) -> Result<Queue, CallError> {
        let fs = self.named();
        match self.client.call("vfs/queue", &json!({}), LIMIT).await {
            Err(CallError::Failed(_)) => self.client.call("vfs/queue", &fs, LIMIT).await,
            other => other,
        }
    }

    fn named(&self) -> Value {
        json!({ "fs": self.fs.as_deref().unwrap_or(&self.source) })
    }

    fn about_due(&self) -> bool {
        let due = self.about_at.is_none_or(|at| Instant::now() >= at + ABOUT_EVERY);
        self.known.rc_state == RcState::Ok && due
    }

    /// Asks the remote for its quota; many backends have none.
    async fn about(&mut self) {
        self.about_at = Some(Instant::now());
        let about: Result<About, CallError> = self.client.call("operations/about", &self.named(), ABOUT_LIMIT).await;
        self.known.remote = match &about {
            Ok(_) => Some(RemoteState::Ok),
            Err(CallError::Failed(why)) if why.contains("doesn't support about") => None,
            Err(CallError::Failed(_) | CallError::Late(_)) => Some(RemoteState::Error),
            Err(_) => None,
        };
        if let Err(error @ (CallError::Failed(_) | CallError::Late(_))) = &about {
            self.known.last_error = without_secrets(&format!("about: {error}"));
        }
        let about = about.unwrap_or_default();
        self.known.readings.set_count(&m::RCLONE_REMOTE_TOTAL_BYTES, about.total);
        self.known.readings.set_count(&m::RCLONE_REMOTE_USED_BYTES, about.used);
        self.known.readings.set_count(&m::RCLONE_REMOTE_FREE_BYTES, about.free);
    }
}
