//! What a program that ended said.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Exit code and texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; 128 and the signal's number where one ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        Self::fed(command, b"")
    }

    /// Runs a command to its end with this on its standard input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn fed(command: &mut Command, input: &[u8]) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read what it is given says more by its exit code.
            drop(stdin.write_all(input));
        }
        let told = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let code = told.status.code().unwrap_or_else(|| 128 + told.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code, stdout: text(&told.stdout), stderr: text(&told.stderr) }
    }

    /// Standard output of what ended well.
    ///
    /// # Panics
    /// Where it did not.
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error of what ended with that code, in three lines.
    ///
    /// # Panics
    /// Where it ended otherwise, or said more or less.
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        let lines = self.stderr.trim_end().lines().count();
        assert!((2..=3).contains(&lines), "what, why, what to try: {}", self.stderr);
        self.stderr
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it did not end well, or said something else.
    #[must_use]
    pub fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The rows of a listing.
    ///
    /// # Panics
    /// As [`Self::json`], or where it is no array.
    #[must_use]
    pub fn rows(self) -> Vec<Value> {
        let json = self.json();
        json.as_array().unwrap_or_else(|| panic!("no array: {json}")).clone()
    }
}
