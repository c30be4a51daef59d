//! What can go wrong with a hub; addresses are shown without their queries, which may be signed.

use std::path::{Path, PathBuf};

/// A repository that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoint is no address.
    #[error("the hub's endpoint {endpoint:?} cannot be used: {reason}")]
    Endpoint {
        /// As given, without user, password and query.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The hub refused.
    #[error("{what}: the hub answered {status}{message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the hub said, with `: ` in front; empty where it said nothing.
        message: String,
    },
    /// No answer, or one that broke off.
    #[error("{what}: {reason}")]
    Connection {
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
    /// An answer that makes no sense, or that is larger than any should be.
    #[error("{what}: {reason}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A file's bytes are not those that the hub lists.
    #[error("{path}: expected {expected}, got {found}; nothing of it was kept")]
    Damaged {
        /// The file within its repository.
        path: String,
        /// Its digest or size as listed.
        expected: String,
        /// Those of what came.
        found: String,
    },
    /// The cache failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A path of the repository leads out of its folder.
    #[error(transparent)]
    Artifact(#[from] mlxctl_artifact::Error),
}

impl Error {
    /// What the person can do, where something can be done.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused { status: 401 | 403, .. } => {
                Some("if the repository is private or gated, ask for access to it and set HF_TOKEN")
            }
            Self::Refused { status: 404, .. } => Some("check the repository's name and revision"),
            Self::Connection { .. } => Some("run it again: what was downloaded is kept, and it goes on from there"),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("make room, then run it again: it goes on where it stopped")
            }
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// A request that failed, without the address that reqwest would add.
    pub(crate) fn connection(what: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut reason = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        Self::Connection { what: what.to_owned(), reason }
    }
}

/// A foreign text for a message: short, and nothing that moves the cursor.
pub(crate) fn plain(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    match text.split_once("://") {
        // A user and a password may stand in front of the host.
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
        None => text,
    }
}
