//! How good a state is: its symbol, its colour, its place in a list.

use anstyle::{AnsiColor, Effects, Style};

/// How good or bad a state is, worst first. Never told by colour alone: a symbol and a word go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tone {
    /// Something is wrong.
    Bad,
    /// Worth a look.
    Warning,
    /// No reading.
    Unknown,
    /// On its way.
    Busy,
    /// As it should be.
    Good,
    /// Not at work, and nobody expects it.
    Idle,
}

impl Tone {
    /// Its symbol, one column wide.
    pub(crate) fn symbol(self, unicode: bool) -> &'static str {
        match (self, unicode) {
            (Self::Bad, true) => "✖",
            (Self::Bad, false) => "x",
            (Self::Warning, true) => "▲",
            (Self::Warning, false) => "!",
            (Self::Unknown, _) => "?",
            (Self::Busy | Self::Idle, true) => "◌",
            (Self::Busy | Self::Idle, false) => "~",
            (Self::Good, true) => "●",
            (Self::Good, false) => "*",
        }
    }

    /// Of the 16 colours, those that can be read on any background.
    fn style(self) -> Style {
        match self {
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Busy => AnsiColor::Cyan.on_default(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Unknown | Self::Idle => Style::new().effects(Effects::DIMMED),
        }
    }

    /// The text in its colour.
    pub(crate) fn paint(self, text: &str, colour: bool) -> String {
        painted(text, self.style(), colour)
    }
}

/// A title or a heading.
pub(crate) fn bold(text: &str, colour: bool) -> String {
    painted(text, Style::new().effects(Effects::BOLD), colour)
}

/// What matters less.
pub(crate) fn dim(text: &str, colour: bool) -> String {
    painted(text, Style::new().effects(Effects::DIMMED), colour)
}

fn painted(text: &str, style: Style, colour: bool) -> String {
    if colour && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
}
