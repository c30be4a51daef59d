//! A registry, a repository of it, and the content traits over both.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures_util::stream;
use mlxctl_artifact::{Descriptor, Digest, MAX_MANIFEST_BYTES, Reference, media_type};
use mlxctl_content::{ByteStream, Delete, Error as ContentError, Fetch, List, Observer, Push, Resolve, Tag, read_all};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, StatusCode, Url};

use crate::auth::Scope;
use crate::error::Error;
use crate::fetch::{fetch, length};
use crate::options::RegistryOptions;
use crate::transport::{Request, Transport};
use crate::upload::upload;

/// A remote registry: connections and tokens are shared by its repositories. Cloning it is cheap.
#[derive(Clone)]
pub struct Registry {
    transport: Arc<Transport>,
}

impl Registry {
    /// The registry at `host`, a `host[:port]` as references write it. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Host`] and [`Error::Options`].
    pub fn new(host: &str, options: &RegistryOptions) -> Result<Self, Error> {
        Ok(Self { transport: Arc::new(Transport::new(host, options)?) })
    }

    /// Shows the registry the credentials it is opened with, and nothing else.
    ///
    /// # Errors
    /// Its refusal, or the failure to reach it.
    pub async fn check_login(&self) -> Result<Login, Error> {
        let url =
            self.transport.host.base.join("v2/").map_err(|_| Error::Host { host: self.transport.host.name.clone() })?;
        let request = Request::new(Method::GET, url.clone(), Scope::none());
        let observer = Arc::clone(&self.transport.observer);
        self.transport.send(&request, &*observer, &[StatusCode::OK]).await?;
        Ok(if self.transport.has_shown(&request.scope) { Login::Accepted } else { Login::NotAsked })
    }

    /// The repository that `reference` names; its registry, tag and digest are not looked at.
    pub fn repository(&self, reference: &Reference) -> RemoteRepository {
        let repository = self.transport.host.repository_name(reference.repository());
        RemoteRepository { transport: Arc::clone(&self.transport), repository, mounts: Arc::default() }
    }
}

/// What a registry does with credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It asked for them and took them.
    Accepted,
    /// It answers everyone, so that nothing was checked.
    NotAsked,
}

/// A repository of a remote registry. Cloning it is cheap.
#[derive(Clone)]
pub struct RemoteRepository {
    pub(crate) transport: Arc<Transport>,
    repository: String,
    pub(crate) mounts: Arc<BTreeMap<Digest, String>>,
}

impl RemoteRepository {
    /// The same, with repositories of this registry that may have blobs which this one lacks: a push mounts from
    /// there instead of sending bytes. Names are without the registry.
    pub fn mounting(mut self, neighbours: BTreeMap<Digest, String>) -> Self {
        let named = neighbours.into_iter().map(|(digest, name)| (digest, self.transport.host.repository_name(&name)));
        self.mounts = Arc::new(named.filter(|(_, name)| *name != self.repository).collect());
        self
    }

    /// Registry and repository, for messages.
    pub fn name(&self) -> String {
        format!("{}/{}", self.transport.host.name, self.repository)
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.transport.host.url(&self.repository, path)
    }

    pub(crate) fn pull_scope(&self) -> Scope {
        Scope::pull(&self.repository)
    }

    pub(crate) fn push_scope(&self) -> Scope {
        Scope::push(&self.repository)
    }

    pub(crate) fn delete_scope(&self) -> Scope {
        Scope::delete(&self.repository)
    }

    /// Whether the repository has the blob. It is asked by those who push, so with their scope: a repository that
    /// does not exist yet refuses a pull.
    pub(crate) async fn has_blob(
        &self,
        descriptor: &Descriptor,
        observer: &dyn Observer,
    ) -> Result<bool, ContentError> {
        let request = Request::new(Method::HEAD, self.url(&format!("blobs/{}", descriptor.digest)), self.push_scope());
        let response = self.transport.send(&request, observer, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
        // A blob of another size is not what the digest says, or the descriptor is wrong: sending it will tell.
        let fits = length(response.headers()).is_none_or(|found| found == descriptor.size);
        Ok(response.status() == StatusCode::OK && fits)
    }
}

#[async_trait]
impl Fetch for RemoteRepository {
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, ContentError> {
        if !media_type::is_manifest(&descriptor.media_type) {
            let url = self.url(&format!("blobs/{}", descriptor.digest));
            let request = Request::new(Method::GET, url, self.pull_scope())
                .with_header(ACCEPT, HeaderValue::from_static("application/octet-stream, */*"));
            return fetch(Arc::clone(&self.transport), request, descriptor, range).await;
        }
        // Manifests are small: one is read whole and checked, whatever part of it is wanted.
        let (_, bytes) = self.read_manifest(&descriptor.digest.to_string()).await?;
        let (expected, found) = (descriptor.size, bytes.len() as u64);
        if found != expected || range.start > range.end || range.end > found {
            return Err(ContentError::SizeMismatch {
                digest: descriptor.digest,
                expected: expected.max(range.end),
                found,
            });
        }
        Ok(Box::pin(stream::iter([Ok(bytes.slice(range.start as usize..range.end as usize))])))
    }

    fn lanes(&self) -> usize {
        if self.transport.ignores_ranges.load(Ordering::Relaxed) { 1 } else { self.transport.connections }
    }
}

#[async_trait]
impl Push for RemoteRepository {
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool, ContentError> {
        if media_type::is_manifest(&descriptor.media_type) {
            return self.has_manifest(descriptor).await;
        }
        self.has_blob(descriptor, &*self.transport.observer).await
    }

    async fn push(
        &self,
        descriptor: &Descriptor,
        source: &dyn Fetch,
        observer: &dyn Observer,
    ) -> Result<(), ContentError> {
        if !media_type::is_manifest(&descriptor.media_type) {
            return upload(self, descriptor, source, observer).await;
        }
        let bytes = read_all(source, descriptor, MAX_MANIFEST_BYTES).await?;
        let name = descriptor.digest.to_string();
        let stored = self.put_manifest(&name, descriptor, bytes.clone(), observer).await?;
        self.list_referrer(descriptor, &bytes, &stored, observer).await?;
        observer.moved(descriptor, descriptor.size as i64);
        Ok(())
    }
}

#[async_trait]
impl Resolve for RemoteRepository {
    async fn resolve(&self, name: &str) -> Result<Descriptor, ContentError> {
        self.resolve_manifest(name).await
    }
}

#[async_trait]
impl Tag for RemoteRepository {
    /// Registries tag by taking the manifest's bytes once more, under the tag.
    async fn tag(&self, descriptor: &Descriptor, tag: &str) -> Result<(), ContentError> {
        let (_, bytes) = self.read_manifest(&descriptor.digest.to_string()).await?;
        self.put_manifest(tag, descriptor, bytes, &*self.transport.observer).await.map(drop)
    }
}

#[async_trait]
impl List for RemoteRepository {
    async fn tags(&self) -> Result<Vec<String>, ContentError> {
        self.list_tags().await
    }
}

#[async_trait]
impl Delete for RemoteRepository {
    async fn untag(&self, tag: &str) -> Result<(), ContentError> {
        self.remove_tag(tag).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), ContentError> {
        let found =
            self.remove(&format!("manifests/{digest}")).await? || self.remove(&format!("blobs/{digest}")).await?;
        let what = format!("{digest} at {}", self.name());
        if found { Ok(()) } else { Err(ContentError::NotFound { what }) }
    }
}
