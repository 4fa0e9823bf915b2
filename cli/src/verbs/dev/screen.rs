//! What dev says while it starts, and what can be tried then.

use std::{
    env,
    path::{Path, PathBuf},
    time::Instant,
};

use mainstay_common::{Failure, process::context::Context};
use mainstay_coordinator::Started;

use crate::{
    connect::Home,
    output::{look::Look, out, style::Tone},
};

/// The context that dev writes.
const CONTEXT: &str = "dev";
/// Three commands to try; a test runs them as they are printed.
const TRY: [&str; 3] = ["status", "node ls", "disk ls"];

/// A line of text.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    out::say(&format!("{line}\n"))
}

pub(super) fn title(folder: &Path) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    say(&format!("mainstay dev {version}   data {}   (Ctrl-C stops, data stays)", folder.display()))
}

/// A part that is up, and how long that took.
pub(super) fn part(part: &str, what: &str, begun: Instant) -> Result<(), Failure> {
    let look = Look::of_stdout();
    let symbol = Tone::Good.paint(Tone::Good.symbol(look.unicode), look.colour);
    say(&format!("  {symbol} {part:<20} {what:<36} {:.1}s", begun.elapsed().as_secs_f64()))
}

/// Writes the context, and says what can be done next.
pub(super) fn ready(context: &Context, started: &Started, keys: Option<&str>) -> Result<(), Failure> {
    let home = Home::of_env()?;
    home.save(CONTEXT, context)?;
    if !home.has_current() {
        home.set_current(CONTEXT)?;
    }
    let program = program();
    let flag = if home.current().as_deref() == Some(CONTEXT) && env::var_os("MAINSTAY_CONTEXT").is_none() {
        ""
    } else {
        " --context dev"
    };
    say(&format!("http       http://{}/", started.http))?;
    for (at, verb) in TRY.into_iter().enumerate() {
        say(&format!("{:<10} {program}{flag} {verb}", if at == 0 { "try" } else { "" }))?;
    }
    if let Some(keys) = keys {
        say(&format!("keys       {keys}"))?;
    }
    say("ready")
}

/// How this program is called from a shell: by name where that finds it, else by its path.
fn program() -> String {
    let own = env::current_exe().unwrap_or_else(|_| "mainstay".into());
    let same = |folder: PathBuf| folder.join("mainstay").canonicalize().is_ok_and(|there| there == own);
    if env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(same)) {
        return "mainstay".into();
    }
    let here = env::current_dir().ok();
    let short = here.and_then(|here| own.strip_prefix(here).map(Path::to_owned).ok());
    short.map_or_else(|| own.display().to_string(), |short| short.display().to_string())
}
