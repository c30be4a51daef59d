//! `config.yaml`, the settings that outlast a shell.

use std::path::Path;

use serde::Deserialize;

use crate::Error;

/// The configuration file. Unknown keys are errors, so that a typing mistake is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// The address of `mlxserve`.
    pub host: Option<String>,
    /// The port of `mlxserve`.
    pub port: Option<u16>,
    /// What completes short names on push and pull.
    pub registry: Option<String>,
    /// The filter of log lines.
    pub log: Option<String>,
    /// Threads of the CPU backend.
    pub threads: Option<usize>,
}

impl ConfigFile {
    /// Reads a file that must be there.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| Error::File { path: path.to_owned(), message: error.to_string() })
    }

    /// Reads a file, or takes none for an empty one.
    pub fn read_if_present(path: &Path) -> Result<Self, Error> {
        match Self::read(path) {
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            other => other,
        }
    }
}
