//! What the answer of a mount means. Pure.

use std::time::Duration;

use mainstay_common::state::MountState;

use crate::{
    collect::mountinfo::Mounted,
    probe::{Answer, Errno, Space, Told},
};

/// Slower than this is slow.
const SLOW: Duration = Duration::from_secs(1);
/// What rclone tells when its remote did not answer: -1 bytes in blocks of 4096. Never an errno (seen with 1.60).
const RCLONE_FAILED_BYTES: u64 = 0_u64.wrapping_sub(4_096);
/// What rclone tells when it does not know: for remotes without quota, and after a failure until it asks again.
const RCLONE_UNKNOWN_BYTES: u64 = 1 << 50;

/// Sizes that a mount told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) total_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) available_bytes: u64,
}

/// What an answer says of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// They are known.
    Known(Sizes),
    /// The mount does not know them.
    Unknown,
    /// rclone asked its remote and got no answer.
    RemoteFailed,
    /// rclone knows nothing of its remote: it never did, or it failed before.
    RemoteUnknown,
    /// There was no answer that could say.
    Nothing,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: MountState,
    pub(super) reason: String,
    pub(super) sizes: Size,
    pub(super) took: Duration,
}

impl Verdict {
    /// Judges an answer. `uid`: who asked. `None` where another mount answered, which took its place.
    pub(super) fn of(answer: &Answer, mounted: &Mounted, uid: u32) -> Option<Self> {
        let verdict = |state, reason: &str, sizes| Self { state, reason: reason.to_owned(), sizes, took: answer.took };
        let space = match &answer.told {
            Ok(Told::Space(space)) => space,
            Ok(Told::Names(..) | Told::Content(..) | Told::Owners(_)) => return None,
            Err(errno) => {
                let (state, reason) = of_error(*errno);
                return Some(verdict(state, &reason, Size::Nothing));
            }
        };
        if space.mount_id != 0 && space.mount_id != mounted.entry.id {
            return None;
        }
        if let Some(owner) = hidden_by(space, mounted, uid) {
            let reason = format!("mounted by uid {owner} without allow_other");
            return Some(verdict(MountState::Denied, &reason, Size::Nothing));
        }
        let state = if answer.took > SLOW { MountState::Slow } else { MountState::Ok };
        Some(verdict(state, "", sizes(space, &mounted.entry.fs)))
    }
}

fn of_error(errno: Errno) -> (MountState, String) {
    match errno.0 {
        libc::ENOTCONN | libc::ECONNABORTED => (MountState::Gone, "disconnected".to_owned()),
        libc::ESTALE => (MountState::Stale, errno.name()),
        libc::EACCES | libc::EPERM => (MountState::Denied, errno.name()),
        _ => (MountState::Error, errno.name()),
    }
}

/// The user whose FUSE mount this is, where the kernel answers others in its place: at once, with nothing but zeros, also
/// while the process behind it is stopped.
fn hidden_by(space: &Space, mounted: &Mounted, uid: u32) -> Option<u32> {
    let owner = mounted.entry.fuse_user.filter(|owner| *owner != uid && !mounted.entry.allow_other)?;
    (space.blocks == 0 && space.block_bytes == 0).then_some(owner)
}

fn sizes(space: &Space, fs: &str) -> Size {
    let total_bytes = space.total_bytes();
    match total_bytes {
        RCLONE_FAILED_BYTES if fs == "fuse.rclone" => Size::RemoteFailed,
        RCLONE_UNKNOWN_BYTES if fs == "fuse.rclone" => Size::RemoteUnknown,
        0 => Size::Unknown,
        _ => {
            Size::Known(Sizes { total_bytes, used_bytes: space.used_bytes(), available_bytes: space.available_bytes() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mountinfo::parse;

    #[test]
    fn sane_sizes_are_ok_and_late_ones_slow() {
        let space = space(1_000, 4_096);
        let verdict = of(Ok(space), "fuse.rclone", 200).unwrap();
        let sizes = Sizes { total_bytes: 4_096_000, used_bytes: 2_048_000, available_bytes: 2_048_000 };
        assert_eq!((verdict.state, verdict.sizes), (MountState::Ok, Size::Known(sizes)));
        assert_eq!(of(Ok(space), "nfs4", 1_001).unwrap().state, MountState::Slow);
    }

    #[test]
    fn what_rclone_tells_without_its_remote_is_no_size() {
        let failed = Space { blocks_free: 0, ..space(u64::MAX / 4_096, 4_096) };
        assert_eq!(of(Ok(failed), "fuse.rclone", 1).unwrap().sizes, Size::RemoteFailed);
        assert_eq!(of(Ok(space((1 << 50) / 4_096, 4_096)), "fuse.rclone", 1).unwrap().sizes, Size::RemoteUnknown);
        assert!(matches!(of(Ok(space((1 << 50) / 4_096, 4_096)), "nfs4", 1).unwrap().sizes, Size::Known(_)));
        assert_eq!(of(Ok(space(0, 512)), "fuse.x", 1).unwrap().sizes, Size::Unknown);
    }

    #[test]
    fn every_errno_has_its_state() {
        for (errno, state, reason) in [
            (libc::ENOTCONN, MountState::Gone, "disconnected"),
            (libc::ECONNABORTED, MountState::Gone, "disconnected"),
            (libc::ESTALE, MountState::Stale, "ESTALE"),
            (libc::EACCES, MountState::Denied, "EACCES"),
            (libc::EHOSTDOWN, MountState::Error, "EHOSTDOWN"),
            (libc::EIO, MountState::Error, "EIO"),
        ] {
            let verdict = of(Err(Errno(errno)), "nfs4", 1).unwrap();
            assert_eq!((verdict.state, verdict.reason.as_str()), (state, reason));
        }
    }

    #[test]
    fn zeros_mean_denied_only_to_another_user() {
        let zeros = Ok(Told::Space(Space::default()));
        let answer = Answer { told: zeros, took: Duration::ZERO };
        let denied = Verdict::of(&answer, &mounted("fuse.rclone", "user_id=1000"), 0).unwrap();
        assert_eq!(
            (denied.state, denied.reason.as_str()),
            (MountState::Denied, "mounted by uid 1000 without allow_other")
        );
        for options in ["user_id=0", "user_id=1000,allow_other"] {
            assert_eq!(Verdict::of(&answer, &mounted("fuse.x", options), 0).unwrap().state, MountState::Ok);
        }
    }

    #[test]
    fn an_answer_of_another_mount_is_none() {
        assert_eq!(of(Ok(Space { mount_id: 99, ..space(1, 1) }), "nfs4", 1), None);
        assert!(of(Ok(Space { mount_id: 61, ..space(1, 1) }), "nfs4", 1).is_some());
    }

    fn of(told: Result<Space, Errno>, fs: &str, millis: u64) -> Option<Verdict> {
        let answer = Answer { told: told.map(Told::Space), took: Duration::from_millis(millis) };
        Verdict::of(&answer, &mounted(fs, "user_id=0"), 0)
    }

    fn space(blocks: u64, fragment_bytes: u64) -> Space {
        Space {
            block_bytes: fragment_bytes,
            fragment_bytes,
            blocks,
            blocks_free: blocks / 2,
            blocks_available: blocks / 2,
            ..Space::default()
        }
    }

    fn mounted(fs: &str, options: &str) -> Mounted {
        let line = format!("61 28 0:56 / /mnt/m rw - {fs} r: rw,{options}");
        Mounted { entry: parse(line.as_bytes()).unwrap(), aliases: Vec::new(), shadowed: false, automounted: false }
    }
}
