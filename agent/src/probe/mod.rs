//! Disposable children that ask what may hang.
//!
//! A thread that hangs in the kernel keeps every descriptor of its process and cannot be ended; so all `statfs`, of
//! disks too, and whatever else touches a filesystem that may be dead, is done by a child: our own binary, executed
//! again, which holds nothing. A child that does not answer belongs to what it was asked from then on, and a fresh one
//! serves the rest. There is never a second question about one key, so children are one more than things that hang.

mod child;
mod keeper;
mod leftover;
mod owners;
mod wire;

use std::{ffi::OsString, time::Duration};

use mainstay_common::Timestamp;
use tokio::sync::{mpsc, oneshot};

pub use child::child;
pub(crate) use owners::Stat;
pub use wire::{Owner, Space};

/// The first argument of such a child.
pub const CHILD: &str = "probe-child";
/// Without an answer for so long, what was asked hangs.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// With so many that hang, nothing new is asked of the network.
pub const HUNG_LIMIT: usize = 16;

/// A question to a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The space of the filesystem at this path.
    Statfs(Vec<u8>),
    /// The names in this folder, 4,096 at most.
    Folder(Vec<u8>),
    /// This file's first 64 KiB.
    File(Vec<u8>),
    /// The processes that serve these FUSE mounts: mountpoint, and a part of the program's name.
    Owners(Vec<(Vec<u8>, String)>),
}

/// What a question is about. A key has one question at a time, and what hangs is known by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    name: Vec<u8>,
    network: bool,
}

impl Key {
    /// Something local: asked also where many other things hang.
    pub fn local(name: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), network: false }
    }

    /// Something behind a network or a FUSE process: not asked where [`HUNG_LIMIT`] such hang.
    pub fn network(name: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), network: true }
    }

    /// What a child that asks about it calls itself: 15 bytes are all the kernel keeps.
    fn title(&self) -> String {
        // FNV-1a: the same in every version of the agent, which the standard hasher does not promise.
        let hash = self.name.iter().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193));
        format!("probe-{hash:08x}")
    }
}

/// What a child found.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What it was asked for.
    pub told: Result<Told, Errno>,
    /// How long the child took, the way to it and back aside.
    pub took: Duration,
}

/// The content of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// To [`Ask::Statfs`].
    Space(Space),
    /// To [`Ask::Folder`]: the names, and whether there were more.
    Names(Vec<Vec<u8>>, bool),
    /// To [`Ask::File`]: its content, and whether there was more.
    Content(Vec<u8>, bool),
    /// To [`Ask::Owners`].
    Owners(Vec<Owner>),
}

/// The kernel's number of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Its name where it has a well-known one: `EIO`.
    #[must_use]
    pub fn name(self) -> String {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EIO => "EIO",
            libc::ENXIO => "ENXIO",
            libc::EACCES => "EACCES",
            libc::ENODEV => "ENODEV",
            libc::ENOTDIR => "ENOTDIR",
            libc::ELOOP => "ELOOP",
            libc::ENOSYS => "ENOSYS",
            libc::EINTR => "EINTR",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::ECONNREFUSED => "ECONNREFUSED",
            libc::ECONNRESET => "ECONNRESET",
            libc::ECONNABORTED => "ECONNABORTED",
            libc::ENOTCONN => "ENOTCONN",
            libc::EHOSTDOWN => "EHOSTDOWN",
            libc::EHOSTUNREACH => "EHOSTUNREACH",
            libc::ENETUNREACH => "ENETUNREACH",
            libc::ESTALE => "ESTALE",
            libc::EREMOTEIO => "EREMOTEIO",
            libc::ESHUTDOWN => "ESHUTDOWN",
            libc::EKEYEXPIRED => "EKEYEXPIRED",
            libc::ENOKEY => "ENOKEY",
            libc::EUCLEAN => "EUCLEAN",
            libc::EMFILE => "EMFILE",
            libc::ENOMEM => "ENOMEM",
            number => return format!("errno {number}"),
        };
        name.to_owned()
    }
}

/// What became of a question.
#[derive(Debug)]
pub enum Outcome {
    /// It was answered in time.
    Answered(Answer),
    /// It hangs: no answer for [`PATIENCE`].
    Hung(Outstanding),
    /// A question about the same key is still outstanding, since then. Nothing was asked.
    Busy(Timestamp),
    /// Too much hangs. Nothing was asked.
    Limit,
    /// The child ended without an answer, or there was none to be had.
    Lost(String),
}

/// A question that hangs.
#[derive(Debug)]
pub struct Outstanding {
    /// When it was asked.
    pub since: Timestamp,
    late: oneshot::Receiver<Option<Answer>>,
}

impl Outstanding {
    /// Waits for the late answer, which says that it no longer hangs; `None` where its child ended without one.
    pub async fn answered(self) -> Option<Answer> {
        self.late.await.ok().flatten()
    }
}

/// How many children there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All children, those that an earlier life left behind too.
    pub children: usize,
    /// Those that hang.
    pub hung: usize,
}

/// The handle through which collectors ask. Cheap to clone; the children end with its last clone.
#[derive(Clone, Debug)]
pub struct Probes(mpsc::UnboundedSender<keeper::Request>);

impl Probes {
    /// Children of this same program, which must call `become_child_if_asked` first in `main`. Call it within a
    /// runtime.
    #[must_use]
    pub fn start() -> Self {
        Self::start_program("/proc/self/exe")
    }

    /// As [`Probes::start`], with the path of a program that contains the agent.
    #[must_use]
    pub fn start_program(program: impl Into<OsString>) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        tokio::spawn(keeper::Keeper::new(program.into()).run(inbox));
        Self(requests)
    }

    /// Asks, and waits [`PATIENCE`] at most from the moment at which a child was given the question.
    pub async fn ask(&self, key: Key, ask: Ask) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        if self.0.send(keeper::Request::Question(keeper::Asked { key, ask, reply })).is_err() {
            return Outcome::Lost("the agent is ending".into());
        }
        outcome.await.unwrap_or_else(|_| Outcome::Lost("the agent is ending".into()))
    }

    /// Counts children.
    pub async fn census(&self) -> Census {
        let (reply, census) = oneshot::channel();
        match self.0.send(keeper::Request::Census(reply)) {
            Ok(()) => census.await.unwrap_or_default(),
            Err(_) => Census::default(),
        }
    }
}
