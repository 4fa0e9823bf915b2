//! Somebody who cleans up after a story, however it ends.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

/// A shell that waits for the end of the story, a kill of the whole test included, and then runs its script.
#[derive(Debug)]
pub struct Caretaker(Child);

impl Caretaker {
    /// Hires one; `words` are the script's `$1` and so on.
    ///
    /// # Panics
    /// Where there is no shell.
    #[must_use]
    pub fn hire(script: &str, words: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        // The pipe is closed with the last process that holds its other end: that is us.
        shell.arg("-c").arg(format!("cat >/dev/null\n{script}")).arg("caretaker").args(words);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self(shell.spawn().unwrap_or_else(|error| panic!("no shell: {error}")))
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}
