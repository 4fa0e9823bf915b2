//! Standard output and standard error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write as _},
    process,
};

use mainstay_common::{ExitCode, Failure};
use serde::Serialize;

use super::{json, look::Look, style::Tone};

/// Writes to standard output. A reader that went away (`| head`) wants no more: the program ends, quietly.
///
/// # Errors
/// Where it cannot be written for another reason.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => process::exit(0),
        Err(error) => {
            Err(Failure::new(ExitCode::Failed, "cannot print", error.to_string(), "look at where standard output goes"))
        }
    }
}

/// Says something besides the data, on standard error.
pub(crate) fn remark(text: &(impl Display + ?Sized)) {
    // Without a standard error there is nobody to tell.
    writeln!(io::stderr(), "{text}").unwrap_or(());
}

/// Tells why it did not work: three lines, or one JSON object.
pub(crate) fn complain(failure: &Failure, as_json: bool) {
    remark(complaint(failure, as_json, &Look::of_stderr()).trim_end());
}

fn complaint(failure: &Failure, as_json: bool, look: &Look) -> String {
    if as_json {
        let error = ErrorObject {
            code: failure.code.number(),
            what: &failure.what,
            why: &failure.why,
            try_next: &failure.try_next,
        };
        return json::line(&Complaint { error }).unwrap_or_default();
    }
    format!("{} {failure}", Tone::Bad.paint("error:", look.colour))
}

#[derive(Serialize)]
struct Complaint<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: u8,
    what: &'a str,
    why: &'a str,
    #[serde(rename = "try")]
    try_next: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_three_lines_or_one_object() {
        let failure =
            Failure::new(ExitCode::Unreachable, "cannot reach the coordinator", "h:1: connection refused", "");
        let failure = Failure { try_next: "mainstay context ls".into(), ..failure };
        let look = Look { size: None, colour: false, unicode: true };
        insta::assert_snapshot!(complaint(&failure, false, &look), @r"
        error: cannot reach the coordinator
          why: h:1: connection refused
          try: mainstay context ls
        ");
        insta::assert_snapshot!(complaint(&failure, true, &look), @r#"{"error":{"code":3,"what":"cannot reach the coordinator","why":"h:1: connection refused","try":"mainstay context ls"}}"#);
        assert!(complaint(&failure, false, &Look { colour: true, ..look }).starts_with("\u{1b}[31merror:\u{1b}[0m "));
    }
}
