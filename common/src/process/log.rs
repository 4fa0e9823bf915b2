//! Logs on stderr: text on a terminal, JSON lines otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON lines otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Starts logging; the level comes from `RUST_LOG` (default `info`). A second call changes nothing.
pub fn start(format: LogFormat) {
    start_at(format, "info");
}

/// Like [`start`], with another level than `info` where `RUST_LOG` says nothing.
pub fn start_at(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal();
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // An error means that logging was started before: tests do that.
    if json {
        builder.json().flatten_event(true).with_current_span(false).try_init().unwrap_or(());
    } else {
        builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).try_init().unwrap_or(());
    }
}
