//! What strangers and stolen identities may try: each costs the coordinator little memory, and meanwhile a new machine
//! comes in and an operator gets an answer.

use std::sync::Arc;

use mainstay_proto::v1::{self as pb, report::Report};
use mainstay_tests::{
    caller::Caller,
    http2::{self, CONTINUATION, DATA, END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame},
    raw,
    siege::{Besieged, Siege},
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

const SESSION: &str = raw::SESSION;

#[tokio::test(flavor = "multi_thread")]
async fn settings_name_every_limit() {
    let siege = Siege::begin("settings").await;
    for caller in [&siege.nobody, &siege.members[0].caller] {
        let (_sender, mut receiver) = http2::open(caller).await.unwrap();
        let settings = receiver.settings().await;
        let setting = |number: u16| settings.get(&number).copied();
        let (streams, window, frame, list) = (setting(3), setting(4), setting(5), setting(6));
        assert_eq!((streams, list), (Some(16), Some(8 * 1_024)), "{settings:?}");
        assert_eq!(window, Some(64 * 1_024), "{settings:?}");
        assert_eq!(frame.unwrap_or(16_384), 16_384, "{settings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_streams_on_one_connection() {
    let mut siege = Siege::begin("20,000 streams").await;
    for caller in [siege.members[0].caller.clone(), siege.nobody.clone()] {
        siege.flood(caller, |stream| frame(HEADERS, END_HEADERS, stream, &call(SESSION, &[])));
    }
    siege.is_withstood(20_000, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_taken_back_at_once() {
    let mut siege = Siege::begin("rapid resets").await;
    let reset = |stream| {
        let mut both = frame(HEADERS, END_HEADERS, stream, &call(SESSION, &[]));
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        both
    };
    // A window that grows by nothing is an error: it is the server that resets.
    let provoked = |stream| {
        let mut both = frame(HEADERS, END_HEADERS, stream, &call(SESSION, &[]));
        both.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
        both
    };
    siege.flood(siege.members[0].caller.clone(), reset);
    siege.flood(siege.members[0].caller.clone(), provoked);
    siege.flood(siege.nobody.clone(), reset);
    siege.is_withstood(20_000, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_and_frames_that_want_answers() {
    let mut siege = Siege::begin("header, ping and settings floods").await;
    siege.flood(siege.nobody.clone(), |stream| {
        let kind = if stream == 1 { HEADERS } else { CONTINUATION };
        let more: Vec<u8> = std::iter::repeat_n([0, 1, b'a', 1, b'b'], 3_000).flatten().collect();
        frame(kind, 0, 1, &if stream == 1 { call(SESSION, &[]) } else { more })
    });
    siege.flood(siege.nobody.clone(), |_| frame(PING, 0, 0, &[7; 8]));
    siege.flood(siege.nobody.clone(), |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]));
    siege.is_withstood(2_000, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_peers_that_say_nothing() {
    let mut siege = Siege::begin("2,000 silent peers of the same address").await;
    siege.say_and_wait(2_000, [127, 0, 0, 1], Vec::new());
    siege.is_withstood(2_000, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_peers_than_the_lobby_holds_and_half_said_things() {
    let mut siege = Siege::begin("2,000 silent peers, 1,000 half hellos, 200 half-open HTTP/2").await;
    let hello = client_hello(&siege.nobody);
    siege.say_and_wait(2_000, [127, 0, 0, 2], Vec::new());
    siege.say_and_wait(1_000, [127, 0, 0, 3], hello[..hello.len() / 2].to_vec());
    for n in 0..200 {
        siege.hold(move |siege: Besieged| async move {
            let mut tls = siege.nobody.connect().await.ok()?;
            let mut first = http2::PREFACE.to_vec();
            match n % 2 {
                0 => first.truncate(10),
                _ => {
                    first.extend(frame(SETTINGS, 0, 0, &[]));
                    first.extend(&frame(HEADERS, END_HEADERS, 1, &call(SESSION, &[]))[..20]);
                }
            }
            tls.write_all(&first).await.ok()?;
            siege.did(1);
            while tls.read(&mut [0; 64]).await.ok()? > 0 {}
            Some(())
        });
    }
    siege.is_withstood(3_200, 128).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_announced_and_streamed() {
    let mut siege = Siege::begin("messages of 1 GiB").await;
    for caller in [siege.members[0].caller.clone(), siege.nobody.clone()] {
        for path in [SESSION, "/mainstay.v1.Enrol/Redeem", "/mainstay.v1.Agent/Renew"] {
            siege.stream(caller.clone(), move |sent| {
                let mut bytes = Vec::new();
                if sent == 0 {
                    bytes.extend(frame(HEADERS, END_HEADERS, 1, &call(path, &[])));
                    bytes.extend(frame(DATA, 0, 1, &http2::head(false, 1 << 30)));
                }
                bytes.extend(frame(DATA, 0, 1, &[0; 16_000]));
                Some(bytes)
            });
        }
    }
    siege.is_withstood(200, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_begun_and_never_ended() {
    let mut siege = Siege::begin("hoards of half-sent messages").await;
    // As much as one stolen identity may hold open: 4 connections, and on each all streams that there may be.
    for path in [SESSION, "/mainstay.v1.Agent/Renew"] {
        for _ in 0..2 {
            siege.hold(move |siege: Besieged| async move {
                let channel = siege.members[0].caller.channel().await.ok()?;
                let mut calls = JoinSet::new();
                for _ in 0..16 {
                    calls.spawn(raw::half_a_call(channel.clone(), path));
                }
                while calls.join_next().await.is_some() {
                    siege.did(1);
                }
                Some(())
            });
        }
    }
    siege.is_withstood(64, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_unfold() {
    let mut siege = Siege::begin("bombs: gzip and nesting").await;
    let zipped = siege.zipped_zeros();
    let nested = {
        // A message in a message, and groups in groups, deeper than any stack.
        let mut bytes = vec![0x0b; 1 << 20];
        for _ in 0..8 {
            let mut outer = vec![0x12];
            prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
            outer.append(&mut bytes);
            bytes = outer;
        }
        bytes
    };
    siege.send_again_and_again(0, zipped, Some("gzip"));
    siege.send_again_and_again(1, nested, None);
    siege.is_withstood(100, 64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_nothing_on_the_wire() {
    let mut siege = Siege::begin("bombs: empty rows and entries").await;
    // Two bytes on the wire, hundreds in memory.
    let rows = mainstay_proto::MAX_MESSAGE_BYTES / 2 - 64;
    let containers = pb::ContainerTable { changed: vec![pb::Container::default(); rows], ..Default::default() };
    let view = pb::SwarmView { tasks: vec![pb::SwarmTask::default(); rows], ..Default::default() };
    let aliases = pb::Disk { aliases: vec![Vec::new(); rows], ..Default::default() };
    let disks = pb::DiskTable { changed: vec![aliases], ..Default::default() };
    for (node, sample) in [
        pb::Sample { containers: Some(containers), ..Default::default() },
        pb::Sample { swarm: Some(pb::Swarm { view: Some(view), ..Default::default() }), ..Default::default() },
        pb::Sample { disks: Some(disks), ..Default::default() },
    ]
    .into_iter()
    .enumerate()
    {
        let report = pb::Report { report: Some(Report::Sample(sample)) }.encode_to_vec();
        assert!(report.len() < mainstay_proto::MAX_MESSAGE_BYTES);
        siege.send_again_and_again(node, report, None);
    }
    siege.is_withstood(9, 96).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_every_layer() {
    let mut siege = Siege::begin("garbage").await;
    let mut dice = 7_u64;
    let mut garbage = |bytes: usize| {
        let roll = || {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            dice.to_be_bytes()[0]
        };
        Arc::new(std::iter::repeat_with(roll).take(bytes).collect::<Vec<u8>>())
    };
    let (short, long) = (garbage(3_000), garbage(1 << 20));
    for _ in 0..8 {
        let (short, long) = (Arc::clone(&short), Arc::clone(&long));
        siege.hold(move |siege: Besieged| {
            let (short, long) = (Arc::clone(&short), Arc::clone(&long));
            async move {
                let mut tcp = siege.tcp_from([127, 0, 0, 1]).await?;
                // An error means that it was cut already: what was hoped for.
                drop(tcp.write_all(&long).await);
                let mut tls = siege.nobody.connect().await.ok()?;
                drop(tls.write_all(&long).await);
                let (mut sender, receiver) = http2::open(&siege.members[0].caller).await.ok()?;
                let mut frames = frame(HEADERS, END_HEADERS, 1, &call(SESSION, &[]));
                frames.extend(frame(HEADERS, END_HEADERS, 3, &short));
                sender.send(&frames).await;
                receiver.to_the_end().await;
                let channel = siege.members[0].caller.channel().await.ok()?;
                raw::one_session(channel, None, &short).await;
                siege.did(4);
                Some(())
            }
        });
    }
    siege.is_withstood(400, 64).await;
}

/// The bytes of a ClientHello.
fn client_hello(caller: &Caller) -> Vec<u8> {
    let mut hello = Vec::new();
    caller.client().write_tls(&mut hello).unwrap();
    hello
}
