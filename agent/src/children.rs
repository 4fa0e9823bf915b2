//! Children: this same program, executed again, to do what this process must not. What both ends share.
//!
//! A child holds one end of a socketpair as its standard input and nothing else: whatever hangs in it keeps no socket and
//! no lock of ours. Messages are prost's, each with its length before it.

use std::{ffi::OsStr, io, process::Stdio};

use prost::Message;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{
    io::AsyncReadExt as _,
    net::UnixStream,
    process::{Child, Command},
};

/// A message of ours is shorter.
const FRAME_LIMIT: usize = 1 << 20;

/// Starts a child of this kind. Call it within a runtime, which collects the child when it ended.
pub(crate) fn start(program: &OsStr, kind: &str) -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let child = Command::new(program)
        .arg0("mainstay-agent")
        .arg(kind)
        .arg(std::process::id().to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((UnixStream::from_std(std::os::unix::net::UnixStream::from(ours))?, child))
}

/// Reads one message.
pub(crate) async fn read<M: Message + Default>(socket: &mut UnixStream) -> io::Result<M> {
    let mut head = [0; 4];
    socket.read_exact(&mut head).await?;
    let mut body = vec![0; body_length(head).ok_or(io::ErrorKind::InvalidData)?];
    socket.read_exact(&mut body).await?;
    M::decode(body.as_slice()).map_err(io::Error::other)
}

/// A message with its length before it.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = Vec::with_capacity(body.len() + 4);
    framed.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    framed.extend_from_slice(&body);
    framed
}

/// The length of the body that follows; `None` where it is too long to be ours.
pub(crate) fn body_length(head: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(head)).ok().filter(|length| *length <= FRAME_LIMIT)
}

/// For the child, before anything else: a child that never returns from the kernel keeps what it holds open.
///
/// # Errors
/// Where the kernel refuses to end it with the agent.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub(crate) fn hold_nothing() -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor above standard input: it runs before anything opened one.
    let closed = unsafe { libc::close_range(1, libc::c_uint::MAX, 0) };
    if closed != 0 {
        for fd in 1..1_024 {
            // SAFETY: as above; kernels before 5.9 have no close_range.
            unsafe { libc::close(fd) };
        }
    }
    // The end of the socket tells of the agent's end too; this is for a child that waits for no message.
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}
