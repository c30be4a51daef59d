//! What can go wrong with the store: each error names the file and, where there is one, the next step.

use std::io;
use std::path::{Path, PathBuf};

use mlxctl_artifact::Digest;

/// A failed operation on the local store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "lock".
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No such tag, repository or upload.
    #[error("{what} is not in the store")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// A blob that should be here is not.
    #[error("blob {digest} is not in the store (no file {})", path.display())]
    Missing {
        /// The blob.
        digest: Digest,
        /// Where it would lie.
        path: PathBuf,
    },
    /// A blob's bytes are not those that its name says.
    #[error("blob {digest} is damaged: the {bytes} bytes of {} have the digest {found}", path.display())]
    Damaged {
        /// The blob.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// Bytes in the file.
        bytes: u64,
        /// Their digest.
        found: Box<Digest>,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("blob {digest} should have {expected} bytes, {} has {found}", path.display())]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Its file.
        path: PathBuf,
        /// Bytes that the descriptor says.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A folder, a link or a device lies where a file should.
    #[error("{} is {found}, expected a regular file", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file of the store does not hold what it should.
    #[error("{} cannot be used: {reason}", path.display())]
    Document {
        /// Its path.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// The folder is something else than a store.
    #[error("{} is not a store of mlxctl: {reason}", path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A change was asked of a store that can only be read.
    #[error("the store {} can only be read", path.display())]
    ReadOnly {
        /// The store's folder.
        path: PathBuf,
    },
    /// A document beyond the size that the caller is ready to hold.
    #[error("{digest} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// A name or a document that does not follow its specification.
    #[error(transparent)]
    Artifact(#[from] mlxctl_artifact::Error),
    /// The request cannot be done, or not in this state.
    #[error("{message}")]
    Refused {
        /// What was refused, and why.
        message: String,
    },
}

impl Error {
    /// What the person can do about it, where something can be done.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } | Self::Damaged { .. } | Self::WrongSize { .. } => {
                Some("pull the model again: what is missing or damaged is fetched anew, the rest is kept")
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some(
                "make room (`mlxctl gc` removes what no name needs), then do the same again: it goes on where it stopped",
            ),
            Self::NotAFile { .. } => Some("move it away, then pull the model again"),
            Self::Document { .. } => Some("move the file away; a tag is written again by the next pull or create"),
            Self::NotAStore { .. } => Some("name an empty folder, or take a layout in with `mlxctl import`"),
            _ => None,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn document(path: &Path, reason: impl ToString) -> Self {
        Self::Document { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl From<Error> for mlxctl_content::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { what } => Self::NotFound { what },
            Error::Missing { digest, .. } => Self::NotFound { what: format!("blob {digest}") },
            Error::Io { what, path, source } => Self::Io { what: format!("cannot {what} {}", path.display()), source },
            Error::WrongSize { digest, expected, found, .. } => Self::SizeMismatch { digest, expected, found },
            Error::Damaged { digest, path, found, .. } => {
                Self::DigestMismatch { what: path.display().to_string(), expected: digest, found: *found }
            }
            Error::Artifact(source) => Self::Document { what: "the store".to_owned(), source },
            other => Self::Refused { message: other.to_string() },
        }
    }
}
