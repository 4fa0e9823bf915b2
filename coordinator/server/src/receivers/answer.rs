//! What an attempt came to, and how an http answer is read.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header, response::Parts};
use mainstay_common::{Timestamp, text::Shown};

use super::Target;

/// The longest time that a receiver may ask us to wait.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What an attempt came to. Reasons name a scheme, a host and a port, never a path, a query or anything the receiver
/// wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver has it.
    Delivered {
        /// Its 2xx.
        status: u16,
    },
    /// The same message may be taken later.
    TryAgain {
        /// Why not now.
        reason: String,
        /// How long the receiver asked us to wait; at most [`RETRY_AFTER_MAX`].
        retry_after: Option<Duration>,
    },
    /// Somebody must change something first.
    GiveUp {
        /// Why.
        reason: String,
    },
}

impl Answer {
    /// There was no answer; the same message may be taken later.
    pub(super) fn none(reason: impl Into<String>) -> Self {
        Self::TryAgain { reason: reason.into(), retry_after: None }
    }

    /// Reads an http answer: any 2xx is delivered; 408, 425, 429 and 5xx are tried again; everything else gives up,
    /// redirects too, since they could lead anywhere.
    pub(super) fn of(target: &Target, head: &Parts, now: Timestamp) -> Self {
        let status = head.status;
        match status.as_u16() {
            200..=299 => Self::Delivered { status: status.as_u16() },
            408 | 425 | 429 | 500..=599 => Self::TryAgain {
                reason: format!("{target} answers {}", words(status)),
                retry_after: retry_after(&head.headers, now),
            },
            300..=399 => Self::GiveUp { reason: redirect(target, head) },
            _ => Self::GiveUp { reason: format!("{target} answers {}{}", words(status), advice(status)) },
        }
    }
}

/// The code and its registered phrase: the receiver's own phrase is text from outside.
fn words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(phrase) => format!("{} {phrase}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => ": it does not accept this URL's secret",
        404 | 410 => ": there is no webhook at this URL, or no longer",
        405 => ": it does not take a POST",
        413 => ": it does not take a message this long",
        415 => ": it does not take JSON",
        _ => "",
    }
}

fn redirect(target: &Target, head: &Parts) -> String {
    let location = head.headers.get(header::LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()));
    let to = match location.as_deref().map(|location| target.place_of(location)) {
        None => String::new(),
        Some(None) => ", to no web address".into(),
        Some(Some(place)) => format!(", to {}", Shown::new(&place.to_string()).cut(100)),
    };
    format!(
        "{target} answers {}{to}: redirects are not followed, so declare the URL that takes the message",
        words(head.status)
    )
}

/// Seconds or an HTTP date (RFC 9110, section 10.2.3); a date that passed is no wait.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long time too.
        return Some(text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs).min(RETRY_AFTER_MAX));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp(0).plus(date).since(now).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Timestamp = Timestamp(784_111_777_000);

    #[test]
    fn codes_are_sorted_into_three() {
        for code in 100..=599 {
            let expected = match code {
                200..=299 => "delivered",
                408 | 425 | 429 | 500..=599 => "again",
                _ => "give up",
            };
            let found = match of(code, &[]) {
                Answer::Delivered { status } if status == code => "delivered",
                Answer::TryAgain { retry_after: None, .. } => "again",
                Answer::GiveUp { .. } => "give up",
                Answer::Delivered { .. } | Answer::TryAgain { .. } => "wrong",
            };
            assert_eq!(found, expected, "{code}");
        }
    }

    #[test]
    fn waits_are_read_in_both_forms() {
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("3600", Some(3_600)),
            ("3601", Some(3_600)),
            ("99999999999999999999999", Some(3_600)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Sunday, 06-Nov-94 08:51:37 GMT", Some(120)),
            ("Sun Nov  6 08:51:37 1994", Some(120)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3_600)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 25:00:00 GMT", None),
            ("\u{661}", None),
        ] {
            for code in [429, 503] {
                let Answer::TryAgain { retry_after, .. } = of(code, &[("retry-after", text)]) else { panic!("{code}") };
                assert_eq!(retry_after, seconds.map(Duration::from_secs), "{text:?}");
            }
        }
    }

    #[test]
    fn a_redirect_tells_where_to_but_no_path() {
        for (location, shown) in [
            ("http://10.0.0.1/s3cret", "302 Found, to http://10.0.0.1: redirects"),
            ("/login?s3cret", "302 Found, to https://chat.example: redirects"),
            ("data:s3cret", "302 Found, to no web address: redirects"),
        ] {
            let Answer::GiveUp { reason } = of(302, &[("location", location)]) else { panic!("{location}") };
            assert!(reason.contains(shown) && !reason.contains("s3cret"), "{reason}");
        }
        let Answer::GiveUp { reason } = of(304, &[]) else { panic!("304") };
        assert!(reason.starts_with("https://chat.example answers 304 Not Modified: redirects"), "{reason}");
    }

    fn of(code: u16, headers: &[(&'static str, &str)]) -> Answer {
        let target = Target::parse("https://chat.example/s3cret", false).unwrap();
        let mut response = http::Response::new(());
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        for (name, value) in headers {
            response.headers_mut().insert(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Answer::of(&target, &response.into_parts().0, NOW)
    }
}
