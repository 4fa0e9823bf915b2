//! What is known of one mount becomes its row. Pure.

use mainstay_common::{
    Timestamp,
    metric::{Readings, catalogue as m},
    state::{RcState, RemoteState},
};
use mainstay_proto::v1 as pb;

use tokio::time::Instant;

use super::{life::Life, lookout::Mount, search::Search};
use crate::collect::{
    rclone::{Follower, Known, rc_is_open},
    readings,
};

/// The row of a mount that is there.
pub(super) fn of(mount: &Mount, at: Timestamp) -> pb::Mount {
    let entry = &mount.mounted.entry;
    let known = mount.rclone.as_ref().map(Follower::known);
    let mut values = known.as_ref().map(Known::readings).unwrap_or_default();
    values.set_count(&m::MOUNT_WAITING, mount.signs.waiting);
    let mut row = of_life(&mount.life, values, at);
    row.path.clone_from(&entry.path);
    row.source.clone_from(&entry.source);
    row.fs.clone_from(&entry.fs);
    row.aliases.clone_from(&mount.mounted.aliases);
    if entry.fs == "fuse.rclone" {
        row.remote_state = remote(mount.remote_failed_at, known.as_ref()).map_or(0, RemoteState::number);
        row.rclone = rclone(known.as_ref(), &mount.search);
    }
    row
}

/// The process behind; `None` where nothing is known of it. Its state is absent until it was asked.
fn rclone(known: Option<&Known>, search: &Search) -> Option<pb::Rclone> {
    let owner = search.owner();
    (known.is_some() || owner.is_some() || search.is_pending()).then(|| pb::Rclone {
        rc_state: known.and_then(|known| known.rc_state).map_or(0, RcState::number),
        version: known.map(|known| known.version.clone()).unwrap_or_default(),
        pid: owner.map_or(0, |owner| owner.pid),
        unit: owner.map(|owner| owner.unit.clone()).unwrap_or_default(),
        rc_open: owner.is_some_and(rc_is_open),
        last_error: known.map(|known| known.last_error().to_owned()).unwrap_or_default(),
    })
}

/// The row of a mount that should be there.
pub(super) fn of_missed(path: &[u8], source: &[u8], fs: &str, life: &Life, at: Timestamp) -> pb::Mount {
    let mut row = of_life(life, Readings::new(), at);
    (row.path, row.source, row.fs) = (path.to_vec(), source.to_vec(), fs.to_owned());
    row
}

fn of_life(life: &Life, mut values: Readings, at: Timestamp) -> pb::Mount {
    values.set(&m::MOUNT_LATENCY_SECONDS, life.latency().map(|latency| latency.as_secs_f64()));
    let sizes = life.sizes(at);
    if let Some((sizes, _)) = sizes {
        values.set_count(&m::MOUNT_TOTAL_BYTES, sizes.total_bytes);
        values.set_count(&m::MOUNT_USED_BYTES, sizes.used_bytes);
        values.set_count(&m::MOUNT_AVAILABLE_BYTES, sizes.available_bytes);
    }
    pb::Mount {
        state: life.state().number(),
        state_since_ms: life.since().0,
        reason: life.reason().to_owned(),
        readings: readings(&values),
        read_at_ms: sizes.and_then(|(_, read_at)| read_at).map(|read_at| read_at.0),
        ..pb::Mount::default()
    }
}

/// How the remote answers, which the mount's own state does not tell: rclone says so itself where it could not, and its
/// remote control where somebody asks. Who asked last is right. `None` before the first answer.
fn remote(failed_at: Option<Instant>, known: Option<&Known>) -> Option<RemoteState> {
    let Some(known) = known else {
        return Some(if failed_at.is_some() { RemoteState::Error } else { RemoteState::Unknown });
    };
    match known.remote {
        Some((RemoteState::Ok, at)) if failed_at.is_none_or(|failed| failed < at) => Some(RemoteState::Ok),
        _ if failed_at.is_some() => Some(RemoteState::Error),
        told => told.map(|(state, _)| state),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::collect::mountinfo::Mounted;

    #[test]
    fn the_remote_is_judged_by_whoever_asked_it_last() {
        let early = Instant::now();
        let late = early + Duration::from_secs(9);
        let known = |state| {
            let mut known = Known::default();
            known.remote = Some((state, late));
            known
        };
        assert_eq!(remote(None, None), Some(RemoteState::Unknown));
        assert_eq!(remote(Some(early), None), Some(RemoteState::Error));
        assert_eq!(remote(None, Some(&Known::default())), None, "it will soon be asked");
        for state in [RemoteState::Ok, RemoteState::Error, RemoteState::Unknown] {
            assert_eq!(remote(None, Some(&known(state))), Some(state));
        }
        assert_eq!(remote(Some(early), Some(&known(RemoteState::Ok))), Some(RemoteState::Ok));
        assert_eq!(
            remote(Some(late + Duration::from_secs(1)), Some(&known(RemoteState::Ok))),
            Some(RemoteState::Error)
        );
        assert_eq!(remote(Some(early), Some(&known(RemoteState::Unknown))), Some(RemoteState::Error));
    }

    #[test]
    fn a_process_that_was_not_found_is_not_there() {
        let mut search = Search::default();
        assert_eq!(rclone(None, &search).map(|rclone| rclone.rc_state), Some(0), "it is not known yet");
        let line = b"61 28 0:56 / /mnt/m rw - fuse.rclone r: rw,user_id=0";
        let entry = crate::collect::mountinfo::parse(line).unwrap();
        let mounted = Mounted { entry, aliases: Vec::new(), shadowed: false, automounted: false };
        search.end(&[], &mounted, Instant::now());
        assert_eq!(rclone(None, &search), None);
    }
}
