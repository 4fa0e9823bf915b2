//! Mounts that should be there and are not: those that were seen within a day, and those that are configured. Pure.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use mainstay_common::Timestamp;
use mainstay_proto::v1 as pb;
use tokio::time::Instant;

use super::{
    life::{Event, Life, Now},
    row,
};
use crate::collect::mountinfo::{Mounted, Mounts, is_at_or_below};

/// A mount that left is missed for a day.
const MISSED_FOR: Duration = Duration::from_secs(86_400);

/// All that are missed, by path.
#[derive(Debug, Default)]
pub(super) struct Missed {
    expected: Vec<Vec<u8>>,
    mounts: BTreeMap<Vec<u8>, One>,
}

#[derive(Debug)]
struct One {
    life: Life,
    source: Vec<u8>,
    fs: String,
    /// Until then, where nobody configured it.
    until: Option<Instant>,
}

impl Missed {
    /// Some are missed for as long as they are not there.
    pub(super) fn expecting(paths: &[PathBuf]) -> Self {
        let plain = |path: &PathBuf| {
            let bytes = path.as_os_str().as_encoded_bytes();
            // A slash at the end names the same place.
            bytes.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(bytes).to_vec()
        };
        Self { expected: paths.iter().map(plain).collect(), mounts: BTreeMap::new() }
    }

    /// Takes in a mount that the list has no longer. What automounting took away comes back when it is needed, and
    /// what the container engine mounted is its own affair.
    pub(super) fn take(&mut self, mounted: Mounted, mut life: Life, mounts: &Mounts, engine_root: &[u8], now: Now) {
        let entry = mounted.entry;
        let transient = mounted.automounted || mounted.shadowed || is_at_or_below(&entry.path, engine_root);
        if !transient && !mounts.is_mounted(&entry.path) {
            life.on(Event::Left, now);
            let until = Some(now.steady + MISSED_FOR);
            self.mounts.insert(entry.path, One { life, source: entry.source, fs: entry.fs, until });
        }
    }

    /// Compares with the list: what is there is not missed.
    pub(super) fn compare(&mut self, mounts: &Mounts, now: Now) {
        self.mounts.retain(|path, _| !mounts.is_mounted(path));
        for path in self.expected.iter().filter(|path| !mounts.is_mounted(path)) {
            let one = self.mounts.entry(path.clone()).or_insert_with(|| One {
                life: Life::missing(now.wall, now),
                source: Vec::new(),
                fs: String::new(),
                until: None,
            });
            one.until = None;
        }
    }

    /// Forgets whom nobody misses any longer; true where there was one.
    pub(super) fn forget(&mut self, now: Instant) -> bool {
        let before = self.mounts.len();
        self.mounts.retain(|_, one| one.until.is_none_or(|until| now < until));
        self.mounts.len() != before
    }

    /// Their rows.
    pub(super) fn rows(&self, at: Timestamp) -> impl Iterator<Item = pb::Mount> + '_ {
        self.mounts.iter().map(move |(path, one)| row::of_missed(path, &one.source, &one.fs, &one.life, at))
    }
}

#[cfg(test)]
mod tests {
    use mainstay_common::state::MountState;

    use super::*;

    const ROOT: &[u8] = b"/var/lib/docker";
    const HERE: &str = "61 28 0:56 / /mnt/m rw - fuse.rclone r: rw\n";

    #[test]
    fn what_left_is_missed_for_a_day_and_not_once_it_is_back() {
        let (mut missed, now) = (Missed::default(), now());
        leave(&mut missed, HERE, "", now);
        let row = missed.rows(now.wall).next().unwrap();
        assert_eq!(
            (row.path.as_slice(), row.source.as_slice(), row.fs.as_str()),
            (&b"/mnt/m"[..], &b"r:"[..], "fuse.rclone")
        );
        assert_eq!((row.state, row.reason.as_str()), (MountState::Gone.number(), "not_mounted"));
        assert!(!missed.forget(now.steady + Duration::from_secs(86_399)));
        missed.compare(&list(HERE), now);
        assert!(missed.mounts.is_empty());
        leave(&mut missed, HERE, "", now);
        assert!(missed.forget(now.steady + MISSED_FOR) && missed.mounts.is_empty());
    }

    #[test]
    fn who_is_expected_is_missed_for_ever() {
        let mut missed = Missed::expecting(&["/mnt/m/".into(), "/".into()]);
        let now = now();
        missed.compare(&list("27 1 254:0 / / rw - ext4 /dev/vda rw\n"), now);
        assert_eq!(missed.rows(now.wall).map(|row| row.path).collect::<Vec<_>>(), [b"/mnt/m".to_vec()]);
        assert!(!missed.forget(now.steady + MISSED_FOR));
        missed.compare(&list(&format!("27 1 254:0 / / rw - ext4 /dev/vda rw\n{HERE}")), now);
        assert!(missed.mounts.is_empty());
    }

    #[test]
    fn who_was_seen_and_is_expected_keeps_its_name() {
        let (mut missed, now) = (Missed::expecting(&["/mnt/m".into()]), now());
        leave(&mut missed, HERE, "", now);
        missed.compare(&list(""), now);
        assert!(!missed.forget(now.steady + MISSED_FOR));
        assert_eq!(missed.rows(now.wall).next().unwrap().source, b"r:");
    }

    #[test]
    fn some_may_leave() {
        let mut missed = Missed::default();
        let now = now();
        leave(&mut missed, "61 28 0:56 / /var/lib/docker/plugins/x/mnt rw - fuse.x r: rw\n", "", now);
        leave(&mut missed, HERE, "70 28 0:60 / /mnt/m rw - fuse.rclone other: rw\n", now);
        let automount = "60 28 0:55 / /mnt rw - autofs x rw\n";
        leave(&mut missed, &format!("{automount}{HERE}"), automount, now);
        assert!(missed.mounts.is_empty());
    }

    fn leave(missed: &mut Missed, before: &str, after: &str, now: Now) {
        let mounted = list(before).network.remove(0);
        missed.take(mounted, Life::new(Duration::from_secs(5), now), &list(after), ROOT, now);
    }

    fn list(text: &str) -> Mounts {
        Mounts::of(text.as_bytes(), ROOT)
    }

    fn now() -> Now {
        Now { wall: Timestamp(5), steady: Instant::now() }
    }
}
