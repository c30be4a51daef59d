//! The OCI distribution API 1.1 over any content store: the embedded registry.
//!
//! `mlxctl registry serve` puts the local store behind it; tests put anything. A request becomes a [`route`], the
//! route a call of the content traits, and what they answer the words of the specification. Blobs stream both ways;
//! of a request's body only a manifest, at most 4 MiB, is ever held in memory.
//!
//! What is left out: the referrers API. The content traits do not list what refers to a manifest, so the registry
//! answers 404 there and sends no `OCI-Subject`, by which clients know to keep the referrers under a tag themselves.

mod blobs;
mod error;
mod manifests;
mod route;
mod serve;
mod uploads;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use mlxctl_content::{Error as ContentError, Repository};

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
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Refuse everything that changes something, with 405.
    pub read_only: bool,
}

/// The API over these repositories, under `/v2/`.
pub fn router(repositories: Arc<dyn Repositories>, options: Options) -> Router {
    serve::router(repositories, options)
}
