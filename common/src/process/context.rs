//! A context: everything a person's command line needs to reach one cluster, in one file (0600).

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{config, data_dir};
use crate::{ClusterId, ExitCode, Failure, UserName, identity::HumanRole};

/// The content of a context file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's trust domain.
    pub cluster_id: ClusterId,
    /// Every replica's address, host:port.
    pub addresses: Vec<String>,
    /// Who the certificate names.
    pub user: UserName,
    /// What that person may do.
    pub role: HumanRole,
    /// The cluster CA, PEM.
    pub ca: String,
    /// The person's certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

impl Context {
    /// Reads a context file.
    ///
    /// # Errors
    /// A usage failure where it is missing or not understood.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::new(
                ExitCode::Usage,
                format!("cannot read context {}", path.display()),
                error.to_string(),
                "mainstay context ls",
            )
        })?;
        config::parse(&text, &path.display().to_string())
    }

    /// Writes the file whole, readable by its owner only.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        data_dir::replace(path, text.as_bytes(), 0o600)
    }
}
