//! What a story needs of the machine it is told on.

use std::{env, path::Path};

use crate::shell::try_sh;

/// Set by `tests/run`, which installs everything: there a missing tool is a failure and not a reason to skip.
const ALL: &str = "MAINSTAY_TESTS_ALL";

/// Something that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be root.
    Root,
    /// `/dev/fuse`.
    Fuse,
    /// A program on the path.
    Tool(&'static str),
    /// A file.
    File(&'static str),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::Fuse => Path::new("/dev/fuse").exists(),
            Self::Tool(name) => try_sh(&format!("command -v {name}")).code == 0,
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

/// True where everything is there. Where something lacks, the story is skipped with a line that says what.
///
/// # Panics
/// Where something lacks under `tests/run`.
#[must_use]
pub fn has(needs: &[Need]) -> bool {
    let Some(lacking) = needs.iter().find(|need| !need.is_met()) else { return true };
    assert!(env::var_os(ALL).is_none(), "this machine lacks {lacking:?}");
    use std::io::Write as _;
    // Past the test harness, which keeps what a passing test prints.
    drop(writeln!(std::io::stderr(), "skipped: this machine lacks {lacking:?}"));
    false
}

/// Ports below those that the kernel gives to whoever asks for any: nothing but another story takes one meanwhile.
const PORTS: std::ops::Range<u32> = 10_000..30_000;

/// A port that is free now, on loopback; stories side by side rarely get the same.
///
/// # Panics
/// Where none of many is.
#[must_use]
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    let mut tries = (0..200_u32).map(|turn| {
        // Every RandomState has keys of its own.
        let any = RandomState::new().hash_one(turn) % u64::from(PORTS.end - PORTS.start);
        u16::try_from(u64::from(PORTS.start) + any).unwrap_or_else(|_| unreachable!())
    });
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    tries.find(free).unwrap_or_else(|| panic!("no port in {PORTS:?} is free"))
}

/// Raises the soft limit of descriptors to the hard one: for whoever plays thousands of peers.
pub fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    // What the machine does not give, the story will say.
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).ok();
}
