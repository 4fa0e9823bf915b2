//! What the machine is: facts that change with a reboot or an upgrade at most.

use std::path::Path;

/// Facts read once.
pub(super) struct Facts {
    pub(super) kernel: String,
    pub(super) architecture: String,
    pub(super) os: String,
    is_debian_like: bool,
}

impl Facts {
    pub(super) fn read() -> Self {
        let system = rustix::system::uname();
        // The second path is for systems whose /etc is not their own.
        let release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| std::fs::read_to_string(p).ok());
        let release = OsRelease::parse(release.as_deref().unwrap_or_default());
        Self {
            kernel: system.release().to_string_lossy().into_owned(),
            architecture: system.machine().to_string_lossy().into_owned(),
            os: release.pretty_name,
            is_debian_like: release.is_debian_like,
        }
    }

    /// Only Debian and its children leave such a file; elsewhere nobody knows.
    pub(super) fn reboot_required(&self) -> Option<bool> {
        self.is_debian_like.then(|| Path::new("/run/reboot-required").exists())
    }
}

/// The name of this machine now: it may be changed while it runs.
pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Which boot this is; empty where the kernel does not tell.
#[must_use]
pub fn boot_id() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    told.map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[derive(Debug, Default, PartialEq, Eq)]
struct OsRelease {
    pretty_name: String,
    is_debian_like: bool,
}

impl OsRelease {
    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
            Some(line.trim().trim_matches(['"', '\'']).to_owned())
        };
        let pretty_name = value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_default();
        let family = [value("ID"), value("ID_LIKE")].into_iter().flatten().collect::<Vec<_>>().join(" ");
        Self { pretty_name, is_debian_like: family.split_whitespace().any(|id| id == "debian" || id == "ubuntu") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_and_its_children_tell_of_reboots() {
        let ubuntu = OsRelease::parse("PRETTY_NAME=\"Ubuntu 24.04 LTS\"\nNAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n");
        assert_eq!(ubuntu, OsRelease { pretty_name: "Ubuntu 24.04 LTS".into(), is_debian_like: true });
        let fedora = OsRelease::parse("NAME='Fedora Linux'\nID=fedora\n");
        assert_eq!(fedora, OsRelease { pretty_name: "Fedora Linux".into(), is_debian_like: false });
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_eq!(boot_id().len(), 36);
    }
}
