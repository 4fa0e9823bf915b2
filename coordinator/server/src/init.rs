//! `mainstay-coordinator init`: a new cluster with its CA and its first replica.

use std::path::PathBuf;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use mainstay_common::{
    ClusterId, ExitCode, Failure, ReplicaId, Timestamp, UserName,
    id::is_name,
    identity::{HumanRole, Subject},
    process::{
        context::Context,
        data_dir::{self, DataDir},
        now, random,
        tls::{new_key, signing_request},
    },
};
use mainstay_core::{Actor, Command, Entry, Founding, Origin, State, audit, ca, cluster, user};

use crate::{
    audit::{FOLDER, Line, Trail},
    config::{Lives, next_port},
    identity::{CA_FILE, Ca, OPENER_FILE, Opener, Request, issue_replica, key_of_files, new_root, write},
    log, versions,
};

/// What `init` is told.
#[derive(Clone, Debug)]
pub struct InitConfig {
    /// Where the replica will keep what must not be lost.
    pub data_dir: PathBuf,
    /// The cluster's name for people.
    pub cluster: String,
    /// What agents and operators dial, host:port.
    pub advertise: String,
    /// What other replicas dial; the next port where it is not given.
    pub peer_advertise: Option<String>,
}

/// What `init` made.
#[derive(Clone, Debug)]
pub struct Initialised {
    /// SHA-256 of the CA's public key, hexadecimal.
    pub ca_fingerprint: String,
    /// The first administrator's context.
    pub context: Context,
    /// Where it was written.
    pub context_path: PathBuf,
}

/// Makes the cluster. The log comes last: as long as it is missing there is no cluster.
///
/// # Errors
/// A conflict where the directory holds one already; else what the disk says.
pub fn init(config: &InitConfig) -> Result<Initialised, Failure> {
    check(config)?;
    let dir = DataDir::take(&config.data_dir)?;
    refuse_used(&dir)?;
    let now = now();
    let cluster_id = new_cluster_id();
    let failed =
        |error: crate::identity::Unsigned| Failure::new(ExitCode::Failed, "cannot make the CA", error.to_string(), "");
    let (ca, private) = Ca::make(&cluster_id, &config.cluster, now).map_err(failed)?;
    let replica: ReplicaId = "r1".parse().map_err(|_| Failure::new(ExitCode::Failed, "r1 is no id", "", ""))?;
    let opener = Opener::make(&dir)?;
    let root = new_root(&cluster_id, &ca, &private, &opener, None);
    write(&dir, CA_FILE, ca.pem())?;
    let lives = Lives::default();
    let peers = config.peer_advertise.clone().unwrap_or_else(|| next_port(&config.advertise));
    issue_replica(&dir, &replica, |key, subject, now| ca.sign_replica(key, subject, now, lives.replica))?;

    let (name, address) = (config.cluster.clone(), config.advertise.clone());
    // A list that says nothing of it is of version 1.
    let version = Some(versions::known()).filter(|version| *version > 1);
    let advertise =
        cluster::Command::Advertise(replica.clone(), address.clone(), Some(peers), key_of_files(&dir), version);
    let mut state = State::founded(Founding { id: cluster_id, name, replica, address });
    state.cluster.apply(now, &advertise).map_err(|why| {
        Failure::new(ExitCode::Failed, "the cluster cannot be founded", why.to_string(), "correct the addresses")
    })?;
    adopt(&mut state, root, now)?;
    let (context, line) = admin_context(&mut state, &ca, config, now)?;
    let context_path = dir.file("admin.context");
    context.save(&context_path).map_err(|error| data_dir::unusable(&context_path, &error))?;
    let unusable = |error: std::io::Error| data_dir::unusable(&dir.file(FOLDER), &error);
    let mut trail = Trail::open(dir.path()).map_err(unusable)?;
    trail.add(line);
    trail.sync().map_err(unusable)?;
    log::found(&dir, &state)?;
    Ok(Initialised { ca_fingerprint: HEXLOWER.encode(&ca.pin()), context, context_path })
}

/// The first root is part of what the cluster is founded with.
fn adopt(state: &mut State, root: ca::NewRoot, now: Timestamp) -> Result<(), Failure> {
    let command = Command::Ca(ca::Command::Adopt(root));
    let adopt =
        Entry { at: now, actor: Actor::Root, from: Origin::Socket, request: None, command, asked: None, through: None };
    let adopted = state.apply(1, &adopt);
    adopted.map(drop).map_err(|why| Failure::new(ExitCode::Failed, "cannot make the CA", why.to_string(), ""))
}

/// A fresh context for the administrator `admin`, registered in the state, and the audit's line for it.
fn admin_context(state: &mut State, ca: &Ca, config: &InitConfig, now: Timestamp) -> Result<(Context, Line), Failure> {
    let failed = |why: String| Failure::new(ExitCode::Failed, "cannot make the administrator", why, "");
    let name: UserName = "admin".parse().map_err(|_| failed("admin is no name".into()))?;
    let key = new_key();
    let der = signing_request(&key).map_err(|error| failed(error.to_string()))?;
    let request = Request::from_der(&der).map_err(|error| failed(error.to_string()))?;
    let user = user::User {
        role: HumanRole::Admin,
        key: request.key(),
        added_at: now,
        added_by: name.clone(),
        revoked_at: None,
    };
    let command = Command::User(user::Command::Add(name.clone(), user));
    let add =
        Entry { at: now, actor: Actor::Root, from: Origin::Socket, request: None, command, asked: None, through: None };
    // The first entry is the checkpoint that founds the log.
    let outcome = state.apply(1, &add);
    let line = log::line(1, audit::Record::of(1, &add, &outcome));
    outcome.map_err(|error| failed(error.to_string()))?;
    let subject = Subject::User(HumanRole::Admin, name.clone());
    let certificate =
        ca.sign_client(&request, subject, now, Lives::default().client).map_err(|error| failed(error.to_string()))?;
    let context = Context {
        cluster: config.cluster.clone(),
        cluster_id: state.cluster.about().id.clone(),
        addresses: vec![config.advertise.clone()],
        user: name,
        role: HumanRole::Admin,
        ca: ca.pem().to_owned(),
        certificate,
        key: key.serialize_pem(),
    };
    Ok((context, line))
}

fn check(config: &InitConfig) -> Result<(), Failure> {
    if !is_name(&config.cluster) {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{:?} cannot name a cluster", config.cluster),
            "a name is 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit",
            "--cluster prod",
        ));
    }
    check_address("--advertise", &config.advertise)?;
    config.peer_advertise.as_ref().map_or(Ok(()), |address| check_address("--peer-advertise", address))
}

/// Whether others could dial that.
///
/// # Errors
/// A usage failure that names the flag.
pub(crate) fn check_address(flag: &str, address: &str) -> Result<(), Failure> {
    let (host, port) = address.rsplit_once(':').unwrap_or(("", ""));
    if host.is_empty() || !matches!(port.parse::<u16>(), Ok(1..)) {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{address:?} is no address"),
            "others must be able to dial it: a host or IP, a colon and a port",
            format!("{flag} 10.0.0.11:7443"),
        ));
    }
    Ok(())
}

fn refuse_used(dir: &DataDir) -> Result<(), Failure> {
    if log::holds_cluster(dir.path()) {
        let named = Context::load(&dir.file("admin.context")).map(|context| format!("cluster {}", context.cluster));
        let cluster = named.unwrap_or_else(|_| "a cluster".into());
        return Err(Failure::new(
            ExitCode::Conflict,
            format!("{} holds {cluster} already", dir.path().display()),
            "init never replaces a cluster",
            "mainstay-coordinator run serves it; for a new cluster give another --data-dir",
        ));
    }
    if dir.file(OPENER_FILE).exists() || dir.file("agent.key").exists() {
        return log::refuse_missing(dir.path());
    }
    Ok(())
}

/// 80 random bits, lower case: it is part of a DNS name.
fn new_cluster_id() -> ClusterId {
    let text = BASE32_NOPAD.encode(&random::<10>()).to_ascii_lowercase();
    text.parse().expect("base32 is a name")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_cluster_is_made_once_and_its_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let config = InitConfig {
            data_dir: folder.path().join("c"),
            cluster: "prod".into(),
            advertise: "127.0.0.1:7443".into(),
            peer_advertise: None,
        };
        let made = init(&config).unwrap();
        assert_eq!(made.ca_fingerprint.len(), 64);
        for name in ["ca-opener.key", "replica.key", "admin.context", "log/identity"] {
            let mode = std::fs::metadata(config.data_dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        let again = init(&config).unwrap_err();
        assert_eq!(again.code, ExitCode::Conflict);
        assert_eq!(Context::load(&made.context_path).unwrap(), made.context);
    }

    #[test]
    fn odd_names_and_addresses_are_refused() {
        for (cluster, advertise) in
            [("a b", "h:1"), ("", "h:1"), ("prod", "h"), ("prod", ":7443"), ("prod", "h:0"), ("prod", "h:x")]
        {
            let (data_dir, peer_advertise) = ("/nonexistent/x".into(), None);
            let config = InitConfig { data_dir, cluster: cluster.into(), advertise: advertise.into(), peer_advertise };
            assert_eq!(init(&config).unwrap_err().code, ExitCode::Usage, "{cluster:?} {advertise:?}");
        }
    }
}
