//! The webhook against real servers on loopback, good ones and bad ones.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod receiver;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};

use mainstay_coordinator::{
    VERSION,
    receivers::{Answer, Client, IdempotencyKey, Limits, Message, Receiver as Declared, Webhook},
};
use receiver::{Authority, Receiver};
use rustls::RootCertStore;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc::unbounded_channel,
    time::timeout,
};

/// Longer than anything here takes; only a defect meets it.
const AGES: Duration = Duration::from_secs(15);
const SECRET: &str = "T0/s3cret";

#[tokio::test]
async fn a_message_arrives_as_documented() {
    let receiver = Receiver::answers("HTTP/1.1 204 No Content\r\n\r\n").await;
    let url = format!("http://{}/hook/{SECRET}?token=s3cret", receiver.address);
    let key = IdempotencyKey::of("fs.space/n1//mnt/a b\u{e9}@2026-08-22T10:00:00Z#fired");
    let json = serde_json::to_vec(&serde_json::json!({ "id": key.as_str(), "event": "fired" })).unwrap();
    let message = Message { key: &key, json: &json };
    let webhook = Declared::Webhook(Webhook::at(&url, true).unwrap());

    assert_eq!(webhook.send(&patient(), &message).await, Answer::Delivered { status: 204 });
    let [request] = &receiver.requests()[..] else { panic!("one request") };
    assert_eq!(request.head.lines().next(), Some("POST /hook/T0/s3cret?token=s3cret HTTP/1.1"));
    assert_eq!(request.header("host"), Some(receiver.address.to_string().as_str()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("user-agent"), Some(format!("mainstay/{VERSION}").as_str()));
    assert_eq!(request.header("idempotency-key"), Some("fs.space/n1//mnt/a b\\xc3\\xa9@2026-08-22T10:00:00Z#fired"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["id"].as_str(), request.header("idempotency-key"));
}

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

#[tokio::test]
async fn a_receiver_that_hangs_is_left() {
    let (left, mut gone) = unbounded_channel();
    let receiver = Receiver::acts(move |mut connection| {
        let left = left.clone();
        async move {
            let read = connection.read(&mut [0; 1]).await;
            left.send(read.unwrap_or(0)).unwrap();
        }
    })
    .await;
    let reason = again(send(&hasty(), &receiver).await);
    assert_eq!(reason, format!("http://{}: no complete answer within 300ms", receiver.address));
    assert_eq!(timeout(AGES, gone.recv()).await.expect("the connection is closed").unwrap(), 0);
}

#[tokio::test]
async fn a_receiver_that_dribbles_its_head_is_left() {
    let receiver = Receiver::acts(async |mut connection| {
        let head = "HTTP/1.1 200 OK\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
        for byte in head {
            if connection.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(again(send(&hasty(), &receiver).await).ends_with("no complete answer within 300ms"));
}

#[tokio::test]
async fn a_body_that_dribbles_or_hangs_changes_nothing() {
    for interval in [Duration::from_millis(5), AGES] {
        let receiver = Receiver::acts(move |mut connection| async move {
            let mut next = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
            while next.is_ok() {
                tokio::time::sleep(interval).await;
                next = connection.write_all(b"x").await;
            }
        })
        .await;
        let delivered = timeout(AGES / 2, send(&hasty(), &receiver)).await.expect("it does not wait for the body");
        assert_eq!(delivered, Answer::Delivered { status: 200 });
    }
}

#[tokio::test]
async fn a_gigabyte_is_not_read() {
    const CHUNK: usize = 64 * 1024;
    for head in ["HTTP/1.1 200 OK", "HTTP/1.1 500 No", "HTTP/1.1 200 OK\r\nContent-Length: 1073741824"] {
        let (sent, mut taken) = unbounded_channel();
        let receiver = Receiver::acts(move |mut connection| {
            let sent = sent.clone();
            async move {
                let mut bytes = 0;
                let mut next = connection.write_all(format!("{head}\r\n\r\n").as_bytes()).await;
                while next.is_ok() && bytes < 1 << 30 {
                    next = connection.write_all(&[b'x'; CHUNK]).await;
                    bytes += CHUNK;
                }
                sent.send(bytes).unwrap();
            }
        })
        .await;
        match send(&patient(), &receiver).await {
            Answer::Delivered { status: 200 } => assert!(head.contains("200")),
            Answer::TryAgain { reason, .. } => assert!(reason.ends_with("answers 500 Internal Server Error")),
            other @ (Answer::Delivered { .. } | Answer::GiveUp { .. }) => panic!("{other:?}"),
        }
        // What was written beyond 4 KiB lay in the kernel's buffers.
        let bytes = timeout(AGES, taken.recv()).await.expect("the connection is closed").unwrap();
        assert!(bytes < 64 << 20, "{bytes} bytes were taken");
    }
}

#[tokio::test]
async fn endless_headers_are_cut() {
    for (start, more, ending) in [
        ("HTTP/1.1 200 OK\r\nX-Long: ", "xxxxxxxxxxxxxxxx", "its answer has more than 16 KiB of headers, or too many"),
        ("HTTP/1.1 200 OK\r\n", "X-Many: x\r\n", "its answer has more than 16 KiB of headers, or too many"),
        ("HTTP/1.1 ", "2", "it does not speak HTTP (invalid HTTP status-code parsed)"),
        ("", "\r\n", "its answer has more than 16 KiB of headers, or too many"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n", "no complete answer within 300ms"),
    ] {
        let receiver = Receiver::acts(move |mut connection| async move {
            let mut next = connection.write_all(start.as_bytes()).await;
            while next.is_ok() {
                next = connection.write_all(more.repeat(100).as_bytes()).await;
            }
        })
        .await;
        let reason = again(send(&hasty(), &receiver).await);
        assert!(reason.ends_with(ending), "{start:?} {more:?}: {reason}");
    }
}

#[tokio::test]
async fn a_head_has_its_size() {
    let head = |bytes| format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(bytes));
    let receiver = Receiver::answers(head(12 * 1024)).await;
    assert_eq!(send(&patient(), &receiver).await, Answer::Delivered { status: 200 });
    let receiver = Receiver::answers(head(20 * 1024)).await;
    let reason = again(send(&patient(), &receiver).await);
    assert!(reason.ends_with("its answer has more than 16 KiB of headers, or too many"), "{reason}");
}

#[tokio::test]
async fn an_answer_that_never_comes_has_its_reason() {
    for (answer, ending) in [
        (&b""[..], "it closed the connection without an answer"),
        (b"HTTP/1.1 200 O", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nX-Half", "it closed the connection without an answer"),
        (b"220 mail.example ESMTP\r\n", "it does not speak HTTP (invalid HTTP version parsed)"),
        (b"<html>s3cret</html>", "it does not speak HTTP (invalid HTTP version parsed)"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it does not speak HTTP (invalid HTTP version parsed)"),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "it does not speak HTTP (invalid HTTP version parsed)"),
        (b"HTTP/1.1 abc\r\n\r\n", "it does not speak HTTP (invalid HTTP status-code parsed)"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "it does not speak HTTP (invalid HTTP header parsed)"),
    ] {
        let receiver = Receiver::answers(answer).await;
        let reason = again(send(&patient(), &receiver).await);
        assert!(reason.ends_with(ending), "{answer:?}: {reason}");
    }
}

#[tokio::test]
async fn a_receiver_that_speaks_first_or_cuts_has_its_reason() {
    let ssh = Receiver::greets(async |mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let reason = again(send(&patient(), &ssh).await);
    assert!(reason.contains("it does not speak HTTP (") && !reason.contains("SSH"), "{reason}");

    let reset = Receiver::greets(async |stream| {
        stream.readable().await.unwrap();
        // Closing with unread bytes sends a reset.
        drop(stream);
    })
    .await;
    let reason = again(send(&patient(), &reset).await);
    assert!(reason.ends_with("connection reset without an answer"), "{reason}");

    let nobody = Receiver::answers("").await.address;
    let reason = again(send_to(&patient(), &format!("http://{nobody}/{SECRET}")).await);
    assert_eq!(reason, format!("http://{nobody}: connection refused at {nobody}"));
}

#[tokio::test]
async fn a_ca_of_ones_own_counts_and_others_do_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (versions, what) in
        [(&[&rustls::version::TLS13], "TLS 1.3"), (&[&rustls::version::TLS12], "TLS 1.2, as on old gateways")]
    {
        let tls = ours.serves_with("chat.example", versions, |_| ());
        let receiver = Receiver::answers_tls(tls, "HTTP/1.1 200 OK\r\n\r\n").await;
        let url = format!("https://chat.example:{}/{SECRET}", receiver.address.port());
        let trusting = named(Client::new(ours.roots(), Limits::default()), &[receiver.address]);
        assert_eq!(send_to(&trusting, &url).await, Answer::Delivered { status: 200 }, "{what}");

        let foreign = named(Client::new(theirs.roots(), Limits::default()), &[receiver.address]);
        let reason = again(send_to(&foreign, &url).await);
        assert!(reason.contains("of a CA that this machine does not trust: add the CA"), "{what}: {reason}");
        assert_eq!(receiver.requests().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_certificate_must_fit() {
    let authority = Authority::new();
    let versions = &[&rustls::version::TLS13];
    let ca = |params: &mut rcgen::CertificateParams| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let expired = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for (tls, ending) in [
        (authority.serves("other.example"), "its certificate is for another name"),
        (authority.serves_with("chat.example", versions, ca), "let a CA sign one for the server"),
        (authority.serves_with("chat.example", versions, expired), "expired (or this machine's clock is ahead)"),
    ] {
        let receiver = Receiver::answers_tls(tls, "HTTP/1.1 200 OK\r\n\r\n").await;
        let client = named(Client::new(authority.roots(), Limits::default()), &[receiver.address]);
        let url = format!("https://chat.example:{}/{SECRET}", receiver.address.port());
        let reason = again(send_to(&client, &url).await);
        assert!(reason.ends_with(ending), "{reason}");
        assert_eq!(receiver.requests().len(), 0);
    }
}

#[tokio::test]
async fn https_needs_a_peer_that_speaks_tls_and_a_ca() {
    let roots = Authority::new().roots();
    let plain = Receiver::greets(async |mut stream| {
        drop(stream.read(&mut [0; 1024]).await);
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
    })
    .await;
    let silent = Receiver::greets(async |mut stream| drop(stream.read_to_end(&mut Vec::new()).await)).await;
    let closing = Receiver::greets(async |mut stream| drop(stream.read(&mut [0; 1024]).await)).await;
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    for (receiver, ending) in [
        (&plain, "it does not speak TLS (plain http?)"),
        (&silent, "no TLS handshake within 300ms"),
        (&closing, "connection closed during the TLS handshake"),
    ] {
        let client = Client::new(roots.clone(), limits);
        let reason = again(send_to(&client, &format!("https://{}/{SECRET}", receiver.address)).await);
        assert_eq!(reason, format!("https://{}: {ending}", receiver.address));
    }
    let bare = Client::new(RootCertStore::empty(), Limits::default());
    let reason = again(send_to(&bare, &format!("https://{}/", plain.address)).await);
    assert!(reason.contains("this machine has no CA certificates: install ca-certificates"), "{reason}");
    assert_eq!(plain.connections(), 1);
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_needs_leave() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let port = receiver.address.port();
    let client = Client::new(Authority::new().roots(), Limits::default());
    let webhook = Webhook::at(&format!("https://localhost:{port}/{SECRET}"), false).unwrap();
    let reason = again(send_by(&client, webhook).await);
    assert!(reason.starts_with(&format!("https://localhost:{port}: its name leads to ")), "{reason}");
    assert!(reason.contains("no public address (loopback): a receiver there needs allow_private_address"), "{reason}");
    assert_eq!(receiver.connections(), 0);

    assert_eq!(send_to(&client, &format!("http://localhost:{port}/{SECRET}")).await, Answer::Delivered { status: 200 });
}

#[tokio::test]
async fn one_private_address_refuses_the_name() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let public: SocketAddr = "192.31.196.1:1".parse().unwrap();
    let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", receiver.address.port()).parse().unwrap();
    for found in [vec![public, receiver.address], vec![receiver.address, public], vec![public, mapped]] {
        let client = named(Client::new(Authority::new().roots(), Limits::default()), &found);
        let webhook = Webhook::at(&format!("https://chat.example/{SECRET}"), false).unwrap();
        let reason = again(send_by(&client, webhook).await);
        assert!(reason.contains("its name leads to") && reason.contains("(loopback)"), "{reason}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_what_was_checked_is_what_is_dialled() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let elsewhere = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let lookups = Arc::new(AtomicUsize::new(0));
    let (counted, answers) = (Arc::clone(&lookups), [receiver.address, elsewhere.address]);
    let client =
        patient().with_lookup(Arc::new(move |_, _| Ok(vec![answers[counted.fetch_add(1, Ordering::SeqCst).min(1)]])));
    assert_eq!(send_to(&client, "http://chat.example/").await, Answer::Delivered { status: 200 });
    assert_eq!((lookups.load(Ordering::SeqCst), receiver.connections(), elsewhere.connections()), (1, 1, 0));
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_dead() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let client = named(patient(), &[dead, receiver.address]);
    assert_eq!(send_to(&client, "http://chat.example/").await, Answer::Delivered { status: 200 });
}

#[tokio::test]
async fn names_without_address_have_their_reason() {
    let client = named(patient(), &[]);
    assert_eq!(again(send_to(&client, "http://chat.example/").await), "http://chat.example: its name has no address");
    let client = patient().with_lookup(Arc::new(|_, _| Err(io::Error::other("SERVFAIL"))));
    assert_eq!(
        again(send_to(&client, "http://chat.example/").await),
        "http://chat.example: its name is not found: SERVFAIL"
    );
}

#[tokio::test]
async fn lookups_that_hang_take_few_threads_and_are_left() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await;
    let (release, hanging) = mpsc::channel::<()>();
    let (hanging, started, address) = (Mutex::new(hanging), Arc::new(AtomicUsize::new(0)), receiver.address);
    let counted = Arc::clone(&started);
    let client = Client::new(RootCertStore::empty(), Limits { lookup: Duration::from_millis(50), ..Limits::default() })
        .with_lookup(Arc::new(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            // Ends with an error once the test lets go.
            assert!(hanging.lock().unwrap().recv().is_err());
            Ok(vec![address])
        }));
    for turn in 0..20 {
        let reason = again(send_to(&client, "http://chat.example/").await);
        let expected = if turn < 8 { "nothing came back within 50ms" } else { "8 earlier lookups or reads of files" };
        assert!(reason.contains(&format!("its name cannot be looked up: {expected}")), "{turn}: {reason}");
    }
    assert!(started.load(Ordering::SeqCst) <= 8);
    drop(release);
    let recovered = async {
        while !matches!(send_to(&client, "http://chat.example/").await, Answer::Delivered { .. }) {
            tokio::task::yield_now().await
        }
    };
    timeout(AGES, recovered).await.expect("places come back");
}

#[tokio::test]
async fn a_url_file_is_read_for_each_message() {
    let (first, second) =
        (Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await, Receiver::answers("HTTP/1.1 200 OK\r\n\r\n").await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ops.url");
    let send = async |allow| send_by(&patient(), Webhook::in_file(&path, allow).unwrap()).await;

    let reason = again(send(true).await);
    assert!(reason.starts_with(&format!("url_file {}: No such file", path.display())), "{reason}");
    for receiver in [&first, &second] {
        std::fs::write(&path, format!("http://{}/{SECRET}\n", receiver.address)).unwrap();
        assert_eq!(send(true).await, Answer::Delivered { status: 200 });
    }
    assert_eq!((first.connections(), second.connections()), (1, 1));

    for (text, why) in [
        (format!("http://{}/{SECRET}", first.address), "use https, or set allow_private_address"),
        (format!("https://{}/{SECRET}", first.address), "127.0.0.1 is no public address (loopback)"),
        (format!("{SECRET}\n"), "the URL cannot be read"),
    ] {
        std::fs::write(&path, text).unwrap();
        let reason = again(send(false).await);
        assert!(reason.contains(why), "{reason}");
    }
    assert_eq!((first.connections(), second.connections()), (1, 1));
}

#[tokio::test]
async fn dropping_an_attempt_ends_it() {
    let (left, mut gone) = unbounded_channel();
    let receiver = Receiver::acts(move |mut connection| {
        let left = left.clone();
        async move {
            drop(connection.read(&mut [0; 1]).await);
            left.send(()).unwrap();
        }
    })
    .await;
    let client = patient();
    let arrived = async {
        while receiver.requests().is_empty() {
            tokio::task::yield_now().await
        }
    };
    tokio::select! {
        answer = send(&client, &receiver) => panic!("{answer:?}"),
        arrived = timeout(AGES, arrived) => arrived.expect("the request arrives"),
    }
    timeout(AGES, gone.recv()).await.expect("the connection is closed").unwrap();
}

fn patient() -> Client {
    Client::new(RootCertStore::empty(), Limits::default())
}

fn hasty() -> Client {
    Client::new(RootCertStore::empty(), Limits { total: Duration::from_millis(300), ..Limits::default() })
}

fn named(client: Client, addresses: &[SocketAddr]) -> Client {
    let addresses = addresses.to_vec();
    client.with_lookup(Arc::new(move |_, _| Ok(addresses.clone())))
}

async fn send(client: &Client, receiver: &Receiver) -> Answer {
    send_to(client, &format!("http://{}/{SECRET}?token=s3cret", receiver.address)).await
}

async fn send_to(client: &Client, url: &str) -> Answer {
    send_by(client, Webhook::at(url, true).unwrap()).await
}

/// Every attempt of every test ends, and its answer is looked through for the URL's secret.
async fn send_by(client: &Client, webhook: Webhook) -> Answer {
    let key = IdempotencyKey::of("fs.space/n1//@0#fired");
    let (webhook, message) = (Declared::Webhook(webhook), Message { key: &key, json: b"{}" });
    let answer = timeout(AGES, webhook.send(client, &message)).await.expect("every attempt ends");
    assert!(!format!("{answer:?}").contains("s3cret"), "{answer:?}");
    answer
}

fn again(answer: Answer) -> String {
    match answer {
        Answer::TryAgain { reason, retry_after: None } => reason,
        other @ (Answer::Delivered { .. } | Answer::TryAgain { .. } | Answer::GiveUp { .. }) => panic!("{other:?}"),
    }
}
