//! Everything that rclone's remote control tells without asking the remote: uploads, cache, errors.

use std::time::Duration;

use mainstay_common::{
    metric::{Readings, catalogue as m},
    state::RcState,
};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    access::Access,
    answers::{CoreStats, DiskCache, Filesystems, Nothing, Queue, Version, VfsStats, without_secrets},
    client::{CallError, Client},
    follower::Teller,
    uploads::Uploads,
};

/// Uploads and cache.
const STATS_EVERY: Duration = Duration::from_secs(10);
/// Errors, and tries of uploads.
const ERRORS_EVERY: Duration = Duration::from_secs(30);
/// Within one machine an answer takes milliseconds.
const LIMIT: Duration = Duration::from_secs(2);
/// `vfs/stats` walks the whole directory cache.
const STATS_LIMIT: Duration = Duration::from_secs(5);
/// Whether anybody is there.
const NOOP_LIMIT: Duration = Duration::from_secs(1);

/// Asks every ten seconds. Ends where other credentials are wanted.
pub(super) async fn follow(access: &Access, teller: &Teller) {
    let mut desk = Desk {
        client: teller.client(access),
        source: teller.surroundings.source.clone(),
        version: None,
        fs: None,
        uploads: Uploads::default(),
        errors: None,
    };
    let mut ticks = interval(STATS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match desk.turn().await {
            Ok(told) => teller.tell(|known| {
                known.rc_state = Some(RcState::Ok);
                known.version.clone_from(&told.version);
                known.fs = Some(told.fs);
                (known.control, known.complaint) = (told.readings, told.complaint);
            }),
            Err(error) => {
                // Whoever comes back may be another one.
                (desk.version, desk.errors) = (None, None);
                teller.tell(|known| known.lose(&error));
                if error == CallError::Denied {
                    return;
                }
            }
        }
    }
}

/// What one turn told.
struct Turn {
    version: String,
    fs: String,
    readings: Readings,
    complaint: String,
}

/// What was told last of errors and tries, and when.
struct Errors {
    at: Instant,
    counted: Option<u64>,
    complaint: String,
    failing: Option<u64>,
}

struct Desk {
    client: Client,
    source: String,
    version: Option<Version>,
    /// The name of the filesystem, where this process has several.
    fs: Option<String>,
    uploads: Uploads,
    errors: Option<Errors>,
}

impl Desk {
    async fn turn(&mut self) -> Result<Turn, CallError> {
        let version = match &self.version {
            Some(version) => version,
            None => self.version.insert(self.client.call("core/version", &json!({}), LIMIT).await?),
        };
        let version = version.version.clone();
        let stats = self.stats().await?;
        let mut readings = Readings::new();
        let cache = stats.disk_cache.as_ref();
        if let Some(cache) = cache {
            self.of_cache(&mut readings, cache);
            readings.set_count(&m::RCLONE_CACHE_MAX_BYTES, stats.cache_max_bytes());
        }
        let dirty = cache.and_then(DiskCache::dirty);
        if self.errors.as_ref().is_none_or(|errors| errors.at.elapsed() >= ERRORS_EVERY) {
            self.errors = Some(self.of_errors(dirty).await?);
        }
        let mut complaint = String::new();
        if let Some(errors) = &self.errors {
            // Where nothing waits, nothing fails.
            let failing = if dirty == Some(0) { Some(0) } else { errors.failing };
            readings.set_count(&m::RCLONE_UPLOADS_FAILING, failing);
            readings.set_count(&m::RCLONE_ERRORS_TOTAL, errors.counted);
            complaint.clone_from(&errors.complaint);
        }
        let fs = stats.fs.or_else(|| self.fs.clone()).unwrap_or_else(|| self.source.clone());
        Ok(Turn { version, fs, readings, complaint })
    }

    fn of_cache(&mut self, readings: &mut Readings, cache: &DiskCache) {
        readings.set_count(&m::RCLONE_UPLOADS_QUEUED, cache.uploads_queued);
        readings.set_count(&m::RCLONE_UPLOADS_ACTIVE, cache.uploads_in_progress);
        readings.set_count(&m::RCLONE_CACHE_USED_BYTES, cache.bytes_used);
        readings.set_count(&m::RCLONE_CACHE_RESETS_FAILED, cache.errored_files);
        let full = cache.out_of_space.map(|full| self.uploads.full(full, Instant::now()));
        readings.set_count(&m::RCLONE_CACHE_FULL, full.map(u64::from));
    }

    /// What cannot be told leaves uploads and cache unknown; that nobody is there is an error.
    async fn stats(&mut self) -> Result<VfsStats, CallError> {
        match self.of_vfs("vfs/stats", STATS_LIMIT).await {
            // Before 1.58 there is no such call; without any mount there is nothing to tell of.
            Err(CallError::NotKnown | CallError::Failed(_)) => Ok(VfsStats::default()),
            // A walk through a large cache takes its time: that is no silence.
            Err(CallError::Late(_)) => {
                self.client.call::<Nothing>("rc/noop", &json!({}), NOOP_LIMIT).await.map(|_| VfsStats::default())
            }
            told => told,
        }
    }

    /// A process with several filesystems must be told which.
    async fn of_vfs<T: serde::de::DeserializeOwned>(&mut self, method: &str, limit: Duration) -> Result<T, CallError> {
        let input = self.fs.as_ref().map_or_else(|| json!({}), |fs| json!({ "fs": fs }));
        match self.client.call(method, &input, limit).await {
            Err(CallError::Failed(_)) => {
                let all: Filesystems = self.client.call("vfs/list", &json!({}), LIMIT).await?;
                let fs = all.vfses.into_iter().find(|fs| is_shown_as(fs, &self.source));
                let fs = self.fs.insert(fs.unwrap_or_else(|| self.source.clone()));
                self.client.call(method, &json!({ "fs": fs }), limit).await
            }
            told => told,
        }
    }

    async fn of_errors(&mut self, dirty: Option<u64>) -> Result<Errors, CallError> {
        let is_at_least = |minor| self.version.as_ref().is_some_and(|version| version.is_at_least(1, minor));
        let (short, has_queue) = (is_at_least(70), is_at_least(68));
        let input: Value = if short { json!({ "short": true }) } else { json!({}) };
        let stats: CoreStats = self.client.call("core/stats", &input, LIMIT).await?;
        let failing = match dirty {
            None => None,
            Some(0) => Some(0),
            // A queue too long to be read says nothing.
            Some(_) if has_queue => self.of_vfs::<Queue>("vfs/queue", LIMIT).await.ok().map(|queue| queue.failing),
            Some(_) => None,
        };
        let stuck = self.uploads.stuck(dirty, stats.errors, Instant::now());
        let failing = if has_queue { failing } else { failing.or(stuck) };
        let complaint = stats.last_error.map(|text| without_secrets(&text)).unwrap_or_default();
        Ok(Errors { at: Instant::now(), counted: stats.errors, complaint, failing })
    }
}

/// Whether a filesystem, by rclone's own name, is the one that a mount says it shows: options may stand in the name
/// (`remote{Ab3}:path`), which the mount leaves out.
fn is_shown_as(fs: &str, source: &str) -> bool {
    let Some((head, rest)) = fs.split_once('{') else { return fs == source };
    rest.split_once('}').is_some_and(|(_, tail)| source.strip_prefix(head) == Some(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_known_by_the_name_that_its_mount_shows() {
        assert!(is_shown_as("media:films", "media:films"));
        assert!(is_shown_as("media{Xy9}:films", "media:films"));
        assert!(!is_shown_as("media{Xy9}:films", "media:series"));
        assert!(!is_shown_as("media:films", "media:"));
    }
}
