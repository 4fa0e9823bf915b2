//! The system's own tools, to compare with.

use std::process::Command;

use crate::Outcome;

/// Runs a line of shell; its output without the last line break.
///
/// # Panics
/// Where it fails.
pub fn sh(line: &str) -> String {
    let outcome = try_sh(line);
    assert_eq!(outcome.code, 0, "{line}: {}{}", outcome.stdout, outcome.stderr);
    outcome.stdout.trim_end_matches('\n').to_owned()
}

/// Runs a line of shell that may fail.
#[must_use]
pub fn try_sh(line: &str) -> Outcome {
    Outcome::of(Command::new("sh").args(["-c", line]))
}
