//! Text that came from outside, and the only way to show it.

use std::fmt::{self, Write as _};

use unicode_width::UnicodeWidthChar as _;

/// An outside text made safe for a terminal, a log or a chat: control, bidirectional and zero-width characters become
/// visible escapes, bytes that are no UTF-8 become `\xNN`.
///
/// Terminals act on ESC, C1, CR and BEL; bidirectional overrides make a name read as another. No table or template
/// library removes them.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    text: &'a [u8],
    width: Option<usize>,
}

impl<'a> Shown<'a> {
    /// The whole text.
    #[must_use]
    pub fn new(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { text: text.as_ref(), width: None }
    }

    /// Cut to so many columns, with `…` where something is missing.
    #[must_use]
    pub fn cut(self, columns: usize) -> Self {
        Self { width: Some(columns), ..self }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whole = String::with_capacity(self.text.len());
        for chunk in self.text.utf8_chunks() {
            chunk.valid().chars().try_for_each(|c| escape(c, &mut whole))?;
            chunk.invalid().iter().try_for_each(|byte| write!(whole, "\\x{byte:02x}"))?;
        }
        match self.width {
            Some(columns) => f.pad(&cut(&whole, columns)),
            None => f.pad(&whole),
        }
    }
}

/// An outside text as JSON carries it: exact, with bytes that are no UTF-8 as `\xNN`.
#[must_use]
pub fn exact(text: &[u8]) -> String {
    let mut whole = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        whole.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            write!(whole, "\\x{byte:02x}").unwrap_or(());
        }
    }
    whole
}

/// Columns that a text takes on a terminal.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

fn escape(c: char, out: &mut String) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\\' => out.write_str("\\\\"),
        c if c.is_control() => write!(out, "\\x{:02x}", u32::from(c)),
        c if is_invisible(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// Characters that take no room or change the order of others: a name with them reads as another.
fn is_invisible(c: char) -> bool {
    let point = u32::from(c);
    matches!(point,
        0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F | 0x2028..=0x202E
        | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFFB | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut kept: String = text
        .chars()
        .take_while(|c| {
            let wide = c.width().unwrap_or(0);
            let fits = wide <= left;
            left = left.saturating_sub(wide);
            fits
        })
        .collect();
    if width > 0 {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_become_visible() {
        assert_eq!(Shown::new("\x1b[31mred\x07\r\n").to_string(), "\\x1b[31mred\\x07\\r\\n");
        assert_eq!(Shown::new("a\u{202e}b\u{200b}\u{9b}").to_string(), "a\\u{202e}b\\u{200b}\\x9b");
        assert_eq!(Shown::new(b"/mnt/\xff\xfe").to_string(), "/mnt/\\xff\\xfe");
        assert_eq!(exact(b"/mnt/a b\xff"), "/mnt/a b\\xff");
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(Shown::new("日本語テキスト").cut(7).to_string(), "日本語…");
        assert_eq!(Shown::new("short").cut(5).to_string(), "short");
        assert_eq!(Shown::new("longer").cut(0).to_string(), "");
    }

    proptest! {
        #[test]
        fn no_byte_of_any_text_reaches_the_terminal_as_control(text in proptest::collection::vec(any::<u8>(), 0..200), width in 0usize..40) {
            let shown = Shown::new(&text).to_string();
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert!(columns(&Shown::new(&text).cut(width).to_string()) <= width);
        }
    }
}
