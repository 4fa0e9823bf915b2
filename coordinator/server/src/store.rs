//! The one small file that holds everything the cluster may not lose, until the replicated log takes its place.

use std::{fs, io, path::Path};

use mainstay_common::{
    ClusterId, ExitCode, Failure, ReplicaId,
    process::data_dir::{self, DataDir},
};
use mainstay_core::{Founding, State, node::Nodes, token::Tokens, user::Users};
use serde::{Deserialize, Serialize};

/// Its name within the data directory.
pub(crate) const FILE: &str = "state.json";
/// The only format there is so far.
const FORMAT: u32 = 1;

/// Whether a data directory holds a cluster that was made whole.
#[must_use]
pub fn holds_cluster(data_dir: &Path) -> bool {
    data_dir.join(FILE).exists()
}

/// The file's content.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    cluster_id: ClusterId,
    cluster: String,
    replica: ReplicaId,
    advertise: String,
    state: Kept,
}

/// What the file keeps of the state.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    nodes: Nodes,
    tokens: Tokens,
    users: Users,
}

/// What a replica starts from.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The cluster for ever.
    pub(crate) cluster_id: ClusterId,
    /// Its name for people.
    pub(crate) cluster: String,
    /// This replica.
    pub(crate) replica: ReplicaId,
    /// What agents and operators dial.
    pub(crate) advertise: String,
    /// Every decision's outcome.
    pub(crate) state: State,
}

impl Stored {
    pub(crate) fn new(cluster_id: ClusterId, cluster: String, replica: ReplicaId, advertise: String) -> Self {
        let founding = Founding {
            id: cluster_id.clone(),
            name: cluster.clone(),
            replica: replica.clone(),
            address: advertise.clone(),
        };
        Self { cluster_id, cluster, replica, advertise, state: State::founded(founding) }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A failure that tells an empty directory from a half-made and from a damaged one.
    pub(crate) fn load(dir: &DataDir) -> Result<Self, Failure> {
        let path = dir.file(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(dir.path())),
            Err(error) => return Err(data_dir::unusable(&path, &error)),
        };
        let damaged = |why: String| {
            let try_next = "put back a copy of the whole data directory; nothing in it was changed";
            Failure::new(ExitCode::Failed, format!("{} is damaged", path.display()), why, try_next)
        };
        let content: Content = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if content.format != FORMAT {
            return Err(Failure::new(
                ExitCode::Failed,
                format!("{} is of format {}", path.display(), content.format),
                format!("this version knows format {FORMAT} only"),
                "start the version of mainstay-coordinator that wrote it",
            ));
        }
        let mut stored = Self::new(content.cluster_id, content.cluster, content.replica, content.advertise);
        let Kept { nodes, tokens, users } = content.state;
        stored.state = State { nodes, tokens, users, ..stored.state };
        Ok(stored)
    }

    /// Replaces the file whole.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let State { nodes, tokens, users, .. } = self.state.clone();
        let content = Content {
            format: FORMAT,
            cluster_id: self.cluster_id.clone(),
            cluster: self.cluster.clone(),
            replica: self.replica.clone(),
            advertise: self.advertise.clone(),
            state: Kept { nodes, tokens, users },
        };
        let text = serde_json::to_vec_pretty(&content).map_err(io::Error::other)?;
        data_dir::replace(&dir.join(FILE), &text, 0o600)
    }
}

fn missing(dir: &Path) -> Failure {
    if dir.join("ca.key").exists() {
        return Failure::new(
            ExitCode::Conflict,
            format!("{} is half-made", dir.display()),
            format!("it has a ca.key, but no {FILE}: init was interrupted, or the file was lost"),
            "after an interrupted init: empty the directory and run init again; else put the file back from a copy",
        );
    }
    if dir.join("agent.key").exists() {
        return Failure::new(
            ExitCode::Conflict,
            format!("{} belongs to an agent", dir.display()),
            "it holds an agent.key",
            "give the coordinator a --data-dir of its own",
        );
    }
    Failure::new(
        ExitCode::Conflict,
        format!("{} holds no cluster", dir.display()),
        format!("there is no {FILE}"),
        format!("mainstay-coordinator init --data-dir {} --cluster NAME --advertise HOST:PORT", dir.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::take(folder.path()).unwrap();
        assert_eq!(Stored::load(&dir).unwrap_err().code, ExitCode::Conflict);
        let parsed = |text: &str| text.parse().unwrap();
        let stored = Stored::new("c1".parse().unwrap(), "prod".into(), parsed("r1"), "host:1".into());
        stored.save(dir.path()).unwrap();
        assert_eq!(Stored::load(&dir).unwrap().cluster, "prod");
        let whole = fs::read(dir.file(FILE)).unwrap();
        for end in [0, 1, whole.len() / 2, whole.len() - 2] {
            fs::write(dir.file(FILE), &whole[..end]).unwrap();
            assert!(Stored::load(&dir).unwrap_err().what.ends_with("is damaged"), "cut at {end}");
        }
        fs::write(dir.file(FILE), String::from_utf8(whole).unwrap().replace("\"format\": 1", "\"format\": 2")).unwrap();
        assert!(Stored::load(&dir).unwrap_err().what.ends_with("is of format 2"));
    }

    #[test]
    fn half_made_and_foreign_directories_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::take(folder.path()).unwrap();
        fs::write(dir.file("agent.key"), "x").unwrap();
        assert!(Stored::load(&dir).unwrap_err().what.ends_with("belongs to an agent"));
        fs::write(dir.file("ca.key"), "x").unwrap();
        assert!(Stored::load(&dir).unwrap_err().what.ends_with("is half-made"));
    }
}
