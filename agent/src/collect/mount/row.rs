//! What is known of one mount becomes its row. Pure.

use mainstay_common::{
    Timestamp,
    metric::{Readings, catalogue as m},
    state::{RcState, RemoteState},
};
use mainstay_proto::v1 as pb;

use super::{Mount, life::Life};
use crate::collect::{rclone, readings};

/// The row of a mount that is there.
pub(super) fn of(mount: &Mount, at: Timestamp) -> pb::Mount {
    let (entry, watched) = (&mount.mounted.entry, &mount.watched);
    let known = watched.rclone.as_ref();
    let mut values = known.map(|known| known.readings.clone()).unwrap_or_default();
    values.set_count(&m::MOUNT_WAITING, watched.waiting);
    let mut row = of_life(&mount.life, values, at);
    row.path.clone_from(&entry.path);
    row.source.clone_from(&entry.source);
    row.fs.clone_from(&entry.fs);
    row.aliases.clone_from(&mount.mounted.aliases);
    row.remote_state = remote(mount.remote_failed, known).number();
    let owner = watched.owner.as_ref();
    row.rclone = known.filter(|_| entry.fs == "fuse.rclone").map(|known| pb::Rclone {
        rc_state: known.rc_state.number(),
        version: known.version.clone(),
        pid: owner.map_or(0, |owner| owner.pid),
        unit: owner.map(|owner| owner.unit.clone()).unwrap_or_default(),
        rc_open: known.rc_open,
        last_error: known.last_error.clone(),
    });
    row
}

/// The row of a mount that should be there.
pub(super) fn of_missed(path: &[u8], source: &[u8], fs: &str, life: &Life, at: Timestamp) -> pb::Mount {
    let mut row = of_life(life, Readings::new(), at);
    (row.path, row.source, row.fs) = (path.to_vec(), source.to_vec(), fs.to_owned());
    row.remote_state = RemoteState::Unknown.number();
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

/// How the remote answers, which the mount's own state does not tell: rclone says so itself, or its remote control does.
fn remote(failed: bool, known: Option<&rclone::Known>) -> RemoteState {
    if failed {
        return RemoteState::Error;
    }
    // A remote control that does not answer knows nothing now.
    known.filter(|known| known.rc_state == RcState::Ok).and_then(|known| known.remote).unwrap_or(RemoteState::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remote_is_judged_by_whoever_asked_it() {
        let known = |rc_state, remote| rclone::Known { rc_state, remote, ..rclone::Known::default() };
        assert_eq!(remote(false, None), RemoteState::Unknown);
        assert_eq!(remote(false, Some(&known(RcState::Ok, Some(RemoteState::Ok)))), RemoteState::Ok);
        assert_eq!(remote(true, Some(&known(RcState::Ok, Some(RemoteState::Ok)))), RemoteState::Error);
        assert_eq!(remote(false, Some(&known(RcState::Ok, None))), RemoteState::Unknown);
        assert_eq!(remote(false, Some(&known(RcState::Unreachable, Some(RemoteState::Ok)))), RemoteState::Unknown);
    }
}
