//! Why the daemon does not start, or a model is not mounted.

use std::path::{Path, PathBuf};

use mlxctl_artifact::Digest;

/// What can go wrong before a request is answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] mlxctl_settings::Error),
    /// The store failed, or does not have what was asked for.
    #[error(transparent)]
    Store(#[from] mlxctl_store::Error),
    /// A pull failed.
    #[error("cannot pull {reference}: {source}")]
    Pull {
        /// What was to be pulled.
        reference: String,
        /// Why it failed.
        source: mlxctl_content::Error,
    },
    /// The way to a registry cannot be set up.
    #[error("cannot pull {reference}: {message}")]
    Registry {
        /// What was to be pulled.
        reference: String,
        /// Why not.
        message: String,
    },
    /// A document of an artifact does not follow its specification.
    #[error(transparent)]
    Artifact(#[from] mlxctl_artifact::Error),
    /// The name is neither mounted nor in the store.
    #[error("model '{name}' is not found{}", near_names(.near))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// Names that resemble it.
        near: Vec<String>,
    },
    /// A shortened digest that several models have.
    #[error("'{name}' is ambiguous: {} have digests that begin so", .matches.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// The models it may mean.
        matches: Vec<String>,
    },
    /// The artifact lacks a file that serving needs, or holds it in a way that is not read.
    #[error("{model} cannot be served: {reason}")]
    Unservable {
        /// The model.
        model: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A file of a model's folder is not what the manifest says.
    #[error("{} is not what manifest {manifest} says: {reason}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// The manifest.
        manifest: Digest,
        /// What was expected and what was found.
        reason: String,
    },
    /// A folder that cannot be checked against the digest that was named.
    #[error(
        "{} cannot be checked against {digest}: neither the folder (as manifest.json) nor the store holds that manifest",
        path.display()
    )]
    Unverifiable {
        /// The folder.
        path: PathBuf,
        /// The digest that was named.
        digest: Digest,
    },
    /// The tokenizer or the chat template cannot be read.
    #[error("{model}: {source}")]
    Prompt {
        /// The model.
        model: String,
        /// What is wrong.
        source: mlxctl_prompt::Error,
    },
    /// The weights cannot be mounted.
    #[error("{model}: {source}")]
    Mount {
        /// The model.
        model: String,
        /// What is wrong.
        source: mlxctl_engine::MountError,
    },
    /// The file system or the network failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The backend is not part of this build.
    #[error("the backend '{name}' is not part of this build of mlxserve, which has: cpu")]
    Backend {
        /// What was asked for.
        name: String,
    },
    /// A part of this program failed in a way that it should not.
    #[error("{what} failed: {reason}")]
    Internal {
        /// Which part.
        what: &'static str,
        /// Its words.
        reason: String,
    },
}

impl Error {
    /// The system's answer to something done to a file.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }

    /// What the person can do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint().map(str::to_owned),
            Self::Pull { source, .. } => source.hint().map(str::to_owned),
            Self::UnknownModel { .. } => Some("`mlxctl list` shows what is in the store".to_owned()),
            Self::Unverifiable { digest, .. } => Some(format!("pull the artifact once, `mlxctl pull NAME@{digest}`")),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some("another program listens there; choose another port with --port".to_owned())
            }
            _ => None,
        }
    }
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}
