//! Takes in what was named at the start and is not in the store yet.

use std::sync::Arc;

use mlxctl_artifact::{Descriptor, Reference};
use mlxctl_content::{CopyOptions, Observer, Outcome, Resolve as _, copy};
use mlxctl_registry::{DockerConfig, Proxy, Registry, RegistryOptions};
use mlxctl_settings::Settings;
use mlxctl_store::Store;

use crate::Error;

/// Pulls a reference under its own name, or the one that the settings' registry completes it to.
pub(crate) async fn pull(store: &Store, settings: &Settings, reference: &Reference) -> Result<Descriptor, Error> {
    let full = match &settings.registry {
        Some(prefix) => reference.under(prefix)?,
        None => reference.clone(),
    };
    let name = full.to_string();
    let Some(host) = full.registry() else {
        return Err(Error::UnknownModel { name: reference.to_string(), near: Vec::new() });
    };
    let failed = |source| Error::Pull { reference: name.clone(), source };
    let mut options = RegistryOptions {
        proxy: Proxy::System,
        user_agent: concat!("mlxserve/", env!("CARGO_PKG_VERSION")).to_owned(),
        observer: Arc::new(Log),
        ..RegistryOptions::default()
    };
    if let Some(path) = &settings.docker_config {
        options.credentials = Arc::new(DockerConfig::new(path.clone()));
    }
    let registry = Registry::new(host, &options)
        .map_err(|error| Error::Registry { reference: name.clone(), message: error.to_string() })?;
    let source = registry.repository(&full);
    let wanted = full.digest().map_or_else(|| full.tag_or_latest().to_owned(), |digest| digest.to_string());
    tracing::info!(reference = name, "pulling");
    let root = source.resolve(&wanted).await.map_err(failed)?;
    let target = store.repository(&full.name())?;
    copy(&source, &target, &root, CopyOptions::default(), &Log).await.map_err(failed)?;
    let store = store.clone();
    let descriptor = root.clone();
    // Digest-only references become pins, so that the collector leaves them.
    let tagged = tokio::task::spawn_blocking(move || store.tag(&full, &root)).await;
    tagged.map_err(|error| Error::Internal { what: "tagging", reason: error.to_string() })??;
    tracing::info!(reference = name, digest = %descriptor.digest, "pulled");
    Ok(descriptor)
}

/// Progress as log lines: one a blob.
struct Log;

impl Observer for Log {
    fn finished(&self, descriptor: &Descriptor, outcome: Outcome) {
        if outcome == Outcome::Moved {
            tracing::info!(digest = %descriptor.digest, bytes = descriptor.size, "moved");
        }
    }

    fn notice(&self, message: &str) {
        tracing::warn!("{message}");
    }
}
