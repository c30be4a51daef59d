//! What is about a manifest: found by reading the manifests of the store, each one once in a process.
//!
//! Blobs are shared by the repositories of a store, and so are referrers: a signature holds wherever the model does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mlxctl_artifact::{Descriptor, Digest, MAX_MANIFEST_BYTES, media_type};
use mlxctl_content::{Error as ContentError, Referrer, Referrers};

use crate::blob::Blobs;
use crate::layout::ALGORITHMS;
use crate::{Error, LocalRepository, file, graph};

/// What this process knows of the blobs: a blob never changes, so it is read once.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<Digest, Option<Arc<Referrer>>>>);

impl Known {
    /// What is known of a blob, else what `read` finds.
    fn or_read(
        &self,
        digest: &Digest,
        read: impl FnOnce() -> Result<Option<Arc<Referrer>>, Error>,
    ) -> Result<Option<Arc<Referrer>>, Error> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(known.clone());
        }
        let found = read()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest, found.clone());
        Ok(found)
    }
}

/// Every manifest here that has a subject. Blobs that are damaged are not read as anything.
fn all(blobs: &Blobs) -> Result<Vec<Arc<Referrer>>, Error> {
    let mut found = Vec::new();
    for algorithm in ALGORITHMS {
        for entry in file::entries(&blobs.layout.blobs(algorithm))? {
            let name = format!("{}:{}", algorithm.name(), entry.file_name().to_string_lossy());
            let Ok(digest) = name.parse::<Digest>() else { continue };
            if let Ok(known) = blobs.known.or_read(&digest, || read(blobs, &digest)) {
                found.extend(known);
            }
        }
    }
    found.sort_by_key(|referrer| referrer.descriptor.digest);
    Ok(found)
}

fn read(blobs: &Blobs, digest: &Digest) -> Result<Option<Arc<Referrer>>, Error> {
    let Some((node, content)) = graph::describe(blobs, digest)? else { return Ok(None) };
    if !media_type::is_manifest(&node.media_type) || node.size > MAX_MANIFEST_BYTES {
        return Ok(None);
    }
    Ok(Referrer::read(&node, &content).ok().flatten().map(Arc::new))
}

#[async_trait]
impl Referrers for LocalRepository {
    async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, ContentError> {
        let subject = *subject;
        let mut found = self
            .blocking(move |this| {
                let about = all(&this.store.blobs)?.into_iter().filter(|referrer| referrer.subject == subject);
                Ok(about.map(|referrer| referrer.descriptor.clone()).collect::<Vec<_>>())
            })
            .await?;
        if let Some(wanted) = artifact_type {
            found.retain(|referrer| referrer.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }
}
