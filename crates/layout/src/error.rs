//! What can be wrong with a layout or an archive.

use std::path::{Path, PathBuf};

/// A layout or an archive that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write".
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The path holds no image layout.
    #[error("{} is no image layout: {reason}", path.display())]
    NotALayout {
        /// The folder or tar file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// An archive that is damaged, or that holds what no archive of ours may hold.
    #[error("{archive}: {reason}")]
    Archive {
        /// The file or layer.
        archive: String,
        /// Which member, what was expected and what was found.
        reason: String,
    },
    /// The layout or the artifact does not hold what was asked for, or several things that it could be.
    #[error("{message}")]
    Refused {
        /// What was refused, and why.
        message: String,
        /// What the person can do.
        hint: Option<&'static str>,
    },
    /// A document of the layout that does not follow its specification.
    #[error(transparent)]
    Artifact(#[from] mlxctl_artifact::Error),
    /// Content that is missing, or is not what its digest says.
    #[error(transparent)]
    Content(#[from] mlxctl_content::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] mlxctl_store::Error),
}

impl Error {
    /// What the person can do, where something can be done.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Refused { hint, .. } => *hint,
            Self::Content(error) => error.hint(),
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

impl From<Error> for mlxctl_content::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Content(error) => error,
            Error::Store(error) => error.into(),
            Error::Io { what, path, source } => Self::Io { what: format!("cannot {what} {}", path.display()), source },
            other => Self::Refused { message: other.to_string() },
        }
    }
}
