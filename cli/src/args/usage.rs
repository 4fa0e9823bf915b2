//! What is wrong with a command line, in three lines as every other failure.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use mainstay_common::{ExitCode, Failure, text::Shown};

/// From clap's error. Its own first line says what; valid values and near ones say why.
pub(crate) fn failure(error: &Error) -> Failure {
    let command = command(error);
    let help = format!("{command} --help");
    if error.kind() == ErrorKind::MissingSubcommand {
        let verbs = list(error, ContextKind::ValidSubcommand);
        return Failure::new(
            ExitCode::Usage,
            format!("{command} needs a verb"),
            format!("there are: {}", verbs.join(", ")),
            help,
        );
    }
    Failure::new(ExitCode::Usage, what(error), why(error, &command), help)
}

/// True where the command line asks for JSON, also when it cannot be understood.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
        || words.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
}

fn what(error: &Error) -> String {
    let whole = error.render().to_string();
    let first = whole.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first).trim_end_matches(':');
    // clap ends this sentence with the list that is the reason here.
    Shown::new(first.strip_suffix(" were not provided").map_or(first, |_| "something is missing")).cut(200).to_string()
}

fn why(error: &Error, command: &str) -> String {
    let nearest = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let near: Vec<String> = nearest.into_iter().flat_map(|kind| list(error, kind)).collect();
    let valid: Vec<String> = [ContextKind::ValidValue, ContextKind::ValidSubcommand]
        .into_iter()
        .flat_map(|kind| list(error, kind))
        .filter(|value| !value.is_empty())
        .collect();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of clap's kinds is open")]
    let reason = match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            format!("it needs {}", list(error, ContextKind::InvalidArg).join(" and "))
        }
        ErrorKind::ArgumentConflict => {
            let other: Vec<String> = list(error, ContextKind::PriorArg);
            format!("it does not go with {}", other.join(", "))
        }
        _ if !near.is_empty() && !valid.is_empty() => {
            format!("nearest: {}; valid: {}", near.join(", "), valid.join(", "))
        }
        _ if !near.is_empty() => format!("nearest: {}", near.join(", ")),
        _ if !valid.is_empty() => format!("valid: {}", valid.join(", ")),
        _ => match std::error::Error::source(error) {
            Some(source) => source.to_string(),
            None => format!("{command} takes no such thing"),
        },
    };
    Shown::new(&reason.replace('\n', "; ")).cut(400).to_string()
}

fn list(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(many)) => many.clone(),
        _ => Vec::new(),
    }
}

/// The command that was called, without its arguments: from clap's "Usage: mainstay node ls [OPTIONS]".
fn command(error: &Error) -> String {
    let whole = error.render().to_string();
    let usage = whole.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).unwrap_or("mainstay");
    let is_word = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    usage.split(' ').take_while(is_word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn usage_errors_are_three_lines() {
        let lines = [
            "mainstay",
            "mainstay node",
            "mainstay nod ls",
            "mainstay zzz",
            "mainstay node ls --sotr name",
            "mainstay node ls --sort nmae",
            "mainstay node ls --sort",
            "mainstay node ls extra",
            "mainstay disk ls -o xml",
            "mainstay user add eve",
            "mainstay token create --ttl soon",
            "mainstay token create --uses none",
            "mainstay disk show",
            "mainstay dev --interval 1ms",
            "mainstay completions tcsh",
            "mainstay node ls --\u{1b}[31m",
        ];
        let told: String = lines
            .map(|line| {
                let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
                let failure = failure(&error);
                assert_eq!(failure.code, ExitCode::Usage);
                let text = failure.to_string();
                assert_eq!(text.lines().count(), 3, "{text}");
                format!("$ {}\n{text}\n", Shown::new(line))
            })
            .concat();
        insta::assert_snapshot!(told);
    }

    #[test]
    fn json_is_asked_for_in_many_ways() {
        let asks = |line: &str| asks_for_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["x -o json", "x -ojson", "x -o=json", "x --output json", "x --output=json y"] {
            assert!(asks(line), "{line}");
        }
        assert!(!asks("x -o yaml json") && !asks("x json"));
    }
}
