//! What a receiver answers, and what follows.

use std::time::{Duration, SystemTime};

use mainstay_coordinator::receivers::Answer;

use crate::{patient, receiver::Receiver, send};

#[tokio::test]
async fn any_2xx_is_delivered_whatever_the_body_is() {
    for (answer, status) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], 200),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\x00\xff{]\x1b[31m", 200),
        (b"HTTP/1.1 202 \r\nContent-Length: 500\r\n\r\ncut", 202),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk", 200),
        (b"HTTP/1.0 299 Rubbish\r\n\r\n", 299),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 201 Created\r\n\r\n", 201),
    ] {
        let receiver = Receiver::answers(answer).await;
        assert_eq!(send(&patient(), &receiver).await, Answer::Delivered { status });
    }
}

#[tokio::test]
async fn codes_say_whether_to_try_again() {
    for (answer, again, reason) in [
        ("408 Request Timeout", true, "answers 408 Request Timeout"),
        ("425 Too Early", true, "answers 425 Too Early"),
        ("429 Too Many Requests", true, "answers 429 Too Many Requests"),
        ("500 s3cret", true, "answers 500 Internal Server Error"),
        ("503 Service Unavailable", true, "answers 503 Service Unavailable"),
        ("599 Whatever", true, "answers 599"),
        ("400 Bad Request", false, "answers 400 Bad Request"),
        ("401 Unauthorized", false, "answers 401 Unauthorized: it does not accept this URL's secret"),
        ("404 Not Found", false, "answers 404 Not Found: there is no webhook at this URL, or no longer"),
        ("410 Gone", false, "answers 410 Gone: there is no webhook at this URL, or no longer"),
        ("101 Switching Protocols", false, "answers 101 Switching Protocols"),
    ] {
        let receiver = Receiver::answers(format!("HTTP/1.1 {answer}\r\nContent-Length: 6\r\n\r\ns3cret")).await;
        let found = send(&patient(), &receiver).await;
        let expected = format!("http://{} {reason}", receiver.address);
        match &found {
            Answer::TryAgain { reason, retry_after: None } if again => assert_eq!(*reason, expected),
            Answer::GiveUp { reason } if !again => assert_eq!(*reason, expected),
            Answer::Delivered { .. } | Answer::TryAgain { .. } | Answer::GiveUp { .. } => panic!("{answer}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn a_receiver_may_ask_for_a_wait_in_seconds_or_as_a_date() {
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
    for (header, least, most) in [("120", 120, 120), (soon.as_str(), 500, 600), ("86400", 3_600, 3_600)] {
        let receiver = Receiver::answers(format!("HTTP/1.1 429 x\r\nRetry-After: {header}\r\n\r\n")).await;
        let Answer::TryAgain { retry_after: Some(wait), .. } = send(&patient(), &receiver).await else {
            panic!("{header}")
        };
        assert!((least..=most).contains(&wait.as_secs()), "{header}: {wait:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    for code in [301, 302, 303, 307, 308] {
        let location = format!("http://{}/s3cret", elsewhere.address);
        let receiver = Receiver::answers(format!("HTTP/1.1 {code} x\r\nLocation: {location}\r\n\r\n")).await;
        let Answer::GiveUp { reason } = send(&patient(), &receiver).await else { panic!("{code}") };
        assert!(reason.contains(&format!(", to http://{}: redirects are not followed", elsewhere.address)), "{reason}");
    }
    assert_eq!(elsewhere.connections(), 0);
}
