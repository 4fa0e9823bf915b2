//! What the coordinator is told: flags, or keys of the same names in a TOML file; a flag wins.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use mainstay_common::{ExitCode, Failure, process::log::LogFormat};
use serde::Deserialize;

/// Where agents and operators are served by default.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:7443";
/// Where `/metrics` is served by default: loopback.
pub const DEFAULT_HTTP: &str = "127.0.0.1:7480";

/// The flags of `mainstay-coordinator run`, and the keys of its configuration file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunArgs {
    /// Where the replica keeps what must not be lost
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where agents and operators are served, by gRPC over mutual TLS [default: 0.0.0.0:7443]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where other replicas are served [default: the next port]
    #[arg(long, value_name = "ADDR:PORT")]
    pub peer_listen: Option<SocketAddr>,
    /// What agents and operators dial from now on, where that changed
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// What other replicas dial from now on, where that changed
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_advertise: Option<String>,
    /// Where /metrics is served, in plain http [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// What log lines look like: auto is text on a terminal, JSON lines otherwise
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

/// How one replica serves.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where it keeps what must not be lost.
    pub data_dir: PathBuf,
    /// Where agents and operators are served.
    pub listen: SocketAddr,
    /// Where other replicas are served.
    pub peer_listen: SocketAddr,
    /// What agents and operators, and other replicas, dial from now on; `None` leaves it as it is.
    pub advertise: Option<String>,
    /// See [`ServeConfig::advertise`].
    pub peer_advertise: Option<String>,
    /// Where `/metrics` is served.
    pub http: SocketAddr,
    /// Tell agents and operators the address it listens on, not the one given at `init`: for `mainstay dev`, which takes
    /// whatever port is free.
    pub announce_listen: bool,
    /// How long certificates live that it issues.
    pub lives: Lives,
}

/// How long certificates live; all are renewed in use. Tests make them short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// An agent's or a person's.
    pub client: Duration,
    /// A replica's.
    pub replica: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self { client: Duration::from_secs(7 * 86_400), replica: Duration::from_secs(30 * 86_400) }
    }
}

impl RunArgs {
    /// These flags, and for what they leave open the file's keys.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(file.data_dir),
            listen: self.listen.or(file.listen),
            peer_listen: self.peer_listen.or(file.peer_listen),
            advertise: self.advertise.or(file.advertise),
            peer_advertise: self.peer_advertise.or(file.peer_advertise),
            http: self.http.or(file.http),
            log_format: self.log_format.or(file.log_format),
        }
    }

    /// The configuration, with defaults for what is open still.
    ///
    /// # Errors
    /// A usage failure where there is no data directory.
    pub fn serve_config(&self) -> Result<ServeConfig, Failure> {
        let fixed = |text: &str| text.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listen = self.listen.unwrap_or_else(|| fixed(DEFAULT_LISTEN));
        for (flag, address) in [("--advertise", &self.advertise), ("--peer-advertise", &self.peer_advertise)] {
            address.as_ref().map_or(Ok(()), |address| crate::init::check_address(flag, address))?;
        }
        Ok(ServeConfig {
            data_dir: self.data_dir.clone().ok_or_else(missing_data_dir)?,
            listen,
            peer_listen: self.peer_listen.unwrap_or_else(|| beside(listen)),
            advertise: self.advertise.clone(),
            peer_advertise: self.peer_advertise.clone(),
            http: self.http.unwrap_or_else(|| fixed(DEFAULT_HTTP)),
            announce_listen: false,
            lives: Lives::default(),
        })
    }
}

/// The next port; any where any may be taken.
#[must_use]
pub fn beside(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { listen.port().checked_add(1).unwrap_or(0) };
    SocketAddr::new(listen.ip(), port)
}

/// The same host's next port; the same port where there is none.
#[must_use]
pub fn next_port(address: &str) -> String {
    let parts =
        address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?.checked_add(1)?)));
    parts.map_or_else(|| address.to_owned(), |(host, port)| format!("{host}:{port}"))
}

/// What is said where no data directory is given.
#[must_use]
pub fn missing_data_dir() -> Failure {
    Failure::new(
        ExitCode::Usage,
        "no data directory",
        "--data-dir is not given, and no configuration file names data-dir",
        "--data-dir /var/lib/mainstay-coordinator",
    )
}

#[cfg(test)]
mod tests {
    use mainstay_common::process::config;

    use super::*;

    #[test]
    fn a_flag_wins_over_the_file() {
        let file: RunArgs = config::parse("data-dir = \"/file\"\nlisten = \"1.2.3.4:5\"", "x.toml").unwrap();
        let flags = RunArgs { data_dir: Some("/flag".into()), ..RunArgs::default() };
        let config = flags.or(file).serve_config().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/flag"));
        assert_eq!(config.listen.to_string(), "1.2.3.4:5");
        assert_eq!(config.http.to_string(), DEFAULT_HTTP);
    }

    #[test]
    fn replicas_are_served_on_the_next_port() {
        let args = RunArgs { data_dir: Some("/x".into()), listen: "1.2.3.4:7443".parse().ok(), ..RunArgs::default() };
        assert_eq!(args.serve_config().unwrap().peer_listen.to_string(), "1.2.3.4:7444");
        assert_eq!((next_port("h:7443"), next_port("[::1]:65535")), ("h:7444".into(), "[::1]:65535".into()));
    }

    #[test]
    fn the_shipped_file_states_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/coordinator.toml");
        let file: RunArgs = config::load(std::path::Path::new(path)).unwrap();
        let config = file.serve_config().unwrap();
        assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
        assert_eq!(config.http.to_string(), DEFAULT_HTTP);
        assert_eq!(config.data_dir, PathBuf::from("/var/lib/mainstay-coordinator"));
    }
}
