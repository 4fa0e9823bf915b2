//! The walking child's life: one order, tidings every second, one measure.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use prost::Message as _;

use super::{
    pace::{Next, Pace, io_pressure},
    tree,
    wire::{Order, Tiding},
};
use crate::children;

/// Between two signs of life.
const TIDINGS_EVERY: Duration = Duration::from_secs(1);

/// Measures one folder and ends.
pub fn child() -> ! {
    // Whatever goes wrong here ends this child; the agent sees it.
    std::process::exit(i32::from(serve().is_err()))
}

fn serve() -> io::Result<()> {
    children::hold_nothing()?;
    yield_to_all();
    let mut socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut head = [0; 4];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; children::body_length(head).ok_or(io::ErrorKind::InvalidData)?];
    socket.read_exact(&mut body)?;
    let order = Order::decode(body.as_slice()).map_err(io::Error::other)?;
    let mountpoints: BTreeSet<Vec<u8>> = order.mountpoints.into_iter().collect();

    let (mut pace, mut told) = (Pace::new(Instant::now()), Instant::now());
    let mut alive = || {
        loop {
            let now = Instant::now();
            if now - told >= TIDINGS_EVERY {
                told = now;
                socket.write_all(&children::frame(&Tiding::default()))?;
            }
            match pace.next(now, io_pressure) {
                Next::Go => return Ok(()),
                Next::Rest(wait) => rest(wait),
            }
        }
    };
    let tiding = match tree::measure(&order.folder, &mountpoints, &mut alive) {
        Ok(measured) => Tiding { measured: Some(measured), error: String::new() },
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
        Err(error) => Tiding { measured: None, error: error.to_string() },
    };
    socket.write_all(&children::frame(&tiding))
}

/// Runs only when nobody else wants the CPU, and reads only when nobody else wants the disk. Where the kernel refuses,
/// the pace alone keeps it modest.
#[expect(unsafe_code, reason = "neither call has a safe wrapper")]
fn yield_to_all() {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: both calls take integers, and a pointer to a value that outlives the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const priority);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE);
    }
}

/// Does nothing for a while.
fn rest(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let span = rustix::thread::Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() };
        // A signal that wakes it early is slept over.
        if let rustix::thread::NanosleepRelativeResult::Err(_) = rustix::thread::nanosleep(&span) {
            return;
        }
    }
}
