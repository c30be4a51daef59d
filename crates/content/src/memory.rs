//! A content store in memory: the source of documents made on the spot, and the simplest peer for tests.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use mlxctl_artifact::{Descriptor, Digest};

use crate::{ByteStream, Error, Fetch, List, Observer, Outcome, Push, Resolve, Tag, read_all};

/// Blobs and tags in memory.
#[derive(Default)]
pub struct Memory {
    blobs: Mutex<BTreeMap<Digest, (String, Bytes)>>,
    tags: Mutex<BTreeMap<String, Descriptor>>,
}

impl Memory {
    /// Holds these bytes and describes them.
    pub fn insert(&self, media_type: &str, content: impl Into<Bytes>) -> Descriptor {
        let content = content.into();
        let descriptor = Descriptor::of(media_type, &content);
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.insert(descriptor.digest, (media_type.to_owned(), content));
        descriptor
    }

    fn get(&self, digest: &Digest) -> Option<(String, Bytes)> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

#[async_trait]
impl Fetch for Memory {
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        let missing = || Error::NotFound { what: format!("blob {}", descriptor.digest) };
        let (_, content) = self.get(&descriptor.digest).ok_or_else(missing)?;
        let (start, end) = (range.start as usize, range.end as usize);
        if start > end || end > content.len() {
            let (expected, found) = (range.end, content.len() as u64);
            return Err(Error::SizeMismatch { digest: descriptor.digest, expected, found });
        }
        Ok(Box::pin(stream::iter([Ok(content.slice(start..end))])))
    }
}

#[async_trait]
impl Push for Memory {
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        Ok(self.get(&descriptor.digest).is_some())
    }

    async fn push(&self, descriptor: &Descriptor, source: &dyn Fetch, observer: &dyn Observer) -> Result<(), Error> {
        let content = read_all(source, descriptor, u64::MAX).await?;
        self.insert(&descriptor.media_type, content);
        observer.moved(descriptor, descriptor.size as i64);
        observer.finished(descriptor, Outcome::Moved);
        Ok(())
    }
}

#[async_trait]
impl Resolve for Memory {
    async fn resolve(&self, name: &str) -> Result<Descriptor, Error> {
        if let Some(descriptor) = self.tags.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(descriptor.clone());
        }
        let found = name.parse::<Digest>().ok().and_then(|digest| Some((digest, self.get(&digest)?)));
        let (digest, (media_type, content)) = found.ok_or_else(|| Error::NotFound { what: name.to_owned() })?;
        Ok(Descriptor::new(media_type, digest, content.len() as u64))
    }
}

#[async_trait]
impl Tag for Memory {
    async fn tag(&self, descriptor: &Descriptor, tag: &str) -> Result<(), Error> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.to_owned(), descriptor.clone());
        Ok(())
    }
}

#[async_trait]
impl List for Memory {
    async fn tags(&self) -> Result<Vec<String>, Error> {
        Ok(self.tags.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect())
    }
}
