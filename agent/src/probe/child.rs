//! The child's life: no runtime, no descriptor but its end of the socketpair, one question after the other.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Instant,
};

use prost::Message as _;
use rustix::fs::{Mode, OFlags};

use super::{
    owners,
    wire::{self, Question, Reply, Space},
};
use crate::children;

/// The most names of a folder that are told, and the most bytes they may have together.
const NAMES_LIMIT: usize = 4_096;
const NAMES_BYTES_LIMIT: usize = 256 * 1_024;
/// The most bytes of a file that are told.
const CONTENT_LIMIT: u64 = 64 * 1_024;

/// Answers questions on standard input, which is the socketpair, until the agent closes its end.
pub fn child() -> ! {
    // Whatever goes wrong here ends this child; the agent sees its end and starts another.
    let ended = serve();
    std::process::exit(i32::from(ended.is_err()))
}

fn serve() -> io::Result<()> {
    children::hold_nothing()?;
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut body = Vec::new();
    loop {
        let mut head = [0; 4];
        match socket.read_exact(&mut head) {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let length = children::body_length(head).ok_or(io::ErrorKind::InvalidData)?;
        body.resize(length, 0);
        socket.read_exact(&mut body)?;
        let question = Question::decode(body.as_slice()).map_err(io::Error::other)?;
        socket.write_all(&children::frame(&answer(&question)))?;
        body.shrink_to(4_096);
    }
}

fn answer(question: &Question) -> Reply {
    if let Ok(title) = CString::new(question.title.as_str()) {
        // The name is for people and for a later agent; the answer does not depend on it.
        rustix::thread::set_name(&title).unwrap_or(());
    }
    let began = Instant::now();
    let path = question.paths.first().map_or(&b""[..], Vec::as_slice);
    let told = match question.kind {
        wire::STATFS => statfs(path),
        wire::FOLDER => folder(path),
        wire::FILE => file(path),
        wire::OWNERS => Ok(Reply { owners: owners::find(&question.paths, &question.programs), ..Reply::default() }),
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let reply = told.unwrap_or_else(|error| Reply {
        errno: error.raw_os_error().unwrap_or(rustix::io::Errno::NOSYS.raw_os_error()),
        ..Reply::default()
    });
    Reply { took_ns, ..reply }
}

/// The place is held while it is asked, so that the mount that answered can be named.
fn statfs(path: &[u8]) -> io::Result<Reply> {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let told = rustix::fs::fstatvfs(&place)?;
    let space = Space {
        block_bytes: told.f_bsize,
        fragment_bytes: told.f_frsize,
        blocks: told.f_blocks,
        blocks_free: told.f_bfree,
        blocks_available: told.f_bavail,
        inodes: told.f_files,
        inodes_free: told.f_ffree,
        name_max: told.f_namemax,
        mount_id: mount_id(&place).unwrap_or(0),
    };
    Ok(Reply { space: Some(space), ..Reply::default() })
}

/// The kernel knows it without asking the filesystem, which `statx` would.
fn mount_id(place: &OwnedFd) -> Option<u32> {
    let mut told = [0; 256];
    let length = File::open(format!("/proc/self/fdinfo/{}", place.as_raw_fd())).ok()?.read(&mut told).ok()?;
    let line = std::str::from_utf8(&told[..length]).ok()?.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

fn folder(path: &[u8]) -> io::Result<Reply> {
    let mut reply = Reply::default();
    let mut bytes = 0;
    for entry in std::fs::read_dir(Path::new(OsStr::from_bytes(path)))? {
        let name = entry?.file_name().as_bytes().to_vec();
        bytes += name.len();
        if reply.names.len() == NAMES_LIMIT || bytes > NAMES_BYTES_LIMIT {
            reply.cut = true;
            break;
        }
        reply.names.push(name);
    }
    Ok(reply)
}

fn file(path: &[u8]) -> io::Result<Reply> {
    let mut content = Vec::new();
    File::open(Path::new(OsStr::from_bytes(path)))?.take(CONTENT_LIMIT + 1).read_to_end(&mut content)?;
    let cut = content.len() as u64 > CONTENT_LIMIT;
    if cut {
        content.pop();
    }
    Ok(Reply { content, cut, ..Reply::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_a_file_and_a_filesystem_are_told_or_their_errno() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("opts.json"), b"{}").unwrap();
        let ask = |kind, path: &Path| answer(&question(kind, path));
        assert_eq!(ask(wire::FOLDER, place.path()).names, [b"opts.json".to_vec()]);
        assert_eq!(ask(wire::FILE, &place.path().join("opts.json")).content, b"{}");
        let space = ask(wire::STATFS, place.path()).space.unwrap();
        assert!(space.blocks > 0 && space.mount_id > 0);
        assert_eq!(ask(wire::FILE, &place.path().join("none")).errno, libc::ENOENT);
    }

    #[test]
    fn a_long_file_is_cut() {
        let place = tempfile::tempdir().unwrap();
        let long = place.path().join("long");
        std::fs::write(&long, vec![b'x'; 100_000]).unwrap();
        let told = answer(&question(wire::FILE, &long));
        assert!(told.cut);
        assert_eq!(told.content.len(), 65_536);
    }

    fn question(kind: u32, path: &Path) -> Question {
        Question { kind, paths: vec![path.as_os_str().as_bytes().to_vec()], ..Question::default() }
    }
}
