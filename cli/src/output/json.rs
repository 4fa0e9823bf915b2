//! JSON and YAML for scripts.

use std::fmt::Write as _;

use mainstay_common::{ExitCode, Failure, text::Shown};
use serde::Serialize;

/// JSON for people who look at it too: indented.
///
/// # Errors
/// Where a value cannot be JSON.
pub(crate) fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| visible(&text, escape) + "\n").map_err(|error| cannot(&error))
}

/// One line of JSON.
///
/// # Errors
/// Where a value cannot be JSON.
pub(crate) fn line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(|text| visible(&text, escape) + "\n").map_err(|error| cannot(&error))
}

/// YAML. Its plain style cannot escape what hides; where a text does, the whole is written in JSON's style, which is
/// YAML too and can.
///
/// # Errors
/// Where a value cannot be YAML.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    let plain = serde_yaml_ng::to_string(value).map_err(|error| cannot(&error))?;
    if !plain.chars().any(|c| c != '\n' && hides(c)) {
        return Ok(plain);
    }
    let flow = serde_json::to_string_pretty(value).map_err(|error| cannot(&error))?;
    Ok(visible(&flow, |c, whole| write!(whole, "\\U{:08x}", u32::from(c)).unwrap_or(())) + "\n")
}

fn cannot(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Failed, "cannot print", error.to_string(), "report this; -o table may work")
}

/// Writes characters that a terminal acts on, or that hide, as escapes: the text stays exact. Beyond ASCII JSON has
/// nothing but strings, and serde escaped the rest.
fn visible(json: &str, escape: impl Fn(char, &mut String)) -> String {
    if !json.chars().any(hides) {
        return json.to_owned();
    }
    let mut whole = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if hides(c) { escape(c, &mut whole) } else { whole.push(c) }
    }
    whole
}

/// JSON's own escape.
fn escape(c: char, whole: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        write!(whole, "\\u{unit:04x}").unwrap_or(());
    }
}

fn hides(c: char) -> bool {
    c == '\u{7f}' || (!c.is_ascii() && hidden(c))
}

fn hidden(c: char) -> bool {
    let mut buffer = [0; 4];
    let text = c.encode_utf8(&mut buffer);
    Shown::new(text).to_string() != *text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn json_is_exact_and_shows_no_control_character(text in any::<String>()) {
            let json = line(&text).unwrap();
            let (last, rest) = (json.chars().last(), &json[..json.len() - 1]);
            prop_assert_eq!(last, Some('\n'));
            prop_assert!(!rest.chars().any(|c| c.is_control() || (!c.is_ascii() && hidden(c))));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn yaml_is_plain_where_nothing_hides_and_escaped_where_something_does() {
        assert_eq!(yaml(&["web", "db"]).unwrap(), "- web\n- db\n");
        let hostile = ["a\u{202e}b\u{e0041}", "\u{1b}[31m"];
        let told = yaml(&hostile).unwrap();
        assert!(told.is_ascii() && !told.contains('\u{1b}'), "{told}");
        assert_eq!(serde_yaml_ng::from_str::<Vec<String>>(&told).unwrap(), hostile);
    }

    #[test]
    fn a_name_that_turns_the_line_around_is_seen() {
        assert_eq!(line(&"a\u{202e}b\u{e0041}\u{7f}").unwrap(), "\"a\\u202eb\\udb40\\udc41\\u007f\"\n");
    }
}
