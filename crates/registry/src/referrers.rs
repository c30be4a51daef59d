//! Referrers: listed by the registry's API, or by the tag that clients keep where it has none.

use async_trait::async_trait;
use bytes::Bytes;
use mlxctl_artifact::{Descriptor, Digest, Index, MAX_MANIFEST_BYTES, media_type};
use mlxctl_content::{self as content, Observer, Referrer, Referrers};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};

use crate::error::{Error, action};
use crate::manifests::next_page;
use crate::repository::RemoteRepository;
use crate::transport::Request;

/// By this a registry says that it lists a manifest among the referrers of its subject.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// The most pages, and the most referrers, of one manifest.
const MAX_PAGES: usize = 100;
const MAX_REFERRERS: usize = 10_000;

/// The tag under which clients keep the referrers of a manifest (distribution specification, "Referrers Tag Schema").
fn tag_of(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm().name(), &subject.hex()[..subject.hex().len().min(64)])
}

#[async_trait]
impl Referrers for RemoteRepository {
    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, content::Error> {
        let mut found = match self.listed(subject, artifact_type).await? {
            Some(found) => found,
            None => self.tagged(subject).await?,
        };
        // Some registries filter wrongly, and a tag not at all.
        if let Some(wanted) = artifact_type {
            found.retain(|referrer| referrer.artifact_type.as_deref() == Some(wanted));
        }
        found.sort_by_key(|referrer| referrer.digest);
        found.dedup_by_key(|referrer| referrer.digest);
        Ok(found)
    }
}

impl RemoteRepository {
    /// What the registry's API lists; `None` where it has none.
    async fn listed(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>, content::Error> {
        let mut url = self.url(&format!("referrers/{subject}"));
        if let Some(wanted) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", wanted);
        }
        let mut found = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = Request::new(Method::GET, url.clone(), self.pull_scope());
            let named = action(&Method::GET, &url);
            let response = match self.transport.send(&request, &*self.transport.observer, &[StatusCode::OK]).await {
                // The specification says 404; some answer what they answer to every path they do not know.
                Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 501)) => return Ok(None),
                other => other?,
            };
            let next = next_page(response.headers(), &url);
            let body = self.transport.body(&named, response, MAX_MANIFEST_BYTES).await?;
            let page =
                Index::parse(&body).map_err(|source| content::Error::Document { what: named.clone(), source })?;
            found.extend(page.manifests);
            if found.len() > MAX_REFERRERS {
                let reason = format!("the manifest has more than {MAX_REFERRERS} referrers");
                return Err(Error::Protocol { action: named, reason }.into());
            }
            match next {
                Some(next) if self.transport.host.is_origin_of(&next) && next != url => url = next,
                _ => break,
            }
        }
        Ok(Some(found))
    }

    /// What the tag lists.
    async fn tagged(&self, subject: &Digest) -> Result<Vec<Descriptor>, content::Error> {
        let (descriptor, body) = match self.read_manifest(&tag_of(subject)).await {
            Err(content::Error::NotFound { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        if !media_type::is_index(&descriptor.media_type) {
            return Ok(Vec::new());
        }
        let wrong = |source| content::Error::Document { what: format!("index {}", descriptor.digest), source };
        Ok(Index::parse(&body).map_err(wrong)?.manifests)
    }

    /// After a manifest was stored: lists it under the tag, where the registry does not list it itself.
    pub(crate) async fn list_referrer(
        &self,
        descriptor: &Descriptor,
        content: &[u8],
        stored: &HeaderMap,
        observer: &dyn Observer,
    ) -> Result<(), content::Error> {
        let wrong = |source| content::Error::Document { what: format!("manifest {}", descriptor.digest), source };
        let Some(referrer) = Referrer::read(descriptor, content).map_err(wrong)? else { return Ok(()) };
        if stored.contains_key(OCI_SUBJECT) {
            return Ok(());
        }
        let mut listed = self.tagged(&referrer.subject).await?;
        if listed.iter().any(|other| other.digest == descriptor.digest) {
            return Ok(());
        }
        listed.push(referrer.descriptor);
        let index = Index::of(listed).to_bytes();
        let node = Descriptor::of(media_type::OCI_INDEX, &index);
        self.put_manifest(&tag_of(&referrer.subject), &node, Bytes::from(index), observer).await.map(drop)
    }
}
