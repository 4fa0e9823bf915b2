//! A program that runs until it is told to stop.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::eventually;

/// How long a program may take to end after SIGTERM: what units and people rely on.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running program; it and its children die with this value.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    said: Arc<Mutex<Vec<String>>>,
    stdin: Option<ChildStdin>,
}

impl Daemon {
    /// Starts it, in a process group of its own; what it says on both outputs is kept.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::begin(name, command.stdin(Stdio::null()))
    }

    /// The same; it can be told something on its standard input.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start_and_tell(name: &str, command: &mut Command) -> Self {
        Self::begin(name, command.stdin(Stdio::piped()))
    }

    fn begin(name: &str, command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let said = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        for output in outputs.into_iter().flatten() {
            let said = Arc::clone(&said);
            // It ends with the program: the pipe closes.
            thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        let stdin = child.stdin.take();
        Self { child, name: name.to_owned(), said, stdin }
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// Where it takes none.
    pub fn is_told(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap_or_else(|| panic!("{} is not to be told anything", self.name));
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} takes no line: {error}", self.name));
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until it says this, and returns the whole line.
    ///
    /// # Panics
    /// When it does not in time, or ends before.
    pub fn says(&mut self, words: &str, limit: Duration) -> String {
        self.says_a_line(&format!("{words:?}"), limit, |line| line.contains(words))
    }

    /// Waits for the line `ready`, in text or in JSON.
    ///
    /// # Panics
    /// As [`Self::says`].
    pub fn is_ready(&mut self) {
        let ready = |line: &str| line.trim_end() == "ready" || line.contains("\"message\":\"ready\"");
        self.says_a_line("that it is ready", Duration::from_secs(30), ready);
    }

    fn says_a_line(&mut self, what: &str, limit: Duration, is: impl Fn(&str) -> bool) -> String {
        let name = self.name.clone();
        eventually(&format!("{name} says {what}"), limit, || {
            let ended = self.child.try_wait().ok().flatten();
            let said = self.said();
            match said.lines().find(|line| is(line)) {
                Some(line) => Ok(line.to_owned()),
                None if ended.is_some() => panic!("{name} ended before it said {what}: {said}"),
                None => Err(said),
            }
        })
    }

    /// The exit code, if it ended.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn ends(&mut self, limit: Duration) -> i32 {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), limit, || self.ended().ok_or_else(|| self.said()))
    }

    /// SIGTERM; how long it took to end.
    ///
    /// # Panics
    /// When it does not end cleanly within [`STOP_LIMIT`].
    pub fn stop(mut self) -> Duration {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        let code = self.ends(STOP_LIMIT);
        assert_eq!(code, 0, "{} was told to stop: {}", self.name, self.said());
        begun.elapsed()
    }

    /// SIGKILL to it alone: no goodbye.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        drop(self.child.wait());
    }

    /// Any signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).ok();
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What was stopped by a story wakes up to die.
        kill_process_group(self.process(), Signal::CONT).ok();
        kill_process_group(self.process(), Signal::KILL).ok();
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.said());
        }
    }
}
