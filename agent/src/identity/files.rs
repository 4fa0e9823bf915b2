//! The files of a node's data directory.

use std::{fs, io::ErrorKind, path::Path};

use mainstay_common::{
    ClusterId, ExitCode, Failure, NodeId,
    process::data_dir::{replace, unusable},
};
use serde::{Deserialize, Serialize};

/// The cluster CA.
pub const CA_FILE: &str = "ca.crt";
/// The node's certificate.
pub const CERTIFICATE_FILE: &str = "agent.crt";
/// The node's key, 0600.
pub const KEY_FILE: &str = "agent.key";
/// Cluster, name and addresses: the last file that `enroll` writes.
pub const ENROLMENT_FILE: &str = "enrolment.toml";

/// What the node knows of its cluster besides certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's trust domain.
    pub cluster_id: ClusterId,
    /// This node's name.
    pub node: NodeId,
    /// The address that `enroll` was given: asked when no other answers.
    pub coordinator: String,
    /// Every replica's address as the coordinator told it last.
    pub addresses: Vec<String>,
    /// The highest generation that a replica was of: a disaster restore begins a new one.
    #[serde(default = "first_generation", skip_serializing_if = "is_first_generation")]
    pub generation: u64,
}

/// What every cluster begins with, and a coordinator that knows of no generations is of.
pub(crate) fn first_generation() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_first_generation(generation: &u64) -> bool {
    *generation <= 1
}

/// Reads one file of the data directory; `None` where there is none.
pub(crate) fn read(folder: &Path, name: &str) -> Result<Option<String>, Failure> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(half_written(folder, &format!("{name}: {error}"))),
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// Writes one file of the data directory whole.
pub(crate) fn write(folder: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), Failure> {
    let path = folder.join(name);
    replace(&path, content, mode).map_err(|error| unusable(&path, &error))
}

/// Writes cluster, name and addresses.
pub(crate) fn write_enrolment(folder: &Path, enrolment: &Enrolment) -> Result<(), Failure> {
    let text = toml::to_string(enrolment).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot write {ENROLMENT_FILE}"), error.to_string(), "report this")
    })?;
    write(folder, ENROLMENT_FILE, text.as_bytes(), 0o600)
}

/// True for `host:port` as it can be dialled and shown.
#[must_use]
pub fn is_address(address: &str) -> bool {
    address.len() <= 260
        && address.bytes().all(|byte| byte.is_ascii_graphic())
        && address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

pub(super) fn not_enrolled(folder: &Path) -> Failure {
    Failure::new(
        ExitCode::Failed,
        "this node is not enrolled",
        format!("{} holds no certificate", folder.display()),
        format!(
            "mainstay-agent enroll --data-dir {} --token-file FILE --coordinator HOST:PORT    (`mainstay token create` \
             makes the token)",
            folder.display()
        ),
    )
}

pub(super) fn half_written(folder: &Path, why: &str) -> Failure {
    Failure::new(
        ExitCode::Failed,
        format!("{} is half-written", folder.display()),
        why,
        "run the same `mainstay-agent enroll` again: its token still counts for this machine; with a token that ran \
         out, make a new one; nothing but these files depends on the directory",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:7443", "[::1]:7443", "node-1.example:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "host", "host:", ":7443", "host:0", "host:70000", "ho st:1", "h\u{1b}:1"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
