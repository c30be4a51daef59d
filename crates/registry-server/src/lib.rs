//! The OCI distribution API 1.1 over any content store: the embedded registry.
//!
//! `mlxctl registry serve` puts the local store behind it; tests put anything. A request becomes a [`route`], the
//! route a call of the content traits, and what they answer the words of the specification. Blobs stream both ways;
//! of a request's body only a manifest, at most 4 MiB, is ever held in memory.

mod account;
mod blobs;
mod error;
mod listener;
mod manifests;
mod referrers;
mod route;
mod serve;
mod uploads;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use mlxctl_content::{Error as ContentError, Repository};

pub use account::Account;
pub use listener::{Listener, Tls};
pub use serve::serve;

/// The repositories that a registry serves.
#[async_trait]
pub trait Repositories: Send + Sync {
    /// The repository of this name, which follows the specification's grammar. One that holds nothing yet is no
    /// error: pushing into it makes it. What it holds on to (a lease on blobs that no manifest names yet) must
    /// outlive the value returned, because a push is many requests.
    ///
    /// # Errors
    /// What the store says.
    fn repository(&self, name: &str) -> Result<Arc<dyn Repository>, ContentError>;

    /// The names of all repositories that hold something.
    ///
    /// # Errors
    /// What the store says.
    async fn names(&self) -> Result<Vec<String>, ContentError>;
}

/// How a registry behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Refuse everything that changes something, with 405.
    pub read_only: bool,
    /// Who may use it; everyone where there is no account.
    pub account: Option<Account>,
    /// The largest blob that is taken, in bytes.
    pub max_blob_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_only: false, account: None, max_blob_bytes: 1 << 40 }
    }
}

/// The API over these repositories, under `/v2/`.
pub fn router(repositories: Arc<dyn Repositories>, options: Options) -> Router {
    serve::router(repositories, options)
}
