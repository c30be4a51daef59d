//! The content traits over a remote registry: resolve, pull, push, tag, list and delete by the OCI distribution
//! specification 1.1, with credentials, retries and resume.
//!
//! The command line and the runtime open a [`Registry`], take a [`RemoteRepository`] from it and hand that to
//! `content::copy`. Nothing here reads the environment or a home folder, prints, or decides where a model belongs:
//! paths, credentials and proxies come in through [`RegistryOptions`].
//!
//! Bytes stream through in both directions; memory is bounded by a few network buffers a transfer and by the
//! 4 MiB that a manifest may have. Whatever a registry says is checked before it is used.

mod auth;
mod challenge;
mod credentials;
mod docker_config;
mod error;
mod fetch;
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod host;
mod manifests;
mod options;
mod outgoing;
mod pace;
mod policy;
mod referrers;
mod refusal;
mod repository;
mod retry;
mod sessions;
mod token;
mod transport;
mod upload;

pub use credentials::{Anonymous, Credential, Credentials, Secret, Static};
pub use docker_config::{DockerConfig, Keeper};
pub use error::{Cause, Error};
pub use options::{Proxy, RegistryOptions};
pub use repository::{Login, Registry, RemoteRepository};
pub use retry::RetryPolicy;
pub use sessions::{SessionFolder, Sessions};
