//! Which process serves a FUSE mount: the one whose arguments name the mountpoint.
//!
//! Only a few flags are kept, by name: the rest of a command line holds tokens and passwords of others.

use std::path::Path;

use super::wire::Owner;

/// Flags whose values the agent needs; also read from `RCLONE_*` variables.
const KEPT: [&str; 10] = [
    "rc",
    "rc-addr",
    "rc-baseurl",
    "rc-user",
    "rc-pass",
    "rc-no-auth",
    "rc-htpasswd",
    "rc-cert",
    "vfs-cache-mode",
    "dir-cache-time",
];
/// The longest command line or environment that is looked at.
const TEXT_LIMIT: u64 = 128 * 1_024;

/// Searches all processes once for every mountpoint; `programs` tells in the same order what may serve it.
pub(super) fn find(mountpoints: &[Vec<u8>], programs: &[String]) -> Vec<Owner> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.flat_map(|pid| {
        let Some(cmdline) = read(pid, "cmdline") else { return Vec::new() };
        let wanted = mountpoints.iter().zip(programs);
        wanted
            .filter(|(mountpoint, program)| serves(&cmdline, mountpoint, program))
            .filter_map(|(mountpoint, _)| owner(pid, &cmdline, mountpoint))
            .collect()
    })
    .collect()
}

fn owner(pid: u32, cmdline: &[u8], mountpoint: &[u8]) -> Option<Owner> {
    let stat = Stat::parse(&read(pid, "stat")?)?;
    let cgroup = read(pid, "cgroup").unwrap_or_default();
    let environment = read(pid, "environ").unwrap_or_default();
    Some(Owner {
        mountpoint: mountpoint.to_vec(),
        pid,
        started_ticks: stat.started_ticks,
        unit: unit(&cgroup).unwrap_or_default(),
        flags: flags(cmdline, &environment),
        uid: uid(&read(pid, "status")?)?,
    })
}

/// The user whose rights a process has: the second of the four in its `/proc/PID/status`.
fn uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn read(pid: u32, name: &str) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let file = std::fs::File::open(Path::new("/proc").join(pid.to_string()).join(name)).ok()?;
    file.take(TEXT_LIMIT).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Whether this command line is that of `program` and names exactly this mountpoint.
fn serves(cmdline: &[u8], mountpoint: &[u8], program: &str) -> bool {
    let mut arguments = cmdline.split(|b| *b == 0);
    let name = arguments.next().and_then(|zeroth| zeroth.rsplit(|b| *b == b'/').next()).unwrap_or_default();
    name.windows(program.len().max(1)).any(|part| part == program.as_bytes())
        && arguments.any(|argument| argument == mountpoint || argument.strip_suffix(b"/") == Some(mountpoint))
}

/// The kept flags: of the environment first, so that the command line wins.
fn flags(cmdline: &[u8], environment: &[u8]) -> Vec<String> {
    let from_environment = environment.split(|b| *b == 0).filter_map(|variable| {
        let (name, value) = std::str::from_utf8(variable).ok()?.strip_prefix("RCLONE_")?.split_once('=')?;
        let flag = name.to_ascii_lowercase().replace('_', "-");
        KEPT.contains(&flag.as_str()).then(|| format!("{flag}={value}"))
    });
    let arguments: Vec<&str> =
        cmdline.split(|b| *b == 0).map(|argument| std::str::from_utf8(argument).unwrap_or_default()).collect();
    let from_arguments = arguments.iter().enumerate().filter_map(|(at, argument)| {
        let flag = argument.strip_prefix("--")?;
        if let Some((name, _)) = flag.split_once('=') {
            return KEPT.contains(&name).then(|| flag.to_owned());
        }
        let value = match flag {
            // Switches take their value only with `=`.
            "rc" | "rc-no-auth" => "true",
            _ => arguments.get(at + 1)?,
        };
        KEPT.contains(&flag).then(|| format!("{flag}={value}"))
    });
    from_environment.chain(from_arguments).collect()
}

/// The systemd unit of a `/proc/PID/cgroup`.
fn unit(cgroup: &[u8]) -> Option<String> {
    let paths = cgroup.split(|b| *b == b'\n').filter_map(|line| line.splitn(3, |b| *b == b':').nth(2));
    paths
        .filter_map(|path| std::str::from_utf8(path.rsplit(|b| *b == b'/').next()?).ok())
        .find(|name| name.ends_with(".service") || name.ends_with(".scope"))
        .map(str::to_owned)
}

/// What is needed of a `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `T` is stopped, `D` waits in the kernel, `Z` has ended.
    pub(crate) state: u8,
    /// Its parent.
    pub(crate) parent: u32,
    /// When it started, in clock ticks since boot.
    pub(crate) started_ticks: u64,
}

impl Stat {
    /// The name in the second field may hold anything, so fields are counted from its last parenthesis.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let started_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, started_ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CMDLINE: &[u8] = b"/usr/bin/rclone\0mount\0--s3-secret-access-key\0hush\0remote:\0/mnt/my files\0--rc\0--rc-addr=unix:///run/rc\0--rc-user\0me\0--vfs-cache-mode\0full\0";

    #[test]
    fn only_the_exact_mountpoint_and_program_match() {
        assert!(serves(CMDLINE, b"/mnt/my files", "rclone"));
        assert!(!serves(CMDLINE, b"/mnt/my", "rclone"));
        assert!(!serves(b"ls\0/mnt/my files\0", b"/mnt/my files", "rclone"));
        assert!(serves(b"/sbin/mount.rclone\0r:\0/mnt/x/\0", b"/mnt/x", "rclone"));
    }

    #[test]
    fn only_named_flags_are_kept_and_the_command_line_wins() {
        let told = flags(CMDLINE, b"RCLONE_RC_ADDR=:5572\0RCLONE_CONFIG_PASS=hush\0RCLONE_RC_PASS=word\0");
        assert_eq!(
            told,
            ["rc-addr=:5572", "rc-pass=word", "rc=true", "rc-addr=unix:///run/rc", "rc-user=me", "vfs-cache-mode=full"]
        );
        let owner = Owner { flags: told, ..Owner::default() };
        assert_eq!(owner.flag("rc-addr"), Some("unix:///run/rc"));
        assert_eq!(owner.flag("rc"), Some("true"));
        assert_eq!(owner.flag("rc-no-auth"), None);
    }

    #[test]
    fn a_unit_is_the_last_name_of_its_cgroup() {
        assert_eq!(unit(b"0::/system.slice/rclone-data.service\n").as_deref(), Some("rclone-data.service"));
        assert_eq!(unit(b"9:name=systemd:/\n8:pids:/\n"), None);
    }

    #[test]
    fn the_user_is_the_one_whose_rights_count() {
        assert_eq!(uid(b"Name:\tx\nUid:\t1000\t33\t1000\t33\nGid:\t1 2 3 4\n"), Some(33));
        assert_eq!(uid(b"Name:\tx\n"), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let mut text = b"77 (a) b) T 5".to_vec();
        text.extend_from_slice(b" 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 4321 9 9\n");
        assert_eq!(Stat::parse(&text), Some(Stat { state: b'T', parent: 5, started_ticks: 4_321 }));
        assert_eq!(Stat::parse(b"77 (a"), None);
    }
}
