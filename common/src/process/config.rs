//! Configuration files: TOML whose keys are the flags' names, with errors that name file, line and nearest key.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::{ExitCode, Failure};

/// Reads a configuration file. The type should `deny_unknown_fields`.
///
/// # Errors
/// A usage failure that names the file, the line and, for an unknown key, the nearest valid one.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("cannot read {}", path.display()),
            error.to_string(),
            "check the path given by --config",
        )
    })?;
    parse(&text, &path.display().to_string())
}

/// Like [`load`], from a text; `name` is the file's name in errors.
///
/// # Errors
/// As for [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error| explain(text, name, &error))
}

fn explain(text: &str, name: &str, error: &toml::de::Error) -> Failure {
    let place = error.span().map_or_else(
        || name.to_owned(),
        |span| format!("{name}:{}", text.get(..span.start).unwrap_or_default().matches('\n').count() + 1),
    );
    let message = error.message();
    match unknown_key(message) {
        Some((key, known)) => {
            let nearest = nearest(key, known.iter().copied());
            let why = nearest
                .map_or_else(|| format!("valid keys: {}", known.join(", ")), |near| format!("nearest: `{near}`"));
            Failure::new(ExitCode::Usage, format!("{place}: unknown key `{key}`"), why, format!("correct {name}"))
        }
        None => Failure::new(
            ExitCode::Usage,
            format!("{place}: not understood"),
            message.trim().replace('\n', "; "),
            format!("correct {name}"),
        ),
    }
}

/// Takes serde's sentence apart: "unknown field `x`, expected one of `a`, `b`".
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let key = quoted.next()?;
    Some((key, quoted.collect()))
}

/// The candidate that is most like `word`, if one is much like it.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A slip of the finger is one change or two; a word half remembered begins alike.
    let likeness = |candidate: &str| {
        let changes = strsim::osa_distance(word, candidate);
        let slip = changes <= 1 + word.chars().count() / 6;
        let alike = strsim::jaro_winkler(word, candidate);
        (slip || alike > 0.75).then_some(if slip { 1.0 + alike } else { alike })
    };
    let likely = candidates.into_iter().filter_map(|candidate| Some((likeness(candidate)?, candidate)));
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its name matters")]
        data_dir: Option<String>,
        #[expect(dead_code, reason = "only its name matters")]
        interval: Option<u64>,
    }

    #[test]
    fn an_unknown_key_names_line_and_nearest() {
        let failure = parse::<Sample>("interval = 5\n\ndata-dri = \"/x\"\n", "agent.toml").unwrap_err();
        assert_eq!(failure.what, "agent.toml:3: unknown key `data-dri`");
        assert_eq!(failure.why, "nearest: `data-dir`");
    }

    #[test]
    fn a_slip_of_the_finger_is_near_and_another_word_is_not() {
        let near = |word| nearest(word, ["lab", "web-1", "retention"]);
        assert_eq!(near("lba"), Some("lab"));
        assert_eq!(near("web1"), Some("web-1"));
        assert_eq!(near("retenton"), Some("retention"));
        assert_eq!(near("mail"), None);
    }

    #[test]
    fn a_wrong_type_names_the_line() {
        let failure = parse::<Sample>("\ninterval = \"soon\"\n", "agent.toml").unwrap_err();
        assert_eq!(failure.what, "agent.toml:2: not understood");
        assert!(failure.why.contains("invalid type"), "{}", failure.why);
    }

    #[test]
    fn what_is_no_toml_says_where() {
        assert_eq!(parse::<Sample>("a = \n", "x.toml").unwrap_err().what, "x.toml:1: not understood");
    }
}
