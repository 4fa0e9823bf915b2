//! `mainstay-coordinator`: init, join, run, restore, admin.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use mainstay_common::{
    Failure, Timestamp,
    process::{config, data_dir, log, shutdown},
};
use mainstay_coordinator::{
    InitConfig, JoinConfig, Remains, RestoreConfig, RestoreFrom, Restored, admin_socket, config::RunArgs, init, join,
    look, restore, run,
};
use tokio::sync::oneshot;

/// The state's tables and every call are many small allocations: with glibc's allocator a decision takes a quarter more
/// CPU (measured, `tests/bench/raft`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// After the majority of the replicas is lost for good: go on with one, as a new generation
    ///
    /// Where replicas are left, restore on the one that has the most: run `restore --from-replica DIR --dry-run` on each,
    /// and take the highest last term, and of equal ones the highest last index. Where none is left, take a backup: --from
    /// FILE.
    Restore(RestoreArgs),
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

#[derive(Args)]
struct RestoreArgs {
    /// Where the new replica will keep what must not be lost: empty, or the same as --from-replica
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The file that `mainstay cluster backup` made
    #[arg(long, value_name = "FILE", required_unless_present = "from_replica", conflicts_with = "from_replica")]
    from: Option<PathBuf>,
    /// The file with the key that the backup is sealed with
    #[arg(long, value_name = "FILE", requires = "from")]
    recovery_key_file: Option<PathBuf>,
    /// The data directory of a replica that is left and does not run; where it is --data-dir too, it goes on there, and
    /// what was there is kept aside
    #[arg(long, value_name = "DIR")]
    from_replica: Option<PathBuf>,
    /// What agents and operators dial [default with --from-replica: as before]
    #[arg(long, value_name = "HOST:PORT", required_unless_present_any = ["from_replica", "dry_run"])]
    advertise: Option<String>,
    /// What other replicas will dial [default: the next port]
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
    /// At least this generation: where the cluster was restored already since the backup was taken
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// Say what would be restored, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Even where a majority of the old replicas seems to be alive
    #[arg(long)]
    force: bool,
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
        Verb::Restore(args) => {
            let from = match (args.from, args.from_replica) {
                (Some(path), _) => RestoreFrom::File { path, recovery_key: args.recovery_key_file },
                (None, left) => RestoreFrom::Replica(left.unwrap_or_else(|| args.data_dir.clone())),
            };
            let config = RestoreConfig {
                data_dir: args.data_dir,
                from,
                advertise: args.advertise,
                peer_advertise: args.peer_advertise,
                generation: args.generation,
                force: args.force,
            };
            if args.dry_run {
                print!("{}", remains(&look(&config)?));
            } else {
                print!("{}", restored(&restore(&config)?, &config));
            }
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

/// What there is, so that replicas can be compared.
fn remains(of: &Remains) -> String {
    let until = of.until_ms.map_or_else(|| "in its checkpoint, long ago".into(), |until| Timestamp(until).to_string());
    let replicas: Vec<String> = of.replicas.iter().map(|(id, address)| format!("{id} at {address}")).collect();
    format!(
        "cluster         {}, generation {}\nlast term       {}\nlast index      {}    (of several replicas the one with the \
         highest term has the most, of equal terms the one with the highest index)\nlast decision   {until}\nreplicas        \
         {}\n",
        of.cluster,
        of.generation,
        of.last_term,
        of.last_index,
        replicas.join(", "),
    )
}

/// What was done, what may be missing, and what comes next.
fn restored(made: &Restored, config: &RestoreConfig) -> String {
    let Restored { of, generation, replica, address, void_tokens, kept_aside } = made;
    let (cluster, folder) = (&of.cluster, config.data_dir.display());
    let until = of.until_ms.map_or_else(|| "its last entry".into(), |until| Timestamp(until).to_string());
    let aside = kept_aside.as_ref().map_or_else(String::new, |aside| format!("kept aside      {}\n", aside.display()));
    let is_known = of.replicas.iter().any(|(_, known)| known == address);
    let known: Vec<&str> = of.replicas.iter().map(|(_, address)| address.as_str()).collect();
    let agents = if is_known {
        "agents and contexts come back by themselves".to_owned()
    } else {
        format!(
            "agents and contexts know {}: let one of these lead here (a name, an address that moves), or enroll the \
             agents again",
            known.join(", ")
        )
    };
    format!(
        "cluster {cluster} restored as generation {generation}: replica {replica} at {address} is all of it\n{}{aside}\
         join tokens     {void_tokens} count no more; make new ones\n\
         \n\
         Whatever was decided after {until} may be forgotten:\n\
         - users who were revoked and nodes that were removed since may come in again: revoke and remove them again\n\
         - users, nodes and tokens that came since are unknown; such an agent waits, and is not removed: enroll it again\n\
         - declarations, labels, acknowledgements and steps of a rotation of the CA are as they were\n\
         - messages that were delivered since may be sent again, with the same Idempotency-Key\n\
         \n\
         next            mainstay-coordinator run --data-dir {folder}    (with its --listen, --peer-listen, --http)\n\
         other replicas  empty their data directories; then mainstay cluster add, and mainstay-coordinator join. One that \
         is started with what it had is refused\n\
         agents          {agents}\n\
         administrator   mainstay-coordinator admin --data-dir {folder} --out FILE makes a context, where none is left\n",
        remains(of),
    )
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
