//! Everything that reads what strangers wrote: it may object to any bytes, but never panic, and what it accepts has to
//! keep its promises. The fuzzer calls these, and the normal tests do with what it once found.

use mainstay_agent::collect::{mountinfo, understand_rclone};
use mainstay_common::{identity::Identity, process::tls::Certificate, token::JoinToken};
use mainstay_coordinator::raft::store::understand_record;
use mainstay_core::live;
use mainstay_proto::unfold::{MAX_UNFOLDED_BYTES, unfolded};

/// Something that takes bytes.
pub type Target = fn(&[u8]);

/// Targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("identity", identity),
    ("certificate", certificate),
    ("token", token),
    ("report", report),
    ("mountinfo", mountinfo),
    ("rclone", rclone),
    ("record", record),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(each, _)| *each == name).map(|(_, target)| *target)
}

fn identity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text, "one identity is written in one way");
        let rest = text.strip_prefix("spiffe://").unwrap_or_default();
        assert!(rest.split('/').count() == 3 && !rest.contains(['%', ' ', '?', '#', '\\', '\0']), "{text:?}");
        assert!(!rest.split('/').any(|part| matches!(part, "" | "." | "..")), "{text:?}");
    }
}

fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(data) {
        assert!(certificate.identity.to_string().is_ascii());
    }
}

fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        let again = token.to_string().parse::<JoinToken>();
        assert!(again.is_ok_and(|again| again == token), "a token reads back");
        assert!(!format!("{token:?}").contains(&format!("{:?}", token.secret.0)), "a secret is never printed");
    }
}

/// A message of an agent, from its bytes to what goes into the live view.
fn report(data: &[u8]) {
    if unfolded("mainstay.v1.Report", data) > MAX_UNFOLDED_BYTES {
        return;
    }
    let Ok(Some(sample)) = mainstay_coordinator::sample_of(data) else { return };
    let rows = |update: Option<usize>| update.unwrap_or(0);
    assert!(rows(sample.containers.as_ref().map(|update| update.changed.len())) <= 2_000);
    assert!(rows(sample.volumes.as_ref().map(|update| update.changed.len())) <= 5_000);
    for (key, row) in sample.containers.iter().flat_map(|update: &live::Update<live::Container>| &update.changed) {
        assert!(key.len() <= 256 && row.name.len() <= 256 && row.labels.len() <= 64);
        assert!(row.labels.iter().all(|(key, value)| key.len() <= 63 && value.len() <= 256));
    }
    for (key, row) in sample.disks.iter().flat_map(|update: &live::Update<live::Disk>| &update.changed) {
        assert!(key.len() <= 4_096 && row.aliases.iter().map(Vec::len).sum::<usize>() <= 16 * 1_024);
    }
}

fn mountinfo(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Some(entry) = mountinfo::parse(line) {
            assert!(entry.path.len() <= line.len() && entry.source.len() <= line.len());
        }
    }
    let mounts = mountinfo::Mounts::of(data, b"/var/lib/docker");
    for mounted in mounts.disks.iter().chain(&mounts.network) {
        assert!(!mounted.key().is_empty() || mounted.entry.path.is_empty());
    }
    assert!(mounts.below(b"/").len() <= data.len());
}

fn rclone(data: &[u8]) {
    understand_rclone(data);
}

fn record(data: &[u8]) {
    // Most bytes are no record; what is one was checked by its reader.
    understand_record(data.to_vec()).unwrap_or_default();
}
