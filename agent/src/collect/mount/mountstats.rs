//! `/proc/self/mountstats`: how the requests of NFS mounts fare. Reading it asks no server.

use std::collections::BTreeMap;

/// Requests of one mount since it was mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// Those that ended.
    pub(super) ended: u64,
    /// Times that one waited for longer than the mount's `timeo` and all its retransmissions allow.
    pub(super) timed_out: u64,
}

/// Reads the counts of every NFS mount, by its path as the file escapes it, which is as in `mountinfo`.
///
/// A line `device SERVER:/x mounted on /y with fstype nfs4 statvers=1.1` begins a mount; below `per-op statistics`
/// every line is one kind of request, whose first and third numbers are ended and timed out
/// (net/sunrpc/stats.c, `rpc_print_iostats`).
pub(super) fn parse(text: &[u8]) -> BTreeMap<Vec<u8>, Requests> {
    let mut mounts = BTreeMap::new();
    let mut current: Option<(Vec<u8>, Requests)> = None;
    let mut in_requests = false;
    for line in text.split(|b| *b == b'\n') {
        if line.starts_with(b"device ") || line.starts_with(b"no device ") {
            mounts.extend(current.take());
            in_requests = false;
            current = nfs_path(line).map(|path| (path, Requests::default()));
        } else if line.trim_ascii() == b"per-op statistics" {
            in_requests = true;
        } else if let Some((_, requests)) = current.as_mut().filter(|_| in_requests)
            && let Some((ended, timed_out)) = counts(line)
        {
            requests.ended = requests.ended.saturating_add(ended);
            requests.timed_out = requests.timed_out.saturating_add(timed_out);
        }
    }
    mounts.extend(current);
    mounts
}

/// The kernel escapes spaces in both names, so words are words.
fn nfs_path(line: &[u8]) -> Option<Vec<u8>> {
    let mut words = line.split(|b| *b == b' ').skip_while(|word| *word != b"on").skip(1);
    let path = words.next()?;
    let fs = words.skip_while(|word| *word != b"fstype").nth(1)?;
    fs.starts_with(b"nfs").then(|| super::super::mountinfo::unescape(path))
}

fn counts(line: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut numbers = line.split_once(':')?.1.split_ascii_whitespace();
    let ended = numbers.next()?.parse().ok()?;
    Some((ended, numbers.nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = include_bytes!("../../../testdata/mountstats.txt");

    #[test]
    fn requests_are_added_up_for_every_nfs_mount() {
        let mounts = parse(TEXT);
        let expected = [
            (b"/mnt/my nfs".to_vec(), Requests { ended: 38_614, timed_out: 17 }),
            (b"/mnt/nfs3".to_vec(), Requests { ended: 12, timed_out: 0 }),
        ];
        assert_eq!(mounts, BTreeMap::from(expected));
    }

    #[test]
    fn a_text_that_is_cut_off_harms_nobody() {
        for end in 0..TEXT.len() {
            assert!(parse(&TEXT[..end]).len() <= 2);
        }
    }
}
