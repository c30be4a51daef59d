//! One repository of the store behind the content traits: source and target of copies, and what the embedded registry
//! serves. File work runs on the blocking threads of the runtime.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use mlxctl_artifact::{Descriptor, Digest, Reference, media_type};
use mlxctl_content::{ByteStream, Delete, Error as ContentError, Fetch, List, Observer, Push, Resolve, Tag};

use crate::blob::Blob;
use crate::{Error, Lease, Store, file, graph, partial, tag};

/// A repository of the local store. Blobs are shared by all repositories of a store; tags are this one's.
#[derive(Clone)]
pub struct LocalRepository {
    pub(crate) store: Store,
    name: Reference,
    lease: Lease,
}

impl LocalRepository {
    pub(crate) fn new(store: Store, name: Reference, lease: Lease) -> Self {
        Self { store, name, lease }
    }

    /// `registry/repository`, or the local name.
    pub fn name(&self) -> String {
        self.name.name()
    }

    /// Runs file work on a blocking thread.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, ContentError> {
        let this = self.clone();
        blocking(move || work(&this).map_err(ContentError::from)).await
    }

    pub(crate) fn hold(&self, digest: Digest) -> Result<(), Error> {
        self.lease.hold(&[digest])
    }
}

/// Runs blocking work; a panic in it becomes an error of this one operation.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|failed| Err(stopped(&failed)))
}

pub(crate) fn stopped(failed: &tokio::task::JoinError) -> ContentError {
    ContentError::Refused { message: format!("the store's work was cut off: {failed}") }
}

#[async_trait]
impl Fetch for LocalRepository {
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, ContentError> {
        let wanted = descriptor.clone();
        let Range { start, end } = range;
        let mut blob = self.blocking(move |this| this.store.blobs.get(&wanted)).await?;
        if start > end || end > blob.stamp.size {
            let (digest, found) = (descriptor.digest, blob.stamp.size);
            return Err(ContentError::SizeMismatch { digest, expected: end.max(start), found });
        }
        blob.file.seek(SeekFrom::Start(start)).map_err(Error::io("read", &blob.path))?;
        Ok(Box::pin(stream::try_unfold((blob, end - start), |(blob, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let (bytes, blob) = blocking(move || next_piece(blob, left).map_err(ContentError::from)).await?;
            let left = left - bytes.len() as u64;
            Ok(Some((bytes, (blob, left))))
        })))
    }
}

/// The next bytes of a blob, at least one.
fn next_piece(mut blob: Blob, left: u64) -> Result<(Bytes, Blob), Error> {
    let mut piece = vec![0; left.min(file::CHUNK_BYTES as u64) as usize];
    blob.file.read_exact(&mut piece).map_err(Error::io("read", &blob.path))?;
    Ok((piece.into(), blob))
}

#[async_trait]
impl Push for LocalRepository {
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool, ContentError> {
        let wanted = descriptor.clone();
        self.blocking(move |this| {
            this.hold(wanted.digest)?;
            this.store.blobs.holds(&wanted)
        })
        .await
    }

    async fn push(
        &self,
        descriptor: &Descriptor,
        source: &dyn Fetch,
        observer: &dyn Observer,
    ) -> Result<(), ContentError> {
        partial::push(self, descriptor, source, observer).await
    }
}

#[async_trait]
impl Resolve for LocalRepository {
    /// A digest is found whatever it is: a blob that is no manifest is described as `application/octet-stream`.
    async fn resolve(&self, name: &str) -> Result<Descriptor, ContentError> {
        let name = name.to_owned();
        self.blocking(move |this| {
            let missing = || Error::NotFound { what: format!("{} of {}", name, this.name()) };
            if let Ok(digest) = name.parse::<Digest>() {
                return Ok(graph::describe(&this.store.blobs, &digest)?.ok_or_else(missing)?.0);
            }
            tag::read(this.store.layout(), &this.name.with_tag(&name)?)?.ok_or_else(missing)
        })
        .await
    }
}

#[async_trait]
impl Tag for LocalRepository {
    async fn tag(&self, descriptor: &Descriptor, tag: &str) -> Result<(), ContentError> {
        let (descriptor, tag) = (descriptor.clone(), tag.to_owned());
        self.blocking(move |this| this.store.tag_releasing(&this.name.with_tag(&tag)?, &descriptor, Some(&this.lease)))
            .await
    }
}

#[async_trait]
impl List for LocalRepository {
    /// # Errors
    /// `NotFound` where the repository has neither a tag nor a pin.
    async fn tags(&self) -> Result<Vec<String>, ContentError> {
        self.blocking(|this| {
            let names = this.names()?;
            if names.is_empty() {
                return Err(Error::NotFound { what: format!("repository {}", this.name()) });
            }
            let mut tags: Vec<String> = names.iter().filter_map(|(name, _)| name.tag().map(str::to_owned)).collect();
            tags.sort();
            Ok(tags)
        })
        .await
    }
}

impl LocalRepository {
    /// The names of this repository alone; those of repositories below it lie in the same folder.
    fn names(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        let layout = self.store.layout();
        let mut names = tag::list(layout, &tag::folder(layout, &self.name))?.names;
        names.retain(|(name, _)| name.name() == self.name());
        Ok(names)
    }
}

#[async_trait]
impl Delete for LocalRepository {
    async fn untag(&self, tag: &str) -> Result<(), ContentError> {
        let tag = tag.to_owned();
        self.blocking(move |this| this.store.untag(&this.name.with_tag(&tag)?)).await
    }

    /// Removes this repository's names of a manifest. The bytes go too, unless another repository, a manifest or a
    /// running process needs them. A blob that a manifest needs is not removed.
    async fn delete(&self, digest: &Digest) -> Result<(), ContentError> {
        let digest = *digest;
        self.blocking(move |this| {
            let names: Vec<Reference> =
                this.names()?.into_iter().filter(|(_, to)| to.digest == digest).map(|(name, _)| name).collect();
            let is_manifest = graph::describe(&this.store.blobs, &digest)?
                .map(|(node, _)| media_type::is_manifest(&node.media_type))
                .ok_or_else(|| Error::NotFound { what: format!("{digest} of {}", this.name()) })?;
            if !names.is_empty() {
                this.store.remove(&names)?;
            }
            for lease in [&this.lease, &this.store.session] {
                lease.release(&[digest].into())?;
            }
            if this.store.sweep_one(&digest)? || is_manifest {
                return Ok(());
            }
            Err(Error::Refused { message: format!("{digest} stays: a manifest or a running process needs it") })
        })
        .await
    }
}
