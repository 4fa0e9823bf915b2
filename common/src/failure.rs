//! What a person is told when something did not work: what, why, and what to try.

use std::fmt;

/// What a program of ours ends with; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// The operation failed.
    Failed = 1,
    /// The command line or a configuration file is wrong.
    Usage = 2,
    /// Nobody answers, or there is no leader.
    Unreachable = 3,
    /// Not allowed.
    Denied = 4,
    /// A conflict or a precondition: name taken, directory in use, plan out of date.
    Conflict = 5,
    /// The outcome is unknown: ask again by name.
    Unknown = 6,
    /// An interrupted wait whose work goes on.
    Interrupted = 130,
}

impl ExitCode {
    /// The number a process ends with.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code of that number; a plain failure where it is none of ours.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        let all = [Self::Usage, Self::Unreachable, Self::Denied, Self::Conflict, Self::Unknown, Self::Interrupted];
        all.into_iter().find(|code| code.number() == number).unwrap_or(Self::Failed)
    }
}

/// An error made for a reader at night: one line what, one line why, one line what to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The program's exit code.
    pub code: ExitCode,
    /// What did not work.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to try; may be empty.
    pub try_next: String,
}

impl Failure {
    /// A failure in three lines.
    pub fn new(code: ExitCode, what: impl Into<String>, why: impl Into<String>, try_next: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: why.into(), try_next: try_next.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  why: {}", self.what, self.why)?;
        if self.try_next.is_empty() { Ok(()) } else { write!(f, "\n  try: {}", self.try_next) }
    }
}

impl std::error::Error for Failure {}
