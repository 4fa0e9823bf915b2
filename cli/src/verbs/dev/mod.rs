//! `mainstay dev`: the whole mesh in one process, with this machine's real readings.

mod group;
mod identities;
mod keys;
mod mesh;
mod replicas;
mod screen;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use mainstay_common::{
    ExitCode, Failure,
    process::{
        data_dir::DataDir,
        log::{self, LogFormat},
        shutdown,
    },
};

/// Flags of `mainstay dev`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DevArgs {
    /// Replicas of the coordinator: 1, 3 or 5
    #[arg(long, value_name = "N", default_value_t = 1)]
    replicas: usize,
    /// Where the mesh keeps its data [default: ~/.local/share/mainstay/dev]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where /metrics is served [default: 127.0.0.1:7480, or any free port]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Time between samples [default: 10s]
    #[arg(long, value_name = "SPAN", value_parser = mainstay_agent::config::parse_interval)]
    interval: Option<Duration>,
    /// The container engine's socket [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Where the agent's own /metrics is served [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
}

/// Runs until Ctrl-C.
///
/// # Errors
/// Where the data directory is in use or a part cannot start.
pub(crate) fn run(args: &DevArgs) -> Result<(), Failure> {
    if ![1, 3, 5].contains(&args.replicas) {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("dev cannot run {} replicas", args.replicas),
            "of an odd number a majority is left when one is gone; more than 5 only cost time",
            "mainstay dev --replicas 3",
        ));
    }
    let folder = data_folder(args.data_dir.as_deref())?;
    // The lock of the whole mesh: a second dev beside this one ends here.
    let lock = DataDir::take(&folder).map_err(beside)?;
    log::start_at(LogFormat::Auto, "warn");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(ExitCode::Failed, "cannot start", error.to_string(), "check this machine's limits: ulimit -a")
    })?;
    let outcome = runtime.block_on(async {
        let stop = shutdown::on_signal().map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot watch signals", error.to_string(), "start dev again")
        })?;
        mesh::run(args, lock.path(), stop).await
    });
    // What hangs in the agent must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn beside(failure: Failure) -> Failure {
    if failure.code != ExitCode::Conflict {
        return failure;
    }
    Failure::new(
        ExitCode::Conflict,
        "another mainstay dev runs already",
        failure.what,
        "use that one: mainstay status; or give this one another --data-dir",
    )
}

fn data_folder(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let share = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
    share.map(|share| share.join("mainstay/dev")).ok_or_else(|| {
        let why = "neither HOME nor XDG_DATA_HOME is set";
        Failure::new(ExitCode::Usage, "no place for the data", why, "mainstay dev --data-dir DIR")
    })
}
