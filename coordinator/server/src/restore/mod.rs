//! `mainstay-coordinator restore`: the majority is lost for good, and one replica goes on without the others.
//!
//! The state comes from a backup, or from what is left: a replica's own data directory. It founds a new generation with
//! one replica under a number that nobody had; terms begin anew, and whatever the generation before still says is refused.

mod place;
mod source;

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use mainstay_common::{
    ExitCode, Failure,
    identity::Subject,
    process::{data_dir::DataDir, now, tls::new_key},
};
use mainstay_core::{Actor, Command, Consequence, Entry, Origin, audit, cluster};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use self::place::{interrupted, is_interrupted};
use self::{place::Staging, source::Source};
use crate::{
    config::{Lives, next_port},
    identity::{Authority, CA_FILE, KEY_FILE, Opener, fingerprint, issue_replica, write},
    joined::Joined,
    log,
    raft::Position,
};

/// How long a replica that may be alive has to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// What `restore` is told.
#[derive(Clone, Debug)]
pub struct RestoreConfig {
    /// Where the new replica will keep what must not be lost: empty, or the surviving replica's own.
    pub data_dir: PathBuf,
    /// Where the state comes from.
    pub from: RestoreFrom,
    /// What agents and operators will dial, host:port; the surviving replica's own where it is not given.
    pub advertise: Option<String>,
    /// What other replicas will dial; the next port where it is not given.
    pub peer_advertise: Option<String>,
    /// At least this generation: for a backup from before an earlier restore.
    pub generation: Option<u64>,
    /// Even where a majority of the old replicas seems to be alive.
    pub force: bool,
}

/// Where the state comes from.
#[derive(Clone, Debug)]
pub enum RestoreFrom {
    /// A file that `mainstay cluster backup` made.
    File {
        /// The file.
        path: PathBuf,
        /// The file with the key that seals it.
        recovery_key: Option<PathBuf>,
    },
    /// A surviving replica's data directory: the one that is restored into, or another, which is left as it is.
    Replica(PathBuf),
}

/// What there is to restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The cluster's name.
    pub cluster: String,
    /// Its generation until now.
    pub generation: u64,
    /// The term of the last entry: of several replicas the one with the highest has the most,
    pub last_term: u64,
    /// and where terms are equal the one with the highest index.
    pub last_index: u64,
    /// When the last decision in it was made, in milliseconds since 1970, where that is known.
    pub until_ms: Option<i64>,
    /// The replicas as of then: id and what agents and operators dial.
    pub replicas: Vec<(String, String)>,
}

/// What `restore` made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// What it was made of.
    pub of: Remains,
    /// The new generation.
    pub generation: u64,
    /// Its only replica.
    pub replica: String,
    /// What agents and operators dial there.
    pub address: String,
    /// Join tokens that count no more.
    pub void_tokens: usize,
    /// Where the data directory's files of before are.
    pub kept_aside: Option<PathBuf>,
}

/// What a restore would have to work with. Nothing is changed.
///
/// # Errors
/// Why it cannot be read.
pub fn look(config: &RestoreConfig) -> Result<Remains, Failure> {
    if !config.data_dir.exists() {
        let source = match &config.from {
            RestoreFrom::File { path, recovery_key } => source::of_file(path, recovery_key.as_deref()),
            RestoreFrom::Replica(left) => source::of_directory(&DataDir::take_existing(left)?),
        };
        return Ok(source?.remains());
    }
    let (dir, elsewhere) = open(config)?;
    if is_interrupted(dir.path()) {
        return Err(interrupted(dir.path()));
    }
    Ok(source::read(&dir, elsewhere.as_ref(), &config.from)?.remains())
}

/// Makes the new generation. The identity of its log comes last: until then the directory holds what it held, and a restore
/// that was interrupted is completed by the next one.
///
/// # Errors
/// Three lines; what is in the data directory is untouched.
pub fn restore(config: &RestoreConfig) -> Result<Restored, Failure> {
    for (flag, address) in [("--advertise", &config.advertise), ("--peer-advertise", &config.peer_advertise)] {
        address.as_ref().map_or(Ok(()), |address| crate::init::check_address(flag, address))?;
    }
    let (dir, elsewhere) = open(config)?;
    if is_interrupted(dir.path()) {
        return place::finish(&dir);
    }
    let source = source::read(&dir, elsewhere.as_ref(), &config.from)?;
    let left = elsewhere.as_ref().unwrap_or(&dir);
    if !config.force {
        refuse_living(&source)?;
    }
    let generation = generation(left, &source, config.generation)?;
    let (address, peer_address) = addresses(config, &source)?;

    let staging = Staging::begin(&dir)?;
    let opener = match &source.opener {
        Some(secret) => Opener::given(staging.dir(), secret.0)?,
        None => Opener::read(left).map_err(|why| closed(&why))?,
    };
    let key = new_key();
    write(staging.dir(), KEY_FILE, &key.serialize_pem())?;
    let restore = cluster::Restore {
        generation,
        address: address.clone(),
        peer_address: peer_address.clone(),
        key: fingerprint(&key),
    };
    let mut state = source.state.clone();
    let void_tokens = state.tokens.iter().filter(|(_, token)| token.revoked_at.is_none()).count();
    let at = source.until.map_or_else(now, |until| now().max(until));
    let command = Command::Cluster(cluster::Command::Restore(restore));
    let entry =
        Entry { at, actor: Actor::Root, from: Origin::Socket, request: None, command, asked: None, through: None };
    // Indexes go on, so that revisions and the audit trail do; terms begin anew.
    let founding = Position { index: source.last.index + 1, term: 1 };
    let outcome = state.apply(founding.index, &entry);
    let line = log::line(founding.term, audit::Record::of(founding.index, &entry, &outcome));
    let refused = |why: String| Failure::new(ExitCode::Failed, "nothing was restored", why, "nothing was changed");
    let Consequence::Cluster(cluster::Consequence::Restored(replica)) =
        outcome.map_err(|why| refused(why.to_string()))?
    else {
        return Err(refused("a restore restores".into()));
    };

    let (_, following) = watch::channel(Arc::new(state.clone()));
    let authority = Authority::new(state.cluster.about().id.clone(), following, Ok(opener), Lives::default());
    issue_replica(staging.dir(), &replica, |key, subject: Subject, now| authority.sign_replica(key, subject, now))?;
    write(staging.dir(), CA_FILE, &authority.bundle())?;
    Joined { peer_address, ..Joined::default() }.write(staging.dir())?;
    log::found_at(staging.dir(), &state, &replica, founding)?;
    let is_in_place = matches!(config.from, RestoreFrom::Replica(_)) && elsewhere.is_none();
    let kept_aside = is_in_place.then(|| place::aside(&dir, generation));
    let of = source.remains();
    let restored = Restored { of, generation, replica: replica.to_string(), address, void_tokens, kept_aside };
    if let Some(elsewhere) = &elsewhere {
        place::copy_audit(elsewhere.path(), dir.path())?;
    }
    let lines: Vec<_> = source.lines.into_iter().chain([line]).collect();
    staging.commit(&dir, &restored, &lines)?;
    place::finish(&dir)
}

/// Where the new replica will be, and the surviving one's directory where that is another.
fn open(config: &RestoreConfig) -> Result<(DataDir, Option<DataDir>), Failure> {
    let RestoreFrom::Replica(left) = &config.from else { return Ok((DataDir::take(&config.data_dir)?, None)) };
    let whole = |path: &PathBuf| path.canonicalize().ok();
    if *left == config.data_dir || whole(left).is_some_and(|left| Some(left) == whole(&config.data_dir)) {
        return Ok((DataDir::take_existing(&config.data_dir)?, None));
    }
    let left = DataDir::take_existing(left)?;
    Ok((DataDir::take(&config.data_dir)?, Some(left)))
}

/// Higher than any that is known here.
fn generation(left: &DataDir, source: &Source, wanted: Option<u64>) -> Result<u64, Failure> {
    let seen =
        place::generations_aside(left.path())?.max(source.generation).max(source.state.cluster.about().generation);
    match wanted {
        None => Ok(seen + 1),
        Some(wanted) if wanted > seen => Ok(wanted),
        Some(wanted) => Err(Failure::new(
            ExitCode::Usage,
            format!("generation {wanted} was there already"),
            format!("generation {seen} is known here: whoever heard of it would refuse a lower one"),
            format!("--generation {}, or leave it out", seen + 1),
        )),
    }
}

fn addresses(config: &RestoreConfig, source: &Source) -> Result<(String, String), Failure> {
    let own = source.own.as_ref().and_then(|own| source.state.cluster.replica(own));
    let missing = || {
        let why = "agents and operators must be able to dial the new replica";
        Failure::new(ExitCode::Usage, "no address", why, "--advertise 10.0.0.11:7443")
    };
    let address = config.advertise.clone().or_else(|| own.map(|own| own.address.clone())).ok_or_else(missing)?;
    let same = own.filter(|own| own.address == address).and_then(|own| own.peer_address.clone());
    let peers = config.peer_advertise.clone().or(same).unwrap_or_else(|| next_port(&address));
    Ok((address, peers))
}

/// A cluster whose majority lives needs no restore, and would be torn in two by one.
fn refuse_living(source: &Source) -> Result<(), Failure> {
    let all = source.state.cluster.replicas().count();
    let others = source.state.cluster.replicas().filter(|(id, _)| Some(*id) != source.own.as_ref());
    let answers = |address: &str| {
        let mut addresses = address.to_socket_addrs().into_iter().flatten();
        addresses.any(|address| TcpStream::connect_timeout(&address, ANSWER).is_ok())
    };
    let alive: Vec<String> = others
        .filter(|(_, replica)| replica.peer_address.as_deref().is_some_and(answers))
        .map(|(id, replica)| format!("{id} at {}", replica.peer_address.as_deref().unwrap_or(&replica.address)))
        .collect();
    if alive.len() * 2 <= all {
        return Ok(());
    }
    Err(Failure::new(
        ExitCode::Conflict,
        format!("{} of {all} replicas seem to be alive: this cluster is not lost", alive.len()),
        format!("somebody answers as {}", alive.join(", ")),
        "mainstay cluster status; where these are others, or must go too: stop them, or restore --force",
    ))
}

fn closed(why: &dyn std::fmt::Display) -> Failure {
    let try_next =
        "put that file back from a copy: without it nothing can be signed, or restore from a backup, which has it";
    Failure::new(ExitCode::Failed, "the CA's key cannot be opened", why.to_string(), try_next)
}

#[cfg(test)]
mod tests;
