//! `/proc/self/mountinfo`: what is mounted where, which of it is a disk or a network mount, and when it changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use tokio::io::{Interest, unix::AsyncFd};

/// The most disks, and the most mounts, that are looked at; the rest is counted.
const LIMIT: usize = 512;

/// One line, as the kernel lists it; paths need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id, unique among those mounted now.
    pub id: u32,
    /// The mount that it stands on.
    pub parent: u32,
    /// The device: entries of one device are one filesystem.
    pub device: (u32, u32),
    /// What of the filesystem is mounted; `/` is all of it.
    pub root: Vec<u8>,
    /// Where.
    pub path: Vec<u8>,
    /// Filesystem type, `fuse.rclone`.
    pub fs: String,
    /// What is mounted, as its mounter named it.
    pub source: Vec<u8>,
    /// The filesystem itself is read-only. Mount options also say so where only this view of it is, as under
    /// `ProtectSystem=strict`.
    pub readonly: bool,
    /// The user who mounted it, where it is FUSE; the kernel lets nobody else look, not even root.
    pub fuse_user: Option<u32>,
    /// Unless the mount allows it.
    pub allow_other: bool,
}

/// Reads one line; `None` where it is not a mount line.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut device = fields.next()?.splitn(2, |b| *b == b':');
    let device = (number(device.next()?)?, number(device.next()?)?);
    let root = unescape(fields.next()?);
    let path = unescape(fields.next()?);
    // Options, then tags up to a lone dash: a mountpoint may be called `-` too.
    let mut rest = fields.skip(1).skip_while(|field| *field != b"-").skip(1);
    let fs = String::from_utf8_lossy(&unescape(rest.next()?)).into_owned();
    let source = unescape(rest.next()?);
    let options: Vec<&[u8]> = rest.next()?.split(|b| *b == b',').collect();
    let readonly = options.contains(&&b"ro"[..]);
    let allow_other = options.contains(&&b"allow_other"[..]);
    let fuse_user = options.iter().find_map(|option| number(option.strip_prefix(b"user_id=")?));
    Some(Entry { id, parent, device, root, path, fs, source, readonly, fuse_user, allow_other })
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The kernel writes space, tab, newline, backslash and `#` as three octal digits.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value = digits.map(|digits| digits.iter().fold(0_u32, |sum, d| sum * 8 + u32::from(d - b'0')));
        if let Some(value) = value.and_then(|value| u8::try_from(value).ok()) {
            plain.push(value);
            rest = &tail[3..];
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

/// What a filesystem is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Disk,
    Network,
    Ignored,
}

/// Filesystems without a block device of their own that are disks all the same.
const DISKS_OF_MANY: [&str; 3] = ["btrfs", "zfs", "bcachefs"];
/// Images and the like, always full and never written.
const IMAGES: [&str; 3] = ["squashfs", "erofs", "cramfs"];
const NETWORK: [&str; 15] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "9p",
    "afs",
    "lustre",
    "glusterfs",
    "ocfs2",
    "gfs2",
    "virtiofs",
    "fuse",
    "smbfs",
    "ncpfs",
];
/// FUSE of the desktop and of container runtimes, which shows no storage.
const FUSE_IGNORED: [&str; 3] = ["fuse.lxcfs", "fuse.portal", "fuse.gvfsd-fuse"];
/// Where a tmpfs is the system's own.
const SYSTEM_PLACES: [&[u8]; 4] = [b"/dev", b"/run", b"/sys", b"/proc"];

fn classify(entry: &Entry, engine_root: &[u8]) -> Class {
    let fs = entry.fs.as_str();
    if NETWORK.contains(&fs) || (fs.starts_with("fuse.") && !FUSE_IGNORED.contains(&fs)) {
        return Class::Network;
    }
    let is_disk = match fs {
        "tmpfs" => {
            !SYSTEM_PLACES.iter().any(|place| is_at_or_below(&entry.path, place))
                && !is_at_or_below(&entry.path, engine_root)
        }
        _ if IMAGES.contains(&fs) => false,
        // Major 0 are filesystems without a block device: overlay, nsfs, procfs and all the others.
        _ => entry.device.0 != 0 || DISKS_OF_MANY.contains(&fs),
    };
    if is_disk { Class::Disk } else { Class::Ignored }
}

/// Whether a path is that folder or lies in it.
#[must_use]
pub fn is_at_or_below(path: &[u8], folder: &[u8]) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) => rest.is_empty() || rest[0] == b'/' || folder.ends_with(b"/"),
        None => false,
    }
}

/// One filesystem and all the places where it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The place that stands for it: its root, visible, with the shortest path.
    pub entry: Entry,
    /// The other places.
    pub aliases: Vec<Vec<u8>>,
    /// Another mount covers every place.
    pub shadowed: bool,
    /// It stands on or below an autofs mount, which a look would keep from expiring.
    pub automounted: bool,
}

impl Mounted {
    /// Names this very mount: another one at the same path is another key.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let (major, minor) = self.entry.device;
        let mut key = format!("{} {major}:{minor} ", self.entry.id).into_bytes();
        key.extend_from_slice(&self.entry.path);
        key
    }

    /// True where a FUSE process serves it.
    #[must_use]
    pub fn is_fuse(&self) -> bool {
        self.entry.fs.starts_with("fuse")
    }
}

/// Everything mounted that we look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Block filesystems, and tmpfs outside the system's own places.
    pub disks: Vec<Mounted>,
    /// Network and FUSE mounts.
    pub network: Vec<Mounted>,
    /// Disks beyond the limit.
    pub disks_left_out: u64,
    /// Network and FUSE mounts beyond the limit.
    pub network_left_out: u64,
    /// Where anything else is mounted, outside the container engine's own place.
    pub others: BTreeSet<Vec<u8>>,
}

impl Mounts {
    /// Sorts out a whole `mountinfo`. `engine_root`: where the container engine keeps its own tmpfs mounts.
    #[must_use]
    pub fn of(mountinfo: &[u8], engine_root: &[u8]) -> Self {
        let entries: Vec<Entry> = mountinfo.split(|b| *b == b'\n').filter_map(parse).collect();
        let covers = Covers::of(&entries);
        let mut by_device: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for entry in &entries {
            let class = classify(entry, engine_root);
            if class != Class::Ignored {
                let places = by_device.entry((class == Class::Network, entry.device)).or_default();
                places.push((covers.shadow(entry), entry));
            }
        }
        let autofs: Vec<&[u8]> = entries.iter().filter(|e| e.fs == "autofs").map(|e| e.path.as_slice()).collect();
        let mut mounts = Self::default();
        for ((network, _), places) in by_device {
            let mounted = one(places, &autofs);
            if network {
                mounts.network.push(mounted);
            } else if !mounted.shadowed {
                // df does not show a covered disk either.
                mounts.disks.push(mounted);
            }
        }
        mounts.disks_left_out = cap(&mut mounts.disks);
        mounts.network_left_out = cap(&mut mounts.network);
        let others = entries.into_iter().map(|entry| entry.path);
        let others = others.filter(|path| !is_at_or_below(path, engine_root) && !mounts.lists(path));
        mounts.others = others.collect();
        mounts
    }

    /// True where something is mounted at this very place.
    #[must_use]
    pub fn is_mounted(&self, path: &[u8]) -> bool {
        self.others.contains(path) || self.lists(path)
    }

    /// Every place below a folder at which something is mounted.
    #[must_use]
    pub fn below(&self, folder: &[u8]) -> Vec<Vec<u8>> {
        let listed = self.disks.iter().chain(&self.network);
        let places = listed.flat_map(|mounted| mounted.aliases.iter().chain([&mounted.entry.path])).chain(&self.others);
        places.filter(|path| path.as_slice() != folder && is_at_or_below(path, folder)).cloned().collect()
    }

    fn lists(&self, path: &[u8]) -> bool {
        let at = |m: &Mounted| m.entry.path == path || m.aliases.iter().any(|alias| alias == path);
        self.disks.iter().chain(&self.network).any(at)
    }
}

/// In the order of their paths, and no more than the limit.
fn cap(mounted: &mut Vec<Mounted>) -> u64 {
    mounted.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    // Two filesystems may be mounted over each other at one path; only the visible one can stand for it.
    mounted.sort_by_key(|m| m.shadowed);
    let mut taken = BTreeSet::new();
    mounted.retain(|m| taken.insert(m.entry.path.clone()));
    let left_out = mounted.len().saturating_sub(LIMIT) as u64;
    mounted.truncate(LIMIT);
    left_out
}

/// One filesystem of all its places.
fn one(mut places: Vec<(bool, &Entry)>, autofs: &[&[u8]]) -> Mounted {
    places.sort_by_key(|(shadowed, entry)| (*shadowed, entry.root != b"/", entry.path.len(), entry.id));
    let (shadowed, first) = places[0];
    let aliases: BTreeSet<&[u8]> = places.iter().skip(1).map(|(_, entry)| entry.path.as_slice()).collect();
    Mounted {
        entry: first.clone(),
        aliases: aliases.into_iter().filter(|path| *path != first.path.as_slice()).map(<[u8]>::to_vec).collect(),
        shadowed,
        automounted: autofs.iter().any(|place| is_at_or_below(&first.path, place)),
    }
}

/// Which mount hides which.
struct Covers<'a> {
    by_id: HashMap<u32, &'a Entry>,
    by_path: HashMap<&'a [u8], Vec<u32>>,
}

impl<'a> Covers<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let mut by_path: HashMap<&[u8], Vec<u32>> = HashMap::new();
        for entry in entries {
            by_path.entry(entry.path.as_slice()).or_default().push(entry.id);
        }
        Self { by_id: entries.iter().map(|entry| (entry.id, entry)).collect(), by_path }
    }

    /// Covered is what cannot be reached by its path: something is mounted there, or above, that it does not stand on.
    fn shadow(&self, entry: &Entry) -> bool {
        let mut below = BTreeSet::from([entry.id]);
        let mut at = entry;
        while let Some(parent) = self.by_id.get(&at.parent) {
            if !below.insert(parent.id) {
                break;
            }
            at = parent;
        }
        let ends = (1..=entry.path.len()).filter(|end| *end == entry.path.len() || entry.path[*end] == b'/');
        let above = ends.map(|end| &entry.path[..end]).chain([&b"/"[..]]);
        above.filter_map(|path| self.by_path.get(path)).flatten().any(|id| !below.contains(id))
    }
}

/// Follows the list of mounts: the kernel says when it changed.
#[derive(Debug)]
pub struct Watch(AsyncFd<File>);

impl Watch {
    /// Opens the list under this `/proc`. Call it within a runtime.
    ///
    /// # Errors
    /// Where it cannot be opened or followed.
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    pub fn open(proc_root: &Path) -> io::Result<Self> {
        let file = File::open(proc_root.join("self/mountinfo"))?;
        // Poll reports a change as priority data; the list is always readable.
        // SAFETY: a `File` owns one descriptor for all its life, and nothing here replaces or takes it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?))
    }

    /// Waits for a change since the last call.
    ///
    /// # Errors
    /// Where the list can no longer be followed.
    pub async fn changed(&self) -> io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

/// The whole list as it is now.
///
/// # Errors
/// Where it cannot be read.
pub fn read(proc_root: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(16 * 1_024);
    File::open(proc_root.join("self/mountinfo"))?.read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
