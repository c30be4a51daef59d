//! What can go wrong between two stores.

use mlxctl_artifact::Digest;

/// A failed operation on content. Remote and local stores share this one enum, so that a copy has one error to return.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store has no such blob, manifest, tag or repository.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for, and where.
        what: String,
    },
    /// The bytes received are not those that were asked for.
    #[error("digest mismatch of {what}: expected {expected}, got {found}")]
    DigestMismatch {
        /// Where the bytes came from.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// More or fewer bytes came than the descriptor says.
    #[error("size mismatch of {digest}: expected {expected} bytes, got {found}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// Bytes that the descriptor says.
        expected: u64,
        /// Bytes that came (a lower bound where reading stopped early).
        found: u64,
    },
    /// A document that does not follow its specification.
    #[error("{what}: {source}")]
    Document {
        /// The document's digest or name.
        what: String,
        /// What is wrong with it.
        source: mlxctl_artifact::Error,
    },
    /// The file system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done to which file.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A registry refused or failed; the message names the address without its secrets.
    #[error("{message}")]
    Remote {
        /// What happened, where.
        message: String,
        /// The HTTP status where an answer came.
        status: Option<u16>,
        /// What the person can do.
        hint: Option<String>,
    },
    /// The request cannot be done by this store, or not in this state.
    #[error("{message}")]
    Refused {
        /// What was refused, and why.
        message: String,
    },
}

impl Error {
    /// What the person can do about it, where something can be done.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Remote { hint, .. } => hint.as_deref(),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                Some("the content was damaged on its way or at its source; nothing of it was kept")
            }
            _ => None,
        }
    }
}
