//! The kernel's own opinion of its clock.

/// How well the clock is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Clock {
    /// A time service keeps it in step.
    pub(super) synchronized: bool,
    /// How far it is off; unknown while nobody keeps it.
    pub(super) offset_seconds: Option<f64>,
}

#[expect(unsafe_code, reason = "rustix has no adjtimex")]
#[expect(clippy::cast_precision_loss, reason = "an offset of many days may lose its nanoseconds")]
pub(super) fn read() -> Option<Clock> {
    // SAFETY: a struct of integers, for which zero is a value; modes 0 only reads.
    let mut told: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours and lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut told) };
    if state < 0 {
        return None;
    }
    let synchronized = told.status & libc::STA_UNSYNC == 0;
    let unit = if told.status & libc::STA_NANO == 0 { 1e-6 } else { 1e-9 };
    Some(Clock { synchronized, offset_seconds: synchronized.then_some(told.offset as f64 * unit) })
}

/// The unit of CPU times in procfs.
#[expect(clippy::cast_precision_loss, reason = "it is 100, or near it")]
pub(super) fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}
