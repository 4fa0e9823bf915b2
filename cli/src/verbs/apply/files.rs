//! Declarations as files have them. What the words in them mean, the coordinator decides: it may be newer.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use mainstay_common::{ExitCode, Failure, process::config, text::Shown};
use mainstay_proto::v1 as pb;
use serde::Deserialize;
use toml::Spanned;

/// More than anybody writes by hand, less than the coordinator takes.
const MAX_FILE_BYTES: u64 = 512 * 1024;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    receiver: Vec<Spanned<Receiver>>,
    #[serde(default)]
    route: Vec<Spanned<Route>>,
    #[serde(default)]
    rule: Vec<Spanned<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receiver {
    name: String,
    kind: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    url_file: String,
    #[serde(default)]
    allow_private_address: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    #[serde(default, rename = "match")]
    narrowed: BTreeMap<String, String>,
    receivers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    #[serde(default, rename = "match")]
    narrowed: BTreeMap<String, String>,
    warning: Option<String>,
    critical: Option<String>,
    hold: Option<String>,
    critical_hold: Option<String>,
    clear_margin: Option<String>,
    clear_hold: Option<String>,
}

/// Everything that these files and folders declare.
///
/// # Errors
/// Names file, line, and the nearest key.
pub(super) fn read(paths: &[PathBuf]) -> Result<pb::DeclareRequest, Failure> {
    let mut all = pb::DeclareRequest::default();
    for path in paths {
        if path.as_os_str() == "-" {
            add(&mut all, "standard input", &from_stdin()?)?;
            continue;
        }
        for file in files(path)? {
            let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, error.to_string()))?;
            add(&mut all, &shown(&file), &text)?;
        }
    }
    Ok(all)
}

fn shown(path: &Path) -> String {
    Shown::new(path.as_os_str().as_encoded_bytes()).to_string()
}

fn unreadable(path: &Path, why: String) -> Failure {
    Failure::new(ExitCode::Usage, format!("cannot read {}", shown(path)), why, "mainstay apply -f FILE|DIR")
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    let why = match read {
        Ok(bytes) if bytes as u64 <= MAX_FILE_BYTES => return Ok(text),
        Ok(_) => format!("it has more than {MAX_FILE_BYTES} bytes"),
        Err(error) => error.to_string(),
    };
    Err(unreadable(Path::new("standard input"), why))
}

/// The file itself, or every `*.toml` of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let told = fs::metadata(path).map_err(|error| unreadable(path, error.to_string()))?;
    if !told.is_dir() {
        return if told.len() <= MAX_FILE_BYTES {
            Ok(vec![path.to_owned()])
        } else {
            Err(unreadable(path, format!("it has more than {MAX_FILE_BYTES} bytes")))
        };
    }
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, error.to_string()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|ending| ending == "toml") && file.is_file())
        .collect();
    if found.is_empty() {
        return Err(unreadable(path, "there is no file in it that ends with .toml".into()));
    }
    found.sort();
    Ok(found)
}

fn add(all: &mut pb::DeclareRequest, name: &str, text: &str) -> Result<(), Failure> {
    let file: File = config::parse(text, name)?;
    let place = |at: usize| {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        Some(pb::Place { file: name.to_owned(), line: u32::try_from(line).unwrap_or(u32::MAX) })
    };
    for receiver in file.receiver {
        let place = place(receiver.span().start);
        let Receiver { name, kind, url, url_file, allow_private_address } = receiver.into_inner();
        all.receivers.push(pb::DeclaredReceiver { place, name, kind, url, url_file, allow_private_address });
    }
    for route in file.route {
        let place = place(route.span().start);
        let Route { narrowed, receivers } = route.into_inner();
        all.routes.push(pb::DeclaredRoute { place, r#match: narrowed.into_iter().collect(), receivers });
    }
    for rule in file.rule {
        let place = place(rule.span().start);
        let Rule { name, narrowed, warning, critical, hold, critical_hold, clear_margin, clear_hold } =
            rule.into_inner();
        let r#match = narrowed.into_iter().collect();
        all.rules.push(pb::DeclaredRule {
            place,
            name,
            r#match,
            warning,
            critical,
            hold,
            critical_hold,
            clear_margin,
            clear_hold,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
[[receiver]]
name = "ops"
kind = "webhook"
url = "https://chat.example/hook"

[[route]]
match = { severity = "critical", node = "db*" }
receivers = ["ops"]

[[rule]]
name = "fs.space"
match = { node = "db*", mount = "/data" }
warning = "10% and 100GiB"
hold = "10m"
"#;

    #[test]
    fn a_folder_is_read_in_the_order_of_names_and_places_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.toml"), SAMPLE).unwrap();
        fs::write(folder.path().join("a.toml"), "[[route]]\nreceivers = [\"ops\"]\n").unwrap();
        fs::write(folder.path().join("README.md"), "no TOML").unwrap();
        let all = read(&[folder.path().to_owned()]).unwrap();
        assert_eq!((all.receivers.len(), all.routes.len(), all.rules.len()), (1, 2, 1));
        assert!(all.routes[0].r#match.is_empty());
        let place = all.rules[0].place.clone().unwrap();
        assert!(place.file.ends_with("b.toml"), "{place:?}");
        assert_eq!((place.line, all.rules[0].warning.as_deref()), (11, Some("10% and 100GiB")));
        assert_eq!(all.rules[0].critical, None, "as the catalogue has it");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, what, why) in [
            ("[[recevier]]\nname = \"x\"\n", ":1: unknown key `recevier`", "nearest: `receiver`"),
            ("[[rule]]\nname = \"fs.space\"\nwarn = \"1%\"\n", ":3: unknown key `warn`", "nearest: `warning`"),
            ("[[route]]\nreceivers = \"ops\"\n", ":2: not understood", "invalid type"),
            ("[[receiver]]\nkind = \"webhook\"\n", ":1: not understood", "missing field `name`"),
            ("[[rule]\n", ":1: not understood", ""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("x.toml");
            fs::write(&file, text).unwrap();
            let failure = read(&[file]).unwrap_err();
            assert!(failure.what.contains(what) && failure.why.contains(why), "{failure}");
        }
    }

    #[test]
    fn an_empty_folder_and_a_missing_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&[folder.path().to_owned()]).unwrap_err().why.contains(".toml"));
        assert!(read(&[folder.path().join("no")]).unwrap_err().what.contains("cannot read"));
    }
}
