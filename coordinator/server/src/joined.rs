//! What a replica that joined was told, until the state tells it: where the others are.

use std::{collections::BTreeMap, fs, io};

use mainstay_common::{
    Failure,
    process::{
        config,
        data_dir::{self, DataDir},
    },
};
use mainstay_core::cluster;
use serde::{Deserialize, Serialize};

use crate::peers::{Contact, Contacts};

/// The file's name within the data directory.
pub(crate) const FILE: &str = "joined.toml";

/// The answer to a join, as far as it is needed later.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Joined {
    /// Where other replicas dial this one, host:port.
    pub(crate) peer_address: String,
    /// Where it dials them, by id.
    pub(crate) replicas: BTreeMap<String, String>,
}

impl Joined {
    /// What is there; nothing of that in a cluster's first replica.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn read(dir: &DataDir) -> Result<Self, Failure> {
        let path = dir.file(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => config::parse(&text, &path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(data_dir::unusable(&path, &error)),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn write(&self, dir: &DataDir) -> Result<(), Failure> {
        let path = dir.file(FILE);
        let text = toml::to_string(self).map_err(io::Error::other);
        let written = text.and_then(|text| data_dir::replace(&path, text.as_bytes(), 0o644));
        written.map_err(|error| data_dir::unusable(&path, &error))
    }

    /// Where the others are.
    pub(crate) fn contacts(&self) -> Contacts {
        let contact = |(id, address): (&String, &String)| {
            let number = cluster::number(&id.parse().ok()?)?;
            Some((number, Contact { address: address.clone(), key: None }))
        };
        Contacts(self.replicas.iter().filter_map(contact).collect())
    }
}
