//! The search for the process that serves a FUSE mount: when it is worth its price, and whom it finds. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::{collect::mountinfo::Mounted, probe::Owner};

/// Waits before a search that found nobody is repeated: a process may be on its way; later it costs 5 ms in vain.
const AGAIN: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(300)];

/// What is known of the process behind one mount.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    owner: Option<Owner>,
    /// When it was searched for last.
    at: Option<Instant>,
    in_vain: usize,
}

impl Search {
    /// Who serves it.
    pub(super) fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// True while nobody has searched.
    pub(super) fn is_pending(&self) -> bool {
        self.at.is_none()
    }

    /// What to look for, where that is due: the mountpoint, and a part of the program's name.
    pub(super) fn wish(&self, mounted: &Mounted, now: Instant) -> Option<(Vec<u8>, String)> {
        let program = mounted.entry.fs.strip_prefix("fuse.").filter(|program| !program.is_empty())?;
        let wait = AGAIN[self.in_vain.clamp(1, AGAIN.len()) - 1];
        let due = self.at.is_none_or(|at| now.saturating_duration_since(at) >= wait);
        (self.owner.is_none() && !mounted.shadowed && due).then(|| (mounted.entry.path.clone(), program.to_owned()))
    }

    /// Takes over what a search found for all that were wanted.
    ///
    /// Anyone may start a program with such arguments: only the mounting user's is believed. Of several the youngest
    /// one serves: the others started it.
    pub(super) fn end(&mut self, found: &[Owner], mounted: &Mounted, now: Instant) {
        let is_its = |owner: &&Owner| {
            owner.mountpoint == mounted.entry.path && mounted.entry.fuse_user.is_none_or(|user| user == owner.uid)
        };
        self.owner = found.iter().filter(is_its).max_by_key(|owner| owner.started_ticks).cloned();
        self.at = Some(now);
        self.in_vain = if self.owner.is_some() { 0 } else { self.in_vain + 1 };
    }

    /// The process ended. Another one may serve the mount already, or soon.
    pub(super) fn lose(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mountinfo::parse;

    #[test]
    fn only_the_youngest_process_of_the_mounting_user_is_believed() {
        let (mounted, now) = (mounted("fuse.rclone"), Instant::now());
        let found = [owner(1, 10, 1_000), owner(2, 30, 1_000), owner(3, 20, 1_000), owner(4, 40, 33)];
        let mut search = Search::default();
        search.end(&found, &mounted, now);
        assert_eq!(search.owner().map(|owner| owner.pid), Some(2));
        assert_eq!(search.wish(&mounted, now + Duration::from_secs(1_000)), None);
        search.lose();
        assert_eq!(search.wish(&mounted, now), Some((b"/mnt/m".to_vec(), "rclone".to_owned())));
    }

    #[test]
    fn a_search_in_vain_is_repeated_less_and_less() {
        let (mounted, start) = (mounted("fuse.sshfs"), Instant::now());
        let mut search = Search::default();
        let mut at = start;
        for wait in [5, 30, 300, 300] {
            search.end(&[], &mounted, at);
            assert_eq!(search.wish(&mounted, at + Duration::from_secs(wait - 1)), None);
            at += Duration::from_secs(wait);
            assert!(search.wish(&mounted, at).is_some());
        }
    }

    #[test]
    fn a_mount_that_names_no_program_is_not_searched_for() {
        assert_eq!(Search::default().wish(&mounted("fuse"), Instant::now()), None);
        assert_eq!(Search::default().wish(&mounted("nfs4"), Instant::now()), None);
    }

    fn mounted(fs: &str) -> Mounted {
        let line = format!("61 28 0:56 / /mnt/m rw - {fs} r: rw,user_id=1000");
        Mounted { entry: parse(line.as_bytes()).unwrap(), aliases: Vec::new(), shadowed: false, automounted: false }
    }

    fn owner(pid: u32, started_ticks: u64, uid: u32) -> Owner {
        Owner { mountpoint: b"/mnt/m".to_vec(), pid, started_ticks, uid, ..Owner::default() }
    }
}
