//! Mounts as they are: real rclone and FUSE, stopped, killed and cut off.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests: a panic is a failed test")]

mod lab;
mod remote_control;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, process::Command, time::Duration};

use lab::{Lab, Program, count, free_port, mount_folder, rclone, row, story, unmount, value};
use mainstay_agent::config::EyesConfig;
use mainstay_common::{
    metric::catalogue as m,
    state::{MountState, RcState},
};
use rustix::process::Signal;

#[test]
fn a_stopped_rclone_hangs_and_its_end_is_seen() {
    story("a_stopped_rclone_hangs_and_its_end_is_seen", || async {
        let lab = Lab::open(EyesConfig { interval: Duration::from_secs(2), ..EyesConfig::default() });
        let (source, at) = (lab.place("source"), lab.place("at"));
        let rclone = mount_folder(&lab, &source, &at, &[]);
        let ok = lab.soon(&at, MountState::Ok).await;
        assert!(count(&ok, &m::MOUNT_TOTAL_BYTES).unwrap() > 1 << 20);
        assert!(value(&ok, &m::MOUNT_LATENCY_SECONDS).unwrap() < 1.0);
        assert_eq!(ok.rclone.as_ref().map(|rclone| rclone.pid), Some(rclone.pid()));
        assert_eq!((ok.fs.as_str(), ok.read_at_ms), ("fuse.rclone", None));
        let urgent = lab.board.read().urgent;

        rclone.signal(Signal::STOP);
        let hung = lab.soon(&at, MountState::Hung).await;
        assert_eq!(hung.reason, "process_stopped");
        assert_eq!(value(&hung, &m::MOUNT_LATENCY_SECONDS), None);
        assert_eq!(count(&hung, &m::MOUNT_TOTAL_BYTES), count(&ok, &m::MOUNT_TOTAL_BYTES), "the last good ones");
        assert!(hung.read_at_ms.is_some(), "with their age");
        assert!(lab.board.read().urgent > urgent);
        lab.newer_disks(3).await;
        assert_eq!(row(&lab.board.read(), &at).unwrap().state, MountState::Hung.number());

        rclone.signal(Signal::CONT);
        let back = lab.soon(&at, MountState::Ok).await;
        assert_eq!(back.read_at_ms, None);

        rclone.signal(Signal::KILL);
        assert_eq!(lab.soon(&at, MountState::Gone).await.reason, "disconnected");
        unmount(&at);
        let gone = lab.becomes(&at, MountState::Gone, Duration::from_secs(15), |row| row.reason == "not_mounted").await;
        assert_eq!((gone.source, gone.read_at_ms.is_some()), (ok.source, true), "it is missed by its name");
        let _again = mount_folder(&lab, &source, &at, &[]);
        lab.soon(&at, MountState::Ok).await;
    });
}

#[test]
fn who_is_stopped_before_the_agent_looks_keeps_no_child() {
    story("who_is_stopped_before_the_agent_looks_keeps_no_child", || async {
        let first = Lab::open(EyesConfig::default());
        let (source, at) = (first.place("source"), first.place("at"));
        let rclone = mount_folder(&first, &source, &at, &[]);
        first.soon(&at, MountState::Ok).await;
        rclone.signal(Signal::STOP);
        let second = Lab::open(EyesConfig::default());
        assert_eq!(second.soon(&at, MountState::Hung).await.reason, "process_stopped");
        second.newer_disks(1).await;
        assert!(second.census().await.children <= 1);
        rclone.signal(Signal::CONT);
        second.soon(&at, MountState::Ok).await;
    });
}

#[test]
fn a_remote_that_does_not_answer_hangs_its_mount_and_keeps_one_child() {
    story("a_remote_that_does_not_answer_hangs_its_mount_and_keeps_one_child", || async {
        let lab = Lab::open(EyesConfig { interval: Duration::from_secs(2), ..EyesConfig::default() });
        let (source, at) = (lab.place("source"), lab.place("at"));
        let (server_port, rc_port) = (free_port(), free_port());
        let address = format!("127.0.0.1:{server_port}");
        let serve = ["serve", "webdav", "--addr", &address].map(OsStr::new);
        let server = Program::start(rclone(&lab, &serve).arg(&source));
        let listens = || std::net::TcpStream::connect(&address).is_ok();
        tokio::time::timeout(Duration::from_secs(15), async {
            while !listens() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .unwrap();
        let remote = format!(":webdav,url=\"http://{address}\":");
        let (rc, short) = (format!("--rc-addr=127.0.0.1:{rc_port}"), "--dir-cache-time=2s");
        let mount = [OsStr::new("mount"), OsStr::new(&remote), at.as_os_str()];
        let _mount = Program::start(rclone(&lab, &mount).args([short, "--rc", &rc, "--rc-no-auth"]));
        lab.becomes(&at, MountState::Ok, Duration::from_secs(15), |row| rc_state(row) == Some(RcState::Ok)).await;

        server.signal(Signal::STOP);
        // Until what rclone remembers of its remote is too old, all is well; then nothing answers for five seconds.
        let hung = lab.becomes(&at, MountState::Hung, Duration::from_secs(30), |_| true).await;
        assert_eq!(hung.reason, "no_answer");
        lab.newer_disks(4).await;
        let census = lab.census().await;
        assert_eq!((census.hung, census.children <= 2), (1, true), "{census:?}");
        assert_eq!(row(&lab.board.read(), &at).unwrap().state, MountState::Hung.number());
        assert_eq!(rc_state(row(&lab.board.read(), &at).unwrap()), Some(RcState::Ok), "rclone itself is well");

        server.signal(Signal::CONT);
        lab.becomes(&at, MountState::Ok, Duration::from_secs(90), |_| true).await;
        assert_eq!(lab.census().await.hung, 0);
    });
}

#[test]
fn a_mount_of_another_user_is_denied() {
    story("a_mount_of_another_user_is_denied", || async {
        let lab = Lab::open(EyesConfig::default());
        let at = lab.place("at");
        // Nobody answers for it, which root must not find out by waiting.
        let script = "exec 3<>/dev/fuse && mount -i -t fuse.lab -o fd=3,rootmode=40000,user_id=65534,group_id=65534 lab \"$0\" && exec sleep 600";
        let _holder = Program::start(Command::new("bash").args(["-c", script]).arg(&at));
        let denied = lab.soon(&at, MountState::Denied).await;
        assert_eq!(denied.reason, "mounted by uid 65534 without allow_other");
        assert_eq!(count(&denied, &m::MOUNT_TOTAL_BYTES), None, "not 0");
        assert_eq!(lab.census().await.hung, 0);
    });
}

#[test]
fn names_may_be_anything() {
    story("names_may_be_anything", || async {
        let lab = Lab::open(EyesConfig::default());
        let source = lab.place("source");
        let names: [&[u8]; 4] = [b"my files", b"two\nlines", b"back\\slash\\040", b"no utf-8 \xff"];
        let places = names.map(|name| lab.place(OsStr::from_bytes(name)));
        let programs: Vec<_> = places.iter().map(|at| mount_folder(&lab, &source, at, &[])).collect();
        for (at, program) in places.iter().zip(&programs) {
            let limit = Duration::from_secs(20);
            let ok = lab.becomes(at, MountState::Ok, limit, |row| rc_state(row) == Some(RcState::None)).await;
            assert_eq!(ok.rclone.unwrap().pid, program.pid());
        }
    });
}

#[test]
fn a_mount_that_is_expected_is_missed_from_the_start() {
    story("a_mount_that_is_expected_is_missed_from_the_start", || async {
        let place = tempfile::tempdir().unwrap();
        let at = place.path().join("at");
        let lab = Lab::open(EyesConfig { expect_mounts: vec![at.clone()], ..EyesConfig::default() });
        assert_eq!(lab.soon(&at, MountState::Gone).await.reason, "not_mounted");
        std::fs::create_dir(&at).unwrap();
        let rclone = mount_folder(&lab, &lab.place("source"), &at, &[]);
        lab.soon(&at, MountState::Ok).await;
        rclone.signal(Signal::TERM);
        assert_eq!(lab.soon(&at, MountState::Gone).await.fs, "fuse.rclone");
        unmount(&at);
    });
}

fn rc_state(row: &mainstay_proto::v1::Mount) -> Option<RcState> {
    row.rclone.as_ref().and_then(|rclone| RcState::from_number(rclone.rc_state))
}
