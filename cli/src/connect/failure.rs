//! From gRPC's codes to what a person is told and the program's exit code: the one place that knows both.

use std::time::Duration;

use mainstay_common::{
    ExitCode, Failure, Timestamp,
    identity::HumanRole,
    process::{
        context::Context,
        tls::{self, Certificate, Verdict},
    },
    text::Shown,
    time::span,
};
use tonic::{Code, Status};

/// Whether a lost answer leaves a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It only looks: asking again is free.
    Looks,
    /// It changes something; the text says how to find out whether it did.
    Changes(&'static str),
    /// The same, with a secret that this process made and that ends with it: the text says what to do about that.
    Hides(&'static str),
}

/// What a call was answered with, other than success.
pub(crate) fn from_status(status: &Status, call: Call) -> Failure {
    let lines: Vec<String> = status.message().lines().map(|line| Shown::new(line).cut(400).to_string()).collect();
    // Only the coordinator writes three lines; whatever else there is comes from the connection.
    let [what, why, try_next] = &lines[..] else { return from_elsewhere(status, call, &lines.join("; ")) };
    Failure::new(exit_code(status.code()), what, why, try_next)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other code is a plain failure")]
fn exit_code(code: Code) -> ExitCode {
    match code {
        Code::InvalidArgument => ExitCode::Usage,
        Code::Unavailable | Code::DeadlineExceeded => ExitCode::Unreachable,
        Code::PermissionDenied | Code::Unauthenticated => ExitCode::Denied,
        Code::Unknown => ExitCode::Unknown,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => ExitCode::Conflict,
        _ => ExitCode::Failed,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other code means that the answer got lost")]
fn from_elsewhere(status: &Status, call: Call, words: &str) -> Failure {
    let words = if words.is_empty() { "it did not say why" } else { words };
    match status.code() {
        Code::Unimplemented => Failure::new(
            ExitCode::Failed,
            "the coordinator does not know this",
            words,
            "it is older than this command line: upgrade it, or use the version of both that fits",
        ),
        Code::OutOfRange | Code::ResourceExhausted => {
            Failure::new(ExitCode::Failed, "the answer is too large", words, "ask for less: --node NAME")
        }
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::NotFound => {
            Failure::new(exit_code(status.code()), "the coordinator refused", words, "mainstay status")
        }
        _ => lost(call, words),
    }
}

/// No answer came.
pub(crate) fn lost(call: Call, why: &str) -> Failure {
    match call {
        Call::Looks => Failure::new(
            ExitCode::Unreachable,
            "the coordinator did not answer",
            why,
            "try again; or: mainstay context ls",
        ),
        Call::Changes(_) | Call::Hides(_) => Failure::new(
            ExitCode::Unknown,
            "nobody knows yet whether it was done",
            format!("the connection ended before the answer: {why}"),
            tells(call),
        ),
    }
}

/// How to find out what came of it.
fn tells(call: Call) -> String {
    match call {
        Call::Looks => "try again".into(),
        Call::Changes(find_out) => format!("{find_out} tells"),
        Call::Hides(what_to_do) => what_to_do.into(),
    }
}

/// Whoever leads was asked again, and nobody could say what came of it.
pub(crate) fn unresolved(doubt: Failure, call: Call, name: Option<&str>, after: Duration) -> Failure {
    let again = match (call, name) {
        (Call::Changes(find_out), Some(name)) => {
            format!("{find_out} tells; the same command with --request {name} does it once, whatever came of this one")
        }
        (Call::Looks | Call::Changes(_) | Call::Hides(_), _) => tells(call),
    };
    Failure::new(
        ExitCode::Unknown,
        "nobody knows yet whether it was done",
        format!("{}; whoever might lead was asked again for {}s", doubt.why, after.as_secs()),
        again,
    )
}

/// The coordinator refused the certificate itself, which in TLS 1.3 shows at the first call.
pub(crate) fn certificate_refused(
    status: &Status,
    verdict: &Verdict,
    context: &Context,
    now: Timestamp,
) -> Option<Failure> {
    let mut words = verdict.words().or_else(|| tls::explain(status))?;
    if verdict.is_out_of_date() && words.contains("another cluster") {
        words.push_str(", or of a CA that was rotated out while nobody used this context");
    }
    let dates = Certificate::from_pem(&context.certificate).map_or_else(
        |error| error.to_string(),
        |read| format!("it counts from {} to {}; this machine's clock says {now}", read.not_before, read.not_after),
    );
    Some(Failure::new(
        ExitCode::Denied,
        format!("the coordinator does not take {}'s certificate", context.user),
        format!("{words}; {dates}"),
        renewed_by(context),
    ))
}

/// Whether the certificate of a context counts now, by this machine's clock.
///
/// # Errors
/// For how long it does not, and what to do.
pub(crate) fn check_dates(context: &Context, now: Timestamp) -> Result<Certificate, Failure> {
    let certificate = Certificate::from_pem(&context.certificate).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("the certificate of {} in cluster {} is damaged", context.user, Shown::new(&context.cluster)),
            error.to_string(),
            renewed_by(context),
        )
    })?;
    let whose = format!("cluster {} issued it to {} ({})", Shown::new(&context.cluster), context.user, context.role);
    if now > certificate.not_after {
        return Err(Failure::new(
            ExitCode::Denied,
            format!("the certificate expired {} ago", span(now.since(certificate.not_after))),
            format!("{whose} until {}; it is renewed in use only", certificate.not_after),
            renewed_by(context),
        ));
    }
    if now < certificate.not_before {
        return Err(Failure::new(
            ExitCode::Denied,
            format!("the certificate is not valid for another {}", span(certificate.not_before.since(now))),
            format!(
                "{whose} from {} by the coordinator's clock; this machine's clock says {now}",
                certificate.not_before
            ),
            "set this machine's clock right; if it is right, set the coordinator's",
        ));
    }
    Ok(certificate)
}

fn renewed_by(context: &Context) -> String {
    match context.role {
        HumanRole::Admin => "on the coordinator's machine, as root: mainstay-coordinator admin --data-dir DIR --out \
                             FILE; then: mainstay context use FILE"
            .to_owned(),
        HumanRole::Viewer | HumanRole::Operator => format!(
            "ask an administrator: mainstay user revoke {user}, then mainstay user add {user} --role {} --out FILE",
            context.role,
            user = context.user
        ),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_common::process::tls::new_key;
    use rcgen::{CertificateParams, SanType};

    use super::*;

    /// 2027-01-15 08:00 UTC.
    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const HOUR: i64 = 3_600_000;

    #[test]
    fn the_coordinators_three_lines_and_its_code_decide() {
        let told = |code| {
            from_status(&Status::new(code, "node \"n17\" is unknown\nnearest: n7\nmainstay node ls"), Call::Looks)
        };
        insta::assert_snapshot!(told(Code::NotFound), @r#"
        node "n17" is unknown
          why: nearest: n7
          try: mainstay node ls
        "#);
        for (code, exit) in [
            (Code::NotFound, 1),
            (Code::InvalidArgument, 2),
            (Code::Unavailable, 3),
            (Code::PermissionDenied, 4),
            (Code::Unauthenticated, 4),
            (Code::FailedPrecondition, 5),
            (Code::AlreadyExists, 5),
            (Code::ResourceExhausted, 1),
            (Code::Internal, 1),
        ] {
            assert_eq!(told(code).code.number(), exit, "{code:?}");
        }
    }

    #[test]
    fn a_lost_answer_is_a_doubt_only_where_something_may_have_changed() {
        let lost = Status::unknown("transport error");
        assert_eq!(from_status(&lost, Call::Looks).code, ExitCode::Unreachable);
        insta::assert_snapshot!(from_status(&lost, Call::Changes("mainstay node ls")), @r"
        nobody knows yet whether it was done
          why: the connection ended before the answer: transport error
          try: mainstay node ls tells
        ");
        let doubt = || from_status(&lost, Call::Changes("mainstay node ls"));
        let after = Duration::from_secs(20);
        insta::assert_snapshot!(unresolved(doubt(), Call::Changes("mainstay node ls"), Some("q1"), after), @r"
        nobody knows yet whether it was done
          why: the connection ended before the answer: transport error; whoever might lead was asked again for 20s
          try: mainstay node ls tells; the same command with --request q1 does it once, whatever came of this one
        ");
        let hidden = unresolved(doubt(), Call::Hides("revoke it"), Some("q1"), after);
        assert_eq!((hidden.code, hidden.try_next.as_str()), (ExitCode::Unknown, "revoke it"));
        assert_eq!(from_status(&lost, Call::Changes("x")).code, ExitCode::Unknown);
    }

    #[test]
    fn what_the_coordinator_says_cannot_reach_the_terminal_raw() {
        let hostile = Status::not_found("node \u{1b}[2J is unknown\nwhy\u{202e}\ntry\r");
        let told = from_status(&hostile, Call::Looks).to_string();
        assert!(!told.chars().any(|c| c.is_control() && c != '\n') && !told.contains('\u{202e}'), "{told:?}");
    }

    #[test]
    fn an_expired_certificate_says_for_how_long_and_what_to_do() {
        let context = context(HumanRole::Admin, -200 * HOUR, -3 * HOUR);
        insta::assert_snapshot!(check_dates(&context, NOW).unwrap_err(), @r"
        the certificate expired 3h ago
          why: cluster prod issued it to anna (admin) until 2027-01-15T05:00:00.000Z; it is renewed in use only
          try: on the coordinator's machine, as root: mainstay-coordinator admin --data-dir DIR --out FILE; then: mainstay context use FILE
        ");
        let viewer = Context { role: HumanRole::Viewer, ..context };
        assert!(check_dates(&viewer, NOW).unwrap_err().try_next.contains("mainstay user add anna --role viewer"));
    }

    #[test]
    fn a_certificate_of_the_future_names_both_clocks() {
        let early = check_dates(&context(HumanRole::Viewer, HOUR, 100 * HOUR), NOW).unwrap_err();
        insta::assert_snapshot!(early, @r"
        the certificate is not valid for another 1h
          why: cluster prod issued it to anna (viewer) from 2027-01-15T09:00:00.000Z by the coordinator's clock; this machine's clock says 2027-01-15T08:00:00.000Z
          try: set this machine's clock right; if it is right, set the coordinator's
        ");
        assert_eq!(early.code, ExitCode::Denied);
        assert!(check_dates(&context(HumanRole::Viewer, -HOUR, HOUR), NOW).is_ok());
    }

    /// A context whose certificate counts between two moments, relative to now.
    fn context(role: HumanRole, from_ms: i64, to_ms: i64) -> Context {
        let key = new_key();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://c1/{role}/anna").try_into().unwrap())];
        let at = |ms: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(u64::try_from(NOW.0 + ms).unwrap());
        (params.not_before, params.not_after) = (at(from_ms), at(to_ms));
        Context {
            cluster: "prod".into(),
            cluster_id: "c1".parse().unwrap(),
            addresses: vec!["127.0.0.1:7443".into()],
            user: "anna".parse().unwrap(),
            role,
            ca: String::new(),
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}
