//! `mainstay-coordinator`: init, join, run, admin.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use mainstay_common::{
    Failure,
    process::{config, data_dir, log, shutdown},
};
use mainstay_coordinator::{InitConfig, JoinConfig, admin_socket, config::RunArgs, init, join, run};
use tokio::sync::oneshot;

/// Mainstay's coordinator: one replica of it
#[derive(Parser)]
#[command(name = "mainstay-coordinator", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new cluster: its CA and its first replica
    Init(InitArgs),
    /// Make this machine one more replica: `mainstay cluster add` prints the line
    Join(JoinArgs),
    /// Serve agents and operators
    Run {
        #[command(flatten)]
        args: RunArgs,
        /// TOML file with keys named like the flags; a flag wins
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Make a fresh administrator's context; for root on this machine, while the replica runs
    Admin {
        /// The running replica's data directory
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Where to write the context (0600)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Args)]
struct InitArgs {
    /// Where the replica will keep what must not be lost
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The cluster's name
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// What agents and operators dial
    #[arg(long, value_name = "HOST:PORT")]
    advertise: String,
    /// What other replicas will dial [default: the next port]
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
}

#[derive(Args)]
struct JoinArgs {
    /// Where the replica will keep what must not be lost
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The file with the token that `mainstay cluster add` made
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Any replica of the cluster
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: String,
    /// What agents and operators will dial here
    #[arg(long, value_name = "HOST:PORT")]
    advertise: String,
    /// What other replicas will dial here [default: the next port]
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code.number())
        }
    }
}

fn carry_out(verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Init(args) => {
            let made = init(&InitConfig {
                data_dir: args.data_dir.clone(),
                cluster: args.cluster.clone(),
                advertise: args.advertise,
                peer_advertise: args.peer_advertise,
            })?;
            println!("cluster {} made", args.cluster);
            println!("CA fingerprint  {}", made.ca_fingerprint);
            println!("admin context   {}", made.context_path.display());
            println!("next            mainstay-coordinator run --data-dir {}", args.data_dir.display());
            Ok(())
        }
        Verb::Join(args) => {
            let config = JoinConfig {
                data_dir: args.data_dir,
                token_file: args.token_file,
                coordinator: args.coordinator,
                advertise: args.advertise,
                peer_advertise: args.peer_advertise,
            };
            let id = runtime()?.block_on(join(&config))?;
            println!("replica {id} made");
            println!("next            mainstay-coordinator run --data-dir {}", config.data_dir.display());
            Ok(())
        }
        Verb::Run { args, config } => serve(args, config),
        Verb::Admin { data_dir, out } => runtime()?.block_on(async {
            let context = admin_socket::request(&data_dir).await?;
            context.save(&out).map_err(|error| data_dir::unusable(&out, &error))?;
            println!("{}", out.display());
            Ok(())
        }),
    }
}

fn serve(args: RunArgs, file: Option<PathBuf>) -> Result<(), Failure> {
    let file = file.map(|path| config::load(&path)).transpose()?.unwrap_or_default();
    let args = args.or(file);
    let config = args.serve_config()?;
    log::start(args.log_format.unwrap_or_default());
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let stop = shutdown::on_signal().map_err(|error| no_runtime(&error))?;
        let (started, _) = oneshot::channel();
        run(config, stop, started).await
    });
    // A write that hangs on a dead disk must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| no_runtime(&error))
}

fn no_runtime(error: &std::io::Error) -> Failure {
    Failure::new(
        mainstay_common::ExitCode::Failed,
        "cannot start",
        error.to_string(),
        "check this machine's limits: ulimit -a",
    )
}
