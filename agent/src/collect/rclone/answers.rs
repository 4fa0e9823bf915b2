//! What rclone's remote control answers: only the fields that are needed, each of which a version may lack.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An upload that failed so often is failing.
const FAILING_TRIES: u64 = 5;

/// `core/version`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Version {
    pub(super) version: String,
    decomposed: Vec<u64>,
}

impl Version {
    /// True from this version on.
    pub(super) fn is_at_least(&self, major: u64, minor: u64) -> bool {
        matches!(self.decomposed.as_slice(), [a, b, ..] if (*a, *b) >= (major, minor))
    }
}

/// `rc/noop`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Nothing {}

/// `vfs/list`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filesystems {
    pub(super) vfses: Vec<String>,
}

/// `vfs/stats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VfsStats {
    /// Absent where the cache is off.
    #[serde(rename = "diskCache")]
    pub(super) disk_cache: Option<DiskCache>,
    /// The remote, as its own `operations/about` wants it named.
    pub(super) fs: Option<String>,
    opt: VfsOptions,
}

impl VfsStats {
    /// The limit of the cache; `None` where it has none.
    pub(super) fn cache_max_bytes(&self) -> Option<u64> {
        self.opt.cache_max_size.as_ref().and_then(size)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VfsOptions {
    #[serde(rename = "CacheMaxSize")]
    cache_max_size: Option<Value>,
}

/// The cache of a mount.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DiskCache {
    #[serde(deserialize_with = "count")]
    pub(super) uploads_in_progress: Option<u64>,
    #[serde(deserialize_with = "count")]
    pub(super) uploads_queued: Option<u64>,
    /// Cache entries that could not be reset for lack of space; not failed uploads, as the name suggests.
    #[serde(deserialize_with = "count")]
    pub(super) errored_files: Option<u64>,
    pub(super) out_of_space: Option<bool>,
    #[serde(deserialize_with = "count")]
    pub(super) bytes_used: Option<u64>,
}

impl DiskCache {
    /// Files that the remote does not have yet: queued and in progress are disjoint.
    pub(super) fn dirty(&self) -> Option<u64> {
        Some(self.uploads_queued?.saturating_add(self.uploads_in_progress.unwrap_or(0)))
    }
}

/// `vfs/queue`, of which only one number is kept; names are the users' own.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Queue {
    #[serde(rename = "queue", deserialize_with = "count_failing", default)]
    pub(super) failing: u64,
}

#[derive(Deserialize)]
struct Queued {
    #[serde(default)]
    tries: u64,
}

fn count_failing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let queued = Option::<Vec<Queued>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(queued.iter().filter(|queued| queued.tries >= FAILING_TRIES).count() as u64)
}

/// `core/stats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct CoreStats {
    #[serde(deserialize_with = "count")]
    pub(super) errors: Option<u64>,
    pub(super) last_error: Option<String>,
}

/// `operations/about`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct About {
    #[serde(deserialize_with = "count")]
    pub(super) total: Option<u64>,
    #[serde(deserialize_with = "count")]
    pub(super) used: Option<u64>,
    #[serde(deserialize_with = "count")]
    pub(super) free: Option<u64>,
}

/// What stands in an answer that is no success.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Complaint {
    pub(super) error: String,
}

/// Reads bytes as every answer that is asked for, and takes from each what is taken from it: for whoever wants to see it
/// fail.
pub fn understand(answer: &[u8]) {
    fn read<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Option<T> {
        serde_json::from_slice(answer).ok()
    }
    let version = read::<Version>(answer).map(|version| version.is_at_least(1, 60));
    let cache = read::<VfsStats>(answer).map(|stats| (stats.cache_max_bytes(), stats.disk_cache.map(|c| c.dirty())));
    let rest = (read::<Filesystems>(answer), read::<Queue>(answer), read::<CoreStats>(answer), read::<About>(answer));
    let complaint = read::<Complaint>(answer).map(|complaint| without_secrets(&complaint.error));
    drop((version, cache, rest, read::<Nothing>(answer), complaint));
}

/// A size as rclone writes it: bytes, or text such as `10Gi`; below zero and `off` mean none.
fn size(value: &Value) -> Option<u64> {
    let Some(text) = value.as_str() else { return value.as_u64() };
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let power = match unit.trim_end_matches(['i', 'B']) {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << power)
}

/// A count or size. rclone's are signed: below zero they are unknown.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64())
}

/// A complaint of rclone without what may be secret in it: whatever follows the `?` of an address.
pub(super) fn without_secrets(text: &str) -> String {
    let mut told = String::with_capacity(text.len().min(512));
    let mut in_address = false;
    let mut hidden = false;
    for c in text.chars().take(2_000) {
        if c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ')') {
            (in_address, hidden) = (false, false);
        }
        if !hidden {
            told.push(c);
        }
        in_address |= told.ends_with("://");
        if in_address && c == '?' {
            hidden = true;
        }
    }
    told.truncate(told.floor_char_boundary(500));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_of_version_1_60() {
        let stats: VfsStats =
            serde_json::from_str(include_str!("../../../testdata/rclone-1.60-vfs-stats.json")).unwrap();
        let cache = stats.disk_cache.as_ref().unwrap();
        assert_eq!((cache.dirty(), cache.bytes_used, cache.out_of_space), (Some(3), Some(1_048_576), Some(false)));
        assert_eq!((stats.fs.as_deref(), stats.cache_max_bytes()), (Some("media:films"), None));
        let version: Version = serde_json::from_str(r#"{"decomposed":[1,60,1],"version":"v1.60.1-DEV"}"#).unwrap();
        assert!(version.is_at_least(1, 60) && !version.is_at_least(1, 68) && !Version::default().is_at_least(1, 0));
    }

    #[test]
    fn a_cache_that_is_off_is_absent() {
        let stats: VfsStats = serde_json::from_str(r#"{"fs":"r:","opt":{"CacheMaxSize":10737418240}}"#).unwrap();
        assert_eq!((stats.disk_cache, stats.opt.cache_max_size.as_ref().and_then(size)), (None, Some(10_737_418_240)));
    }

    #[test]
    fn sizes_come_as_numbers_or_text() {
        for (json, bytes) in [
            ("5", Some(5)),
            ("-1", None),
            ("\"off\"", None),
            ("\"10Gi\"", Some(10 << 30)),
            ("\"10G\"", Some(10 << 30)),
            ("\"512B\"", Some(512)),
            ("\"7\"", Some(7)),
            ("\"99999999999999999999Pi\"", None),
            ("null", None),
        ] {
            assert_eq!(size(&serde_json::from_str(json).unwrap()), bytes, "{json}");
        }
    }

    #[test]
    fn what_is_below_zero_is_unknown() {
        let about: About = serde_json::from_str(r#"{"total":-1,"used":5,"trashed":1}"#).unwrap();
        assert_eq!(about, About { total: None, used: Some(5), free: None });
    }

    #[test]
    fn only_uploads_with_many_tries_are_failing() {
        let queue: Queue = serde_json::from_str(
            r#"{"queue":[{"name":"a","id":1,"size":79,"expiry":1.5,"tries":5,"delay":5.0,"uploading":false},{"name":"b","tries":4},{"name":"c"}]}"#,
        )
        .unwrap();
        assert_eq!(queue.failing, 1);
        assert_eq!(serde_json::from_str::<Queue>(r#"{"queue":null}"#).unwrap().failing, 0);
    }

    #[test]
    fn a_complaint_shows_no_query() {
        let told =
            without_secrets("Put \"https://s3.example/b/k?X-Amz-Signature=abc&x=1\": what now? EOF (http://h/?t=1)");
        assert_eq!(told, "Put \"https://s3.example/b/k?\": what now? EOF (http://h/?)");
        assert!(without_secrets(&"é".repeat(3_000)).len() <= 500);
    }
}
