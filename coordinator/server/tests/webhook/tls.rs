//! Certificates and handshakes.

use std::time::Duration;

use mainstay_coordinator::receivers::{Answer, Client, Limits};
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    SECRET, again, named,
    receiver::{Authority, Receiver},
    send_to,
};

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
