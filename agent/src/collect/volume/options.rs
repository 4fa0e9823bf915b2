//! What stands behind a volume of the engine's own driver: a folder, or what its options mount. Pure.

use serde::Deserialize;

/// A volume's `opts.json`; volumes without options have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Options {
    mount_type: String,
    mount_opts: String,
    mount_device: String,
}

/// What stands behind a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// A folder of the engine's.
    Folder,
    /// A folder from elsewhere on this machine.
    Bind(Vec<u8>),
    /// A server.
    Network(Vec<u8>),
    /// Memory.
    Memory,
    /// A device.
    Device(Vec<u8>),
    /// Another driver keeps it.
    Driver,
    /// Its options cannot be read, and why.
    Unknown(String),
}

impl Backing {
    /// Reads an `opts.json`.
    pub(super) fn parse(text: &[u8]) -> Self {
        let options: Options = match serde_json::from_slice::<Option<Options>>(text) {
            Ok(options) => options.unwrap_or_default(),
            Err(error) => return Self::Unknown(format!("its options are not understood: {error}")),
        };
        let device = options.mount_device.into_bytes();
        let is_bind = options.mount_opts.split(',').any(|option| matches!(option.trim(), "bind" | "rbind"));
        match options.mount_type.as_str() {
            // A quota alone leaves both empty.
            "" | "none" if device.is_empty() => Self::Folder,
            _ if is_bind => Self::Bind(device),
            "tmpfs" | "ramfs" => Self::Memory,
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "glusterfs" | "9p" => Self::Network(device),
            _ => Self::Device(device),
        }
    }

    /// Why it has no size of its own; empty where it is measured.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Folder => "",
            Self::Bind(_) => "a bind of another folder is not measured",
            Self::Network(_) => "what lies on a server is not measured",
            Self::Memory => "memory is not measured",
            Self::Device(_) => "a device of its own is not measured",
            Self::Driver => "another driver keeps it",
            Self::Unknown(why) => why,
        }
    }

    /// The device or folder behind it.
    pub(super) fn source(&self) -> &[u8] {
        match self {
            Self::Bind(device) | Self::Network(device) | Self::Device(device) => device,
            Self::Folder | Self::Memory | Self::Driver | Self::Unknown(_) => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_tell_what_is_behind() {
        for (text, backing) in [
            (r#"null"#, Backing::Folder),
            (r#"{"MountType":"","MountOpts":"","MountDevice":"","Quota":{"Size":10}}"#, Backing::Folder),
            (
                r#"{"MountType":"none","MountOpts":"o,bind","MountDevice":"/srv/a b"}"#,
                Backing::Bind(b"/srv/a b".to_vec()),
            ),
            (
                r#"{"MountType":"nfs","MountOpts":"addr=10.0.0.1,rw","MountDevice":":/x"}"#,
                Backing::Network(b":/x".to_vec()),
            ),
            (r#"{"MountType":"tmpfs","MountOpts":"size=1m","MountDevice":"tmpfs"}"#, Backing::Memory),
            (r#"{"MountType":"ext4","MountDevice":"/dev/sdb1"}"#, Backing::Device(b"/dev/sdb1".to_vec())),
        ] {
            assert_eq!(Backing::parse(text.as_bytes()), backing, "{text}");
        }
        assert!(matches!(Backing::parse(b"{"), Backing::Unknown(_)));
    }
}
