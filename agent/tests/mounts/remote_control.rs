//! What rclone's remote control tells, and what comes of one that does not.

use std::{fs, net::TcpListener, time::Duration};

use mainstay_agent::config::{EyesConfig, RcloneConfig};
use mainstay_common::{
    metric::catalogue as m,
    state::{MountState, RcState, RemoteState},
};

use crate::{
    lab::{Lab, count, free_port, mount_folder, story},
    rc_state,
};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn uploads_and_the_remote_are_told() {
    story("remote_control::uploads_and_the_remote_are_told", || async {
        let lab = Lab::open(EyesConfig::default());
        let (source, at, rc) = (lab.place("source"), lab.place("at"), format!("--rc-addr=127.0.0.1:{}", free_port()));
        let auth = ["--rc", &rc, "--rc-user=watch", "--rc-pass=word"];
        let cache = ["--vfs-cache-mode=writes", "--vfs-write-back=1h", "--vfs-cache-max-size=1G"];
        let flags = [&auth[..], &cache].concat();
        let _rclone = mount_folder(&lab, &source, &at, &flags);
        let is_known = |row: &mainstay_proto::v1::Mount| row.remote_state == RemoteState::Ok.number();
        let ok = lab.becomes(&at, MountState::Ok, LIMIT, is_known).await;
        let rclone = ok.rclone.clone().unwrap();
        assert_eq!((rc_state(&ok), rclone.rc_open), (Some(RcState::Ok), false));
        assert!(rclone.version.starts_with('v'), "{rclone:?}");
        assert_eq!(count(&ok, &m::RCLONE_UPLOADS_QUEUED), Some(0));
        assert!(count(&ok, &m::RCLONE_REMOTE_TOTAL_BYTES).unwrap() > 1 << 20);

        let file = at.join("new");
        tokio::task::spawn_blocking(move || fs::write(file, [7; 4_096])).await.unwrap().unwrap();
        let is_dirty = |row: &mainstay_proto::v1::Mount| count(row, &m::RCLONE_UPLOADS_QUEUED) == Some(1);
        let dirty = lab.becomes(&at, MountState::Ok, LIMIT, is_dirty).await;
        assert_eq!(count(&dirty, &m::RCLONE_CACHE_MAX_BYTES), Some(1 << 30));
        assert_eq!(count(&dirty, &m::RCLONE_CACHE_FULL), Some(0));
    });
}

#[test]
fn what_is_configured_goes_before_the_process_and_a_wrong_password_is_told() {
    let name = "remote_control::what_is_configured_goes_before_the_process_and_a_wrong_password_is_told";
    story(name, || async {
        let place = tempfile::tempdir().unwrap();
        let (at, password_file) = (place.path().join("at"), place.path().join("password"));
        fs::create_dir(&at).unwrap();
        fs::write(&password_file, "wrong\n").unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let configured = RcloneConfig {
            mount: at.clone(),
            rc: address.clone(),
            user: Some("watch".into()),
            password_file: Some(password_file),
        };
        let lab = Lab::open(EyesConfig { rclone: vec![configured], ..EyesConfig::default() });
        let rc = format!("--rc-addr={address}");
        let flags = ["--rc", &rc, "--rc-user=watch", "--rc-pass=word"];
        let _rclone = mount_folder(&lab, &lab.place("source"), &at, &flags);
        let is_denied = |row: &mainstay_proto::v1::Mount| rc_state(row) == Some(RcState::Denied);
        let denied = lab.becomes(&at, MountState::Ok, LIMIT, is_denied).await;
        assert_eq!(count(&denied, &m::RCLONE_UPLOADS_QUEUED), None);
        assert_eq!(denied.remote_state, RemoteState::Unknown.number());
    });
}

#[test]
fn a_remote_control_that_says_nothing_holds_up_nobody() {
    story("remote_control::a_remote_control_that_says_nothing_holds_up_nobody", || async {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = tempfile::tempdir().unwrap();
        let at = place.path().join("at");
        fs::create_dir(&at).unwrap();
        let configured = RcloneConfig {
            mount: at.clone(),
            rc: silent.local_addr().unwrap().to_string(),
            user: None,
            password_file: None,
        };
        let interval = Duration::from_secs(1);
        let lab = Lab::open(EyesConfig { interval, rclone: vec![configured], ..EyesConfig::default() });
        let _rclone = mount_folder(&lab, &lab.place("source"), &at, &[]);
        let is_lost = |row: &mainstay_proto::v1::Mount| rc_state(row) == Some(RcState::Unreachable);
        let lost = lab.becomes(&at, MountState::Ok, LIMIT, is_lost).await;
        assert!(lost.rclone.unwrap().last_error.contains("no answer"));
        // The table goes on while the next call waits in vain.
        for _ in 0..5 {
            let before = lab.board.read().mounts.unwrap().read_at;
            let newer = |seen: &mainstay_agent::board::Snapshot| {
                seen.mounts.as_ref().is_some_and(|mounts| mounts.read_at.since(before) >= Duration::from_millis(500))
            };
            lab.eventually("mounts are asked", Duration::from_secs(5), newer).await;
        }
        lab.soon(&at, MountState::Ok).await;
    });
}
