//! Receivers that hang, dribble, never end, or speak something else: each attempt ends, and says why.

use std::time::Duration;

use mainstay_coordinator::receivers::Answer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc::unbounded_channel,
    time::timeout,
};

use crate::{AGES, SECRET, again, hasty, patient, receiver::Receiver, send, send_to};

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
