//! Names, addresses and files: where a message may go.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use mainstay_coordinator::receivers::{Answer, Client, Limits, Webhook};
use rustls::RootCertStore;
use tokio::time::timeout;

use crate::{
    AGES, SECRET, again, named, patient,
    receiver::{Authority, Receiver},
    send_by, send_to,
};

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
