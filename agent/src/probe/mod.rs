//! Disposable children that ask what may hang.

/// The first argument of such a child.
pub const CHILD: &str = "probe-child";

/// The handle through which collectors ask.
#[derive(Clone, Debug)]
pub struct Probes;

/// The child's life.
pub fn child() -> ! {
    std::process::exit(0)
}
