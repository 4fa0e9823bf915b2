//! `mainstay completions`: the script that a shell loads.

use std::env;

use clap::Args;
use clap_complete::env::Shells;
use mainstay_common::{ExitCode, Failure};

use crate::output::out;

/// The variable with which a shell's script asks this program for candidates.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// `mainstay completions`
#[derive(Args, Debug)]
#[command(after_help = "bash:  echo 'source <(mainstay completions bash)' >> ~/.bashrc\n\
                        zsh:   echo 'source <(mainstay completions zsh)' >> ~/.zshrc\n\
                        fish:  mainstay completions fish > ~/.config/fish/completions/mainstay.fish")]
pub(crate) struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell"], hide_possible_values = true)]
    shell: String,
}

/// Prints it.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(ExitCode::Failed, "no script was made", why, "report this");
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).ok_or_else(|| failed(format!("{} is not known", args.shell)))?;
    let mut script = Vec::new();
    let made = shell.write_registration(VARIABLE, "mainstay", "mainstay", &completer(), &mut script);
    made.map_err(|error| failed(error.to_string()))?;
    out::say(&String::from_utf8_lossy(&script))
}

/// What the script calls: this very program, wherever it is.
fn completer() -> String {
    env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| "mainstay".into())
}
