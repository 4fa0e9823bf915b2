//! The program on every node: `mainstay-agent enroll`, `run`, `check`.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode as Code,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use mainstay_agent::{
    become_child_if_asked, check,
    config::{self, DATA_DIR, Given},
    enroll::{EnrollConfig, enroll},
    run,
};
use mainstay_common::{
    ExitCode, Failure,
    process::{
        log::{self, LogFormat},
        shutdown,
    },
};
use tokio::runtime::{Builder, Runtime};

/// Watches this machine's disks, mounts, volumes and containers for Mainstay.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Turn a join token into this node's certificate.
    Enroll(EnrollArgs),
    /// Send samples to every replica of the coordinator.
    Run(RunArgs),
    /// Take one sample and print it; needs no coordinator.
    Check(CheckArgs),
}

#[derive(Args, Debug)]
struct EnrollArgs {
    /// Where key and certificate are kept.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// File that holds the join token; - is standard input.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Any replica of the coordinator.
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: String,
    /// This node's name [default: the hostname].
    #[arg(long)]
    name: Option<String>,
    /// What log lines look like.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// TOML file whose keys are named as these flags; a flag wins.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where `enroll` put key and certificate.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Time between samples, 1s to 1h [default: 10s].
    #[arg(long, value_name = "SPAN", value_parser = config::parse_interval)]
    interval: Option<Duration>,
    /// The container engine's socket.
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Serve /metrics here.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// What log lines look like.
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// TOML file as for `run`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The container engine's socket.
    #[arg(long, value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> Code {
    become_child_if_asked();
    one_arena();
    match act(Cli::parse().verb) {
        Ok(()) => Code::SUCCESS,
        Err(failure) => {
            // Without a stderr there is nobody to tell.
            writeln!(io::stderr(), "error: {failure}").unwrap_or(());
            Code::from(failure.code.number())
        }
    }
}

fn act(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Enroll(args) => {
            log::start(args.log_format);
            let config = EnrollConfig {
                data_dir: args.data_dir,
                token_file: args.token_file,
                coordinator: args.coordinator,
                name: args.name,
            };
            let enrolment = on_runtime(|| enroll(&config))?;
            say(&format!("node {} is enrolled in cluster {}\n", enrolment.node, enrolment.cluster))
        }
        Verb::Run(args) => {
            let flags = Given {
                data_dir: args.data_dir,
                interval: args.interval,
                docker_socket: args.docker_socket,
                metrics: args.metrics,
                log_format: args.log_format,
                ..Given::default()
            };
            let config = config::load(args.config.as_deref(), flags)?;
            log::start(config.log_format);
            on_runtime(|| async {
                let stop = shutdown::on_signal().map_err(|error| no_runtime(&error))?;
                run::run(config, stop).await
            })
        }
        Verb::Check(args) => {
            let flags = Given { docker_socket: args.docker_socket, ..Given::default() };
            let config = config::load(args.config.as_deref(), flags)?;
            log::start_at(LogFormat::Auto, "warn");
            let seen = on_runtime(|| async { Ok(check::look(config.eyes).await) })?;
            say(&if args.json { format!("{}\n", check::to_json(&seen)) } else { check::sheet(&seen) })
        }
    }
}

/// One thread runs everything; a few more read files. None of them is waited for at the end: what hangs must not keep
/// the process.
fn on_runtime<T, F: Future<Output = Result<T, Failure>>>(work: impl FnOnce() -> F) -> Result<T, Failure> {
    let runtime: Runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(128 * 1024)
        .build()
        .map_err(|error| no_runtime(&error))?;
    let result = runtime.block_on(async { work().await });
    runtime.shutdown_background();
    result
}

fn no_runtime(error: &io::Error) -> Failure {
    Failure::new(ExitCode::Failed, "the agent cannot start", error.to_string(), "look at the limits of this process")
}

/// Prints a result. A reader that went away (`| head`) is no failure.
fn say(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(ExitCode::Failed, "cannot print", error.to_string(), "look at standard output"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Keeps the C library from giving every thread a heap of its own.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt has no safe wrapper")]
fn one_arena() {
    // SAFETY: mallopt takes two integers, and no other thread runs yet.
    let _taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(target_env = "gnu"))]
fn one_arena() {}
