//! Certificates in use: renewed, come back with, rotated; and a CA key that nobody can open.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

mod lab;

use std::{fs, time::Duration};

use lab::{Replica, credentials, eventually, hello, one_disk, session};
use mainstay_common::{
    Timestamp,
    identity::server_name,
    process::{
        now,
        tls::{self, Certificate, Channel, Credentials, issuer_of, pins_of},
    },
};
use mainstay_coordinator::{Lives, admin_socket};
use mainstay_proto::v1::{
    self as pb, admin_client::AdminClient, agent_client::AgentClient, enrol_client::EnrolClient, instruction, report,
    viewer_client::ViewerClient,
};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::{Code, Status, Streaming};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_opener_stops_signing_and_nothing_else() {
    let replica = Replica::start().await;
    let (key, token) = (tls::new_key(), replica.token(2).await);
    let agent = replica.redeem(&token, &key, "n1").await.unwrap();
    let (opener, aside) = (replica.data().join("ca-opener.key"), replica.data().join("aside"));
    assert!(!replica.data().join("ca.key").exists());
    let (folder, admin) = replica.stop().await;
    fs::rename(&opener, &aside).unwrap();

    let replica = Replica::serve(folder, admin).await;
    let _session = session(replica.channel(&agent).await, vec![hello()]).await.unwrap();
    let closed = |status: Status| {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("ca-opener.key: the file is missing"), "{status}");
    };
    closed(renew(&replica.channel(&agent).await, &key).await.unwrap_err());
    let newcomer = tls::new_key();
    closed(replica.redeem(&token, &newcomer, "n2").await.unwrap_err());
    let root = admin_socket::request(&replica.data()).await.unwrap_err();
    assert!(root.to_string().contains("ca-opener.key"), "{root}");
    let channel = replica.admin().await;
    let ca = ViewerClient::new(channel).get_ca(pb::GetCaRequest {}).await.expect("a refused wish shuts nobody out");
    assert!(ca.into_inner().closed.contains("ca-opener.key"));
    let (folder, admin) = replica.stop().await;
    fs::rename(&aside, &opener).unwrap();

    let replica = Replica::serve(folder, admin).await;
    renew(&replica.channel(&agent).await, &key).await.unwrap();
    replica.redeem(&token, &newcomer, "n2").await.expect("nothing was taken from the token");
    admin_socket::request(&replica.data()).await.unwrap();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_comes_back_by_the_registered_key_only() {
    let replica = Replica::start().await;
    let (folder, admin) = replica.stop().await;
    let at_once = Lives { client: Duration::ZERO, ..Lives::default() };
    let replica = Replica::serve_with(folder, admin, at_once).await;
    let token = replica.token(1).await;
    let key = tls::new_key();
    let agent = replica.redeem(&token, &key, "n1").await.unwrap();
    eventually("the certificate is refused", async || replica.refuses(&agent).await.then_some(())).await;

    let nobody = replica.anonymous(token.ca_pin).await.unwrap();
    let back = reenrol(&nobody, &agent.certificate, &key).await.unwrap();
    let read = Certificate::from_pem(&back.certificate).unwrap();
    assert_eq!(read.spki_sha256, Certificate::from_pem(&agent.certificate).unwrap().spki_sha256);
    assert_eq!(back.ca, agent.ca);

    let other_key = reenrol(&nobody, &agent.certificate, &tls::new_key()).await.unwrap_err();
    assert!(other_key.message().contains("a renewal keeps the key"), "{other_key}");
    let forged = reenrol(&nobody, &forged(&replica, &key, "n1"), &key).await.unwrap_err();
    assert!(forged.message().contains("not signed by a root of this cluster"), "{forged}");
    let person = KeyPair::from_pem(&replica.admin.key).unwrap();
    let person = reenrol(&nobody, &replica.admin.certificate, &person).await.unwrap_err();
    assert!(person.message().contains("only nodes"), "{person}");
    for status in [other_key, forged, person] {
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }

    let mut admin = AdminClient::new(replica.admin().await);
    admin.remove_node(pb::RemoveNodeRequest { name: "n1".into() }).await.unwrap();
    let removed = reenrol(&nobody, &agent.certificate, &key).await.unwrap_err();
    assert_eq!((removed.code(), removed.message().lines().next()), (Code::PermissionDenied, Some("node removed")));
    let second = replica.token(1).await;
    replica.redeem(&second, &tls::new_key(), "n1").await.expect("the name is free for another machine");
    let old = reenrol(&nobody, &agent.certificate, &key).await.unwrap_err();
    assert_eq!(old.message().lines().next(), Some("node removed"), "the old certificate stays out");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_that_ask_for_one_name_are_told_apart() {
    let replica = Replica::start().await;
    let token = replica.token(2).await;
    let (first, second) = (tls::new_key(), tls::new_key());
    let both = tokio::join!(replica.redeem(&token, &first, "n1"), replica.redeem(&token, &second, "n1"));
    let outcomes = [both.0.map(drop), both.1.map(drop)];
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "one of them has the name: {outcomes:?}");
    assert_eq!(refused[0].code(), Code::AlreadyExists);
    assert!(refused[0].message().starts_with("the name n1 is taken by another machine\n"), "{}", refused[0]);
    replica.redeem(&token, &tls::new_key(), "n2").await.expect("a refused name costs no use");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_keeps_everybody_in() {
    let replica = Replica::start().await;
    let (key, token) = (tls::new_key(), replica.token(3).await);
    let first = replica.redeem(&token, &key, "n1").await.unwrap();
    let (send, mut told) = session(replica.channel(&first).await, vec![hello()]).await.unwrap();
    let before = trust(&mut told).await;
    let roots = |ca: &str| pins_of(ca, &replica.admin.cluster_id).unwrap();
    assert_eq!(roots(&before.ca), [token.ca_pin]);
    let mut admin = AdminClient::new(replica.admin().await);
    let mut viewer = ViewerClient::new(replica.admin().await);

    let mut step = async |phase: &str| {
        let version = viewer.get_ca(pb::GetCaRequest {}).await.unwrap().into_inner().version;
        let rotated = admin.rotate_ca(pb::RotateCaRequest { version, back: false, force: false }).await?.into_inner();
        assert_eq!(rotated.phase, phase);
        Ok::<_, Status>(())
    };
    step("spreading").await.unwrap();
    let spreading = trust(&mut told).await;
    assert_eq!((roots(&spreading.ca).len(), &spreading.issuer), (2, &before.issuer));
    let waits = step("replacing").await.unwrap_err();
    assert_eq!(waits.code(), Code::FailedPrecondition);
    assert!(waits.message().starts_with("1 node has not acknowledged yet: n1\n"), "{waits}");
    let early = replica.token(1).await;
    assert_eq!(early.ca_pin, token.ca_pin, "tokens pin the root that issues");
    hold(&send, spreading.version, &first.certificate).await;
    nobody_missing(&replica).await;

    step("replacing").await.unwrap();
    let replacing = trust(&mut told).await;
    assert_ne!(replacing.issuer, before.issuer);
    hold(&send, replacing.version, &first.certificate).await;
    assert!(step("settled").await.unwrap_err().message().contains("n1"), "a certificate by the old root is not enough");
    let second = renew(&replica.channel(&first).await, &key).await.unwrap();
    assert_eq!(issuer_of(&second.certificate).unwrap().as_slice(), replacing.issuer);
    let late = replica.redeem(&early, &tls::new_key(), "n2").await.expect("a token of before counts");
    assert_eq!(roots(&late.ca).len(), 2, "whoever comes in meanwhile gets every root");
    let mut n2 = session(replica.channel(&late).await, vec![hello()]).await.unwrap();
    let n2_told = trust(&mut n2.1).await;
    hold(&n2.0, n2_told.version, &late.certificate).await;
    hold(&send, replacing.version, &second.certificate).await;
    nobody_missing(&replica).await;
    let mut asks = ViewerClient::new(replica.admin().await);
    let people = asks.get_ca(pb::GetCaRequest {}).await.unwrap().into_inner().missing_users;
    assert_eq!(people, Vec::<String>::new(), "the context in the data directory is fresh by itself");
    step("settled").await.unwrap();
    let settled = trust(&mut told).await;
    assert_eq!(roots(&settled.ca), [<[u8; 32]>::try_from(replacing.issuer).unwrap()]);

    let renewed = Credentials { ca: settled.ca.clone(), certificate: second.certificate, key: key.serialize_pem() };
    renew(&replica.channel(&renewed).await, &key).await.expect("the new certificate counts");
    eventually("the old one is refused", async || replica.refuses(&first).await.then_some(())).await;
    let knows_old_only = tls::anonymous_config(&first.ca).unwrap();
    let nobody = replica.dial(&server_name(&replica.admin.cluster_id), knows_old_only).await;
    let back = reenrol(&nobody.expect("the new root is certified by the old one"), &first.certificate, &key).await;
    assert_eq!(roots(&back.unwrap().ca), roots(&settled.ca));
    send.send(pb::Report { report: Some(one_disk()) }).await.expect("the stream outlived it all");
    let healed = mainstay_common::process::context::Context::load(&replica.data().join("admin.context")).unwrap();
    let channel = replica.channel(&credentials(&healed)).await;
    eventually("its sample is seen", async || {
        ViewerClient::new(channel.clone()).list_disks(pb::ListRequest::default()).await.unwrap().into_inner().rows.pop()
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_goes_back_and_a_step_is_taken_once() {
    let replica = Replica::start().await;
    let mut admin = AdminClient::new(replica.admin().await);
    let mut viewer = ViewerClient::new(replica.admin().await);
    let mut at = async || viewer.get_ca(pb::GetCaRequest {}).await.unwrap().into_inner();
    let before = at().await;
    let step = |version, back| pb::RotateCaRequest { version, back, force: false };
    let nothing = admin.rotate_ca(step(before.version, true)).await.unwrap_err();
    assert_eq!(nothing.code(), Code::FailedPrecondition, "{nothing}");
    admin.rotate_ca(step(before.version, false)).await.unwrap();
    let twice = admin.rotate_ca(step(before.version, false)).await.unwrap_err();
    assert_eq!(twice.code(), Code::Aborted, "{twice}");
    let version = at().await.version;
    assert_eq!(admin.rotate_ca(step(version, true)).await.unwrap().into_inner().phase, "settled");
    let after = at().await;
    assert_eq!((after.roots.len(), &after.roots[0].key), (1, &before.roots[0].key));
    replica.stop().await;
}

/// Certificates that live for seconds, renewed again and again: every stream that tells of it lives on, and one that
/// does not is cut when its certificate ends.
#[tokio::test(flavor = "multi_thread")]
async fn renewal_under_load_drops_no_stream() {
    const NODES: usize = 60;
    const RENEWALS: usize = 4;
    let replica = Replica::start().await;
    let (folder, admin) = replica.stop().await;
    let short = Lives { client: Duration::from_secs(4), ..Lives::default() };
    let replica = Replica::serve_with(folder, admin, short).await;
    let token = replica.token(u32::try_from(NODES).unwrap() + 1).await;

    let silent_key = tls::new_key();
    let silent = replica.redeem(&token, &silent_key, "silent").await.unwrap();
    let (_send, mut cut) = session(replica.channel(&silent).await, vec![hello()]).await.unwrap();
    let cut = tokio::spawn(async move {
        while let Ok(Some(_)) = cut.message().await {}
        now()
    });
    let nodes = (0..NODES).map(|n| {
        let (replica, token) = (&replica, &token);
        async move {
            let key = tls::new_key();
            let mut held = replica.redeem(token, &key, &format!("n{n}")).await.unwrap();
            let (send, mut told) = session(replica.channel(&held).await, vec![hello()]).await.unwrap();
            let mut look = tokio::time::interval(Duration::from_millis(50));
            let mut renewals = 0;
            let first_end = not_after(&held.certificate);
            while renewals < RENEWALS || now() < first_end.plus(Duration::from_secs(2)) {
                tokio::select! {
                    _ = look.tick() => {}
                    said = told.message() => match said {
                        Ok(Some(_)) => {}
                        ended => panic!("n{n} lost its stream: {ended:?}"),
                    },
                }
                if not_after(&held.certificate).since(now()) < short.client / 2 {
                    let fresh = renew(&replica.channel(&held).await, &key).await.unwrap();
                    held.certificate = fresh.certificate;
                    hold(&send, 0, &held.certificate).await;
                    renewals += 1;
                }
            }
        }
    });
    futures_util::future::join_all(nodes).await;
    let cut = tokio::time::timeout(Duration::from_secs(10), cut).await.expect("who tells nothing is cut").unwrap();
    assert!(cut >= not_after(&silent.certificate));
    replica.stop().await;
}

fn not_after(pem: &str) -> Timestamp {
    Certificate::from_pem(pem).unwrap().not_after
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// What the key alone can make: everything is right but the signature.
fn forged(replica: &Replica, key: &KeyPair, node: &str) -> String {
    let mut params = rcgen::CertificateParams::default();
    let uri = format!("spiffe://{}/agent/{node}", replica.admin.cluster_id);
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    params.self_signed(key).unwrap().pem()
}

async fn renew(channel: &Channel, key: &KeyPair) -> Result<pb::AgentRenewResponse, Status> {
    let csr = tls::signing_request(key).unwrap();
    Ok(AgentClient::new(channel.clone()).renew(pb::AgentRenewRequest { csr }).await?.into_inner())
}

async fn reenrol(channel: &Channel, certificate: &str, key: &KeyPair) -> Result<pb::ReenrolResponse, Status> {
    let request = pb::ReenrolRequest { certificate: der(certificate), csr: tls::signing_request(key).unwrap() };
    Ok(EnrolClient::new(channel.clone()).reenrol(request).await?.into_inner())
}

async fn hold(send: &tokio::sync::mpsc::Sender<pb::Report>, version: u64, certificate: &str) {
    let holding = pb::Holding { version, certificate: der(certificate) };
    send.send(pb::Report { report: Some(report::Report::Holding(holding)) }).await.unwrap();
}

/// The next that a session says about roots.
async fn trust(told: &mut Streaming<pb::Instruction>) -> pb::Trust {
    let next = async {
        loop {
            if let Some(instruction::Instruction::Trust(trust)) = told.message().await.unwrap().unwrap().instruction {
                return trust;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("roots are told")
}

async fn nobody_missing(replica: &Replica) {
    let channel = replica.admin().await;
    eventually("nobody is missing", async || {
        let ca = ViewerClient::new(channel.clone()).get_ca(pb::GetCaRequest {}).await.unwrap().into_inner();
        ca.missing.is_empty().then_some(())
    })
    .await;
}
