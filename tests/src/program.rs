//! The three programs, as the workspace built them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// One of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The command line.
    Mainstay,
    /// The agent.
    Agent,
    /// The coordinator.
    Coordinator,
}

impl Program {
    /// Its file, beside whatever runs now: tests and benches lie in the same target folder.
    ///
    /// # Panics
    /// Where the workspace was not built.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let name = match self {
            Self::Mainstay => "mainstay",
            Self::Agent => "mainstay-agent",
            Self::Coordinator => "mainstay-coordinator",
        };
        let own = env::current_exe().unwrap_or_default();
        let found = own.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|file| file.is_file());
        found.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace"))
    }

    /// A command with an empty surrounding but for the path: nothing of whoever runs the tests gets in.
    #[must_use]
    pub fn command(self) -> Command {
        clean(&self.path())
    }
}

/// A command that inherits nothing but the path and a home that does not exist.
#[must_use]
pub fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", "/nonexistent");
    // Coverage and sanitizers are told where to write by the surrounding.
    command.envs(env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LLVM_")));
    command
}
