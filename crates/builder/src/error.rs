//! What can stop a build.

use std::path::PathBuf;

/// Why a recipe did not become an artifact.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file that the recipe names cannot be read.
    #[error("{key}: {}: {source}", path.display())]
    Path {
        /// The recipe's key that names it.
        key: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The source is no model that can be packed.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The folder or file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
        /// What the person can do.
        hint: Option<&'static str>,
    },
    /// The lock file cannot be used.
    #[error("{path}: {reason}")]
    Lock {
        /// The lock file.
        path: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// The recipe names something elsewhere that was not brought here.
    #[error("{key}: {what} is not on this machine")]
    Absent {
        /// The recipe's key.
        key: String,
        /// What it names.
        what: String,
    },
    /// The recipe asks for something that this version cannot do.
    #[error("{key}: {what} is not supported yet")]
    NotYet {
        /// The recipe's key.
        key: String,
        /// What was asked for.
        what: String,
    },
    /// The recipe asks for something that does not fit the model.
    #[error("{key}: {reason}")]
    Unfit {
        /// The recipe's key.
        key: String,
        /// Why it does not fit.
        reason: String,
    },
    /// The weights cannot be read or converted.
    #[error(transparent)]
    Weights(#[from] mlxctl_weights::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] mlxctl_store::Error),
    /// A name in the model cannot be a layer's path.
    #[error(transparent)]
    Artifact(#[from] mlxctl_artifact::Error),
}

impl Error {
    /// Whether the recipe or the call has to change, rather than the machine or the model's files.
    pub fn is_recipes_fault(&self) -> bool {
        matches!(self, Self::NotYet { .. } | Self::Unfit { .. } | Self::Absent { .. } | Self::Lock { .. })
            || matches!(self, Self::Path { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    /// What the person can do, where something can be done.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Source { hint, .. } => *hint,
            Self::Path { .. } => Some("relative paths start from the folder of the recipe"),
            _ => None,
        }
    }
}
