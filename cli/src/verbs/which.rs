//! One of the things on nodes, by the names that listings show.

use std::os::unix::ffi::OsStrExt as _;

use mainstay_common::{ExitCode, Failure, Timestamp, process::now, text::Shown};
use mainstay_proto::v1 as pb;

use crate::{
    args::{Global, Which},
    connect::Session,
    output::{
        Format,
        cell::Cell,
        json,
        listing::unknown,
        look::Look,
        out,
        row::Row,
        sheet::{Sheet, Whole},
    },
};

/// A node, where one was named, and the name of a thing on it.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    node: String,
    name: Vec<u8>,
}

impl Which {
    /// `NODE NAME`, `NODE/NAME`, or `NAME` with or without `--node`. No node's name has a slash in it, and a mount's
    /// begins with one.
    fn wanted(&self) -> Wanted {
        let words: Vec<&[u8]> = self.which.iter().map(|word| word.as_bytes()).collect();
        let node = self.node.clone().unwrap_or_default();
        match words[..] {
            [node, name, ..] => Wanted { node: String::from_utf8_lossy(node).into_owned(), name: name.to_vec() },
            [word] => match word.iter().position(|byte| *byte == b'/') {
                Some(at) if at > 0 && node.is_empty() => {
                    Wanted { node: String::from_utf8_lossy(&word[..at]).into_owned(), name: word[at + 1..].to_vec() }
                }
                _ => Wanted { node, name: word.to_vec() },
            },
            [] => Wanted { node, name: Vec::new() },
        }
    }
}

/// Shows one row with everything known about it. `fetch` gets rows and their detail for a request.
///
/// # Errors
/// Where no row has the name, or several have it.
pub(super) async fn show<R: Row>(
    noun: &str,
    which: &Which,
    global: &Global,
    session: &mut Session,
    mut fetch: impl AsyncFnMut(&mut Session, pb::ListRequest) -> Result<Vec<(R, Option<pb::Detail>)>, Failure>,
    title: impl Fn(&R, Timestamp) -> (Vec<Cell>, &'static [&'static str]),
) -> Result<(), Failure> {
    let Wanted { node, name } = which.wanted();
    let ask = |name: &[u8]| pb::ListRequest { node: node.clone(), detail: true, name: name.to_vec() };
    let mut found = fetch(session, ask(&name)).await?;
    // A name copied from a table may be the escaped form of another.
    if found.is_empty() && name.contains(&b'\\') {
        found = fetch(session, ask(&unescape(&name))).await?;
    }
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|(row, _)| row.name()).collect();
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{} nodes have a {noun} \"{}\"", found.len(), Shown::new(&name)),
            names.join(", "),
            format!("mainstay {noun} show {}", names[0]),
        ));
    }
    let Some((row, detail)) = found.pop() else {
        let all = fetch(session, pb::ListRequest { detail: false, name: Vec::new(), ..ask(&name) }).await?;
        let names: Vec<String> = all.iter().map(|(row, _)| row.name()).collect();
        let asked =
            if node.is_empty() { Shown::new(&name).to_string() } else { format!("{node}/{}", Shown::new(&name)) };
        return Err(unknown(noun, &asked, &names));
    };
    let detail = detail.unwrap_or_default();
    let whole = Whole { row: &row, readings: &detail.readings, notes: &detail.notes };
    let text = match global.output {
        Format::Json => json::pretty(&whole)?,
        Format::Yaml => json::yaml(&whole)?,
        Format::Name => row.name() + "\n",
        Format::Table | Format::Wide => {
            let (look, now) = (Look::of_stdout(), now());
            let (cells, without) = title(&row, now);
            Sheet::new(cells).row(&row, without, now).detail(&detail).text(&look)
        }
    };
    out::say(&text)
}

/// Undoes what [`Shown`] did: `\xNN`, `\u{N}`, `\n`, `\r`, `\t`, `\\`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let (bytes, used) = if *first == b'\\' { escaped(after) } else { None }.unwrap_or((vec![*first], 0));
        whole.extend(bytes);
        rest = &after[used..];
    }
    whole
}

/// What an escape stands for, and how many bytes follow its backslash.
fn escaped(after: &[u8]) -> Option<(Vec<u8>, usize)> {
    let hex = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    match after.first()? {
        b'n' => Some((vec![b'\n'], 1)),
        b'r' => Some((vec![b'\r'], 1)),
        b't' => Some((vec![b'\t'], 1)),
        b'\\' => Some((vec![b'\\'], 1)),
        b'x' => {
            let value = hex(after.get(1..3)?)?;
            // C1 controls are characters, all else of that form is bytes that are no UTF-8.
            let control = char::from_u32(value).filter(|c| c.is_control());
            let bytes = control.map_or_else(
                || u8::try_from(value).ok().map(|byte| vec![byte]),
                |c| Some(c.to_string().into_bytes()),
            )?;
            Some((bytes, 3))
        }
        b'u' => {
            let end = after.iter().position(|byte| *byte == b'}')?;
            let c = char::from_u32(hex(after.get(2..end)?)?)?;
            Some((c.to_string().into_bytes(), end + 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_or_two_name_a_thing() {
        let wanted = |words: &[&str], node: Option<&str>| {
            let which = Which { which: words.iter().map(Into::into).collect(), node: node.map(str::to_owned) };
            let Wanted { node, name } = which.wanted();
            (node, String::from_utf8(name).unwrap())
        };
        let pair = |node: &str, name: &str| (node.to_owned(), name.to_owned());
        assert_eq!(wanted(&["n1", "/data"], None), pair("n1", "/data"));
        assert_eq!(wanted(&["n1//data"], None), pair("n1", "/data"));
        assert_eq!(wanted(&["n1/pgdata"], None), pair("n1", "pgdata"));
        assert_eq!(wanted(&["/data"], None), pair("", "/data"));
        assert_eq!(wanted(&["/data"], Some("n1")), pair("n1", "/data"));
        assert_eq!(wanted(&["pgdata"], None), pair("", "pgdata"));
    }

    #[test]
    fn a_name_copied_from_a_table_finds_its_row() {
        for name in
            [&b"/mnt/a b"[..], b"/mnt/\xff\xfe", b"/mnt/\n\t\\", "/mnt/\u{202e}x\u{9b}".as_bytes(), b"/mnt/\x1b[2J"]
        {
            assert_eq!(unescape(Shown::new(name).to_string().as_bytes()), name, "{}", Shown::new(name));
        }
        assert_eq!(unescape(b"a\\q\\x"), b"a\\q\\x");
    }
}
