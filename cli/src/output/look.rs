//! What the reader's terminal can take: width, colours, symbols.

use std::{env, io::IsTerminal, os::fd::AsFd};

use rustix::termios::tcgetwinsize;

/// Columns and lines of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) lines: usize,
}

/// How output may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// `None` where there is no terminal: nothing is cut or left out there.
    pub(crate) size: Option<Size>,
    pub(crate) colour: bool,
    /// Symbols beyond ASCII can be shown.
    pub(crate) unicode: bool,
}

impl Look {
    /// What standard output can take.
    pub(crate) fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// What standard error can take.
    pub(crate) fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        let terminal = stream.is_terminal();
        let variable = |name: &str| env::var(name).unwrap_or_default();
        Self {
            size: terminal.then(|| size(stream)),
            // NO_COLOR counts when it is not empty: https://no-color.org
            colour: terminal && variable("NO_COLOR").is_empty() && variable("TERM") != "dumb",
            unicode: is_utf8(&["LC_ALL", "LC_CTYPE", "LANG"].map(variable)),
        }
    }

    /// Columns that a line may have.
    pub(crate) fn columns(&self) -> Option<usize> {
        self.size.map(|size| size.columns)
    }
}

fn size(stream: &impl AsFd) -> Size {
    let told = tcgetwinsize(stream).ok().filter(|told| told.ws_col > 0 && told.ws_row > 0);
    told.map_or(Size { columns: 80, lines: 24 }, |told| Size { columns: told.ws_col.into(), lines: told.ws_row.into() })
}

/// The first variable that is set decides, as in POSIX.
fn is_utf8(locale: &[String]) -> bool {
    let decides = locale.iter().find(|value| !value.is_empty());
    decides.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        let of = |all: &str, ctype: &str, lang: &str| is_utf8(&[all.into(), ctype.into(), lang.into()]);
        assert!(of("", "", "de_DE.UTF-8") && of("C.utf8", "", "C"));
        assert!(!of("C", "", "de_DE.UTF-8") && !of("", "", "") && !of("", "POSIX", "C.UTF-8"));
    }
}
