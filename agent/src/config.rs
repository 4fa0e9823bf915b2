//! What the agent is told: flags, or keys of the same names in a TOML file; a flag wins.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mainstay_common::{
    ExitCode, Failure,
    process::{config, log::LogFormat},
    time::{parse_span, span},
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A mount whose rclone has a remote control that discovery cannot find or may not use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RcloneConfig {
    /// The mountpoint.
    pub mount: PathBuf,
    /// `host:port` or the path of a unix socket.
    pub rc: String,
    /// User of the remote control.
    pub user: Option<String>,
    /// File that holds its password.
    pub password_file: Option<PathBuf>,
}

/// How the eyes work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EyesConfig {
    /// Time between samples.
    pub interval: Duration,
    /// The container engine's socket.
    pub docker_socket: PathBuf,
    /// Where host files are read: `/proc` and `/sys`, elsewhere only in tests.
    pub proc_root: PathBuf,
    /// See `proc_root`.
    pub sys_root: PathBuf,
    /// This program, which is executed again for children; another one that contains the agent only in tests.
    pub program: PathBuf,
    /// Directory for what should outlive a restart (measured volumes); `None` in `check`.
    pub cache_dir: Option<PathBuf>,
    /// Probe what autofs mounted.
    pub probe_automounts: bool,
    /// Mounts that must be there: `gone` when they are not.
    pub expect_mounts: Vec<PathBuf>,
    /// rclone remote controls.
    pub rclone: Vec<RcloneConfig>,
    /// Container labels to send besides the Swarm's and Compose's: exact names or globs.
    pub container_labels: Vec<String>,
    /// Time between two measurements of a volume.
    pub volume_every: Duration,
}

impl Default for EyesConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            docker_socket: "/var/run/docker.sock".into(),
            proc_root: "/proc".into(),
            sys_root: "/sys".into(),
            program: "/proc/self/exe".into(),
            cache_dir: None,
            probe_automounts: false,
            expect_mounts: Vec::new(),
            rclone: Vec::new(),
            container_labels: Vec::new(),
            volume_every: Duration::from_secs(6 * 3_600),
        }
    }
}

/// Where the agent's own `/metrics` is served, if anywhere.
pub type MetricsAddress = Option<SocketAddr>;

/// Where packages keep the agent's files.
pub const DATA_DIR: &str = "/var/lib/mainstay-agent";

/// Everything `run` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Key, certificate and what should outlive a restart.
    pub data_dir: PathBuf,
    /// How the eyes work.
    pub eyes: EyesConfig,
    /// Where `/metrics` is served, if anywhere.
    pub metrics: MetricsAddress,
    /// What log lines look like; for `main`.
    pub log_format: LogFormat,
    /// Tell systemd and the log when the first session stands; not so inside another program.
    pub announce: bool,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            data_dir: DATA_DIR.into(),
            eyes: EyesConfig::default(),
            metrics: None,
            log_format: LogFormat::Auto,
            announce: true,
        }
    }
}

/// What a configuration file or the command line says: what is absent keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Given {
    /// See [`AgentConfig::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// See [`EyesConfig::interval`].
    #[serde(deserialize_with = "interval")]
    pub interval: Option<Duration>,
    /// See [`EyesConfig::docker_socket`].
    pub docker_socket: Option<PathBuf>,
    /// See [`AgentConfig::metrics`].
    pub metrics: Option<SocketAddr>,
    /// See [`AgentConfig::log_format`].
    pub log_format: Option<LogFormat>,
    /// See [`EyesConfig::expect_mounts`].
    pub expect_mounts: Option<Vec<PathBuf>>,
    /// See [`EyesConfig::probe_automounts`].
    pub probe_automounts: Option<bool>,
    /// See [`EyesConfig::container_labels`].
    pub container_labels: Option<Vec<String>>,
    /// See [`EyesConfig::volume_every`].
    #[serde(deserialize_with = "volume_every")]
    pub volume_every: Option<Duration>,
    /// See [`EyesConfig::rclone`].
    pub rclone: Option<Vec<RcloneConfig>>,
}

impl Given {
    /// Reads a file.
    ///
    /// # Errors
    /// A usage failure that names file, line and nearest key.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        config::load(path)
    }

    /// This where it says something, else `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            interval: self.interval.or(other.interval),
            docker_socket: self.docker_socket.or(other.docker_socket),
            metrics: self.metrics.or(other.metrics),
            log_format: self.log_format.or(other.log_format),
            expect_mounts: self.expect_mounts.or(other.expect_mounts),
            probe_automounts: self.probe_automounts.or(other.probe_automounts),
            container_labels: self.container_labels.or(other.container_labels),
            volume_every: self.volume_every.or(other.volume_every),
            rclone: self.rclone.or(other.rclone),
        }
    }

    /// With the defaults for whatever is absent.
    #[must_use]
    pub fn complete(self) -> AgentConfig {
        let default = AgentConfig::default();
        let eyes = default.eyes;
        let data_dir = self.data_dir.unwrap_or(default.data_dir);
        AgentConfig {
            eyes: EyesConfig {
                interval: self.interval.unwrap_or(eyes.interval),
                docker_socket: self.docker_socket.unwrap_or(eyes.docker_socket),
                cache_dir: Some(data_dir.clone()),
                probe_automounts: self.probe_automounts.unwrap_or(eyes.probe_automounts),
                expect_mounts: self.expect_mounts.unwrap_or(eyes.expect_mounts),
                rclone: self.rclone.unwrap_or(eyes.rclone),
                container_labels: self.container_labels.unwrap_or(eyes.container_labels),
                volume_every: self.volume_every.unwrap_or(eyes.volume_every),
                proc_root: eyes.proc_root,
                sys_root: eyes.sys_root,
                program: eyes.program,
            },
            data_dir,
            metrics: self.metrics.or(default.metrics),
            log_format: self.log_format.unwrap_or(default.log_format),
            announce: default.announce,
        }
    }
}

/// The file, if one is given, under the flags.
///
/// # Errors
/// What [`Given::load`] says.
pub fn load(file: Option<&Path>, flags: Given) -> Result<AgentConfig, Failure> {
    let file = file.map(Given::load).transpose()?.unwrap_or_default();
    let config = flags.or(file).complete();
    match config.eyes.expect_mounts.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(Failure::new(
            ExitCode::Usage,
            format!(
                "expect-mounts: {} is no absolute path",
                mainstay_common::text::Shown::new(path.as_os_str().as_encoded_bytes())
            ),
            "a mount is named by the whole path of its mountpoint",
            "expect-mounts = [\"/mnt/data\"]",
        )),
        None => Ok(config),
    }
}

/// Reads the time between samples: 1 s to 1 h.
///
/// # Errors
/// A sentence for people.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_secs(1), Duration::from_secs(3_600))
}

/// Reads the time between two measurements of a volume: 1 min to 90 days.
///
/// # Errors
/// A sentence for people.
pub fn parse_volume_every(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_secs(60), Duration::from_secs(90 * 86_400))
}

fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let got = parse_span(text).map_err(|error| error.to_string())?;
    if (least..=most).contains(&got) {
        Ok(got)
    } else {
        Err(format!("{text:?} is not between {} and {}", span(least), span(most)))
    }
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parse_interval(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn volume_every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parse_volume_every(&String::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_file_states_the_defaults() {
        let sample = include_str!("../../deploy/agent.toml");
        let as_shipped: Given = config::parse(sample, "agent.toml").unwrap();
        assert_eq!(as_shipped.complete(), Given::default().complete());
        // What is commented out is an example: it must be understood, too.
        let examples: String = sample
            .lines()
            .map(|line| {
                line.strip_prefix("#")
                    .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
                    .unwrap_or(line)
            })
            .fold(String::new(), |all, line| all + line + "\n");
        let given: Given = config::parse(&examples, "agent.toml").unwrap();
        assert!(given.metrics.is_some() && given.rclone.is_some());
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file: Given = config::parse("interval = \"20s\"\ndata-dir = \"/x\"\n", "agent.toml").unwrap();
        let flags = Given { interval: Some(Duration::from_secs(5)), ..Given::default() };
        let config = flags.or(file).complete();
        assert_eq!((config.eyes.interval, config.data_dir), (Duration::from_secs(5), PathBuf::from("/x")));
    }

    #[test]
    fn odd_intervals_and_keys_are_named() {
        for (text, says) in [
            ("interval = \"500ms\"", "between 1s and 1h"),
            ("interval = \"10\"", "no span of time"),
            ("intervall = \"10s\"", "nearest: `interval`"),
            ("[[rclone]]\nmount = \"/m\"\nrc = \"x\"\npassword = \"y\"", "nearest: `password_file`"),
        ] {
            let failure = config::parse::<Given>(text, "agent.toml").unwrap_err();
            assert!(failure.why.contains(says), "{failure}");
        }
    }
}
