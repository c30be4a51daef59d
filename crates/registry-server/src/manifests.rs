//! Manifests, byte for byte as they came, and the lists of tags and repositories.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::{Algorithm, Descriptor, Digester, Index, MAX_MANIFEST_BYTES, Manifest, media_type};
use mlxctl_content::{ByteStream, Error as ContentError, Fetch, Quiet, Referrer, Repository, read_all};
use serde_json::{Value, json};

use crate::blobs::CONTENT_DIGEST;
use crate::error::Error;
use crate::route::{Name, printable};
use crate::serve::{Registry, empty};
use crate::uploads::parameter;

/// Says that the manifest is listed among the referrers of its subject: the client need not do so.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Gives a manifest. `Accept` is not held against the client: there is one form of each, and its type is said.
pub(crate) async fn get(registry: &Registry, name: &str, manifest: &Name, method: &Method) -> Result<Response, Error> {
    let repository = repository(registry, name)?;
    let missing = |error| Error::of_store(error, || Error::ManifestUnknown(manifest.to_string()));
    let found = repository.resolve(&manifest.to_string()).await.map_err(missing)?;
    if !media_type::is_manifest(&found.media_type) {
        return Err(Error::ManifestUnknown(manifest.to_string()));
    }
    let headers = [
        (CONTENT_DIGEST, found.digest.to_string()),
        (header::ETAG, format!("\"{}\"", found.digest)),
        (header::CONTENT_TYPE, found.media_type.clone()),
        (header::CONTENT_LENGTH, found.size.to_string()),
    ];
    let mut response = empty(StatusCode::OK, &headers);
    if method != Method::HEAD {
        let bytes = read_all(&*repository, &found, MAX_MANIFEST_BYTES).await.map_err(missing)?;
        *response.body_mut() = Body::from(bytes);
    }
    Ok(response)
}

/// Stores a manifest whose parts are here, and tags it where it is put under a tag.
pub(crate) async fn put(registry: &Registry, name: &str, manifest: &Name, request: Request) -> Result<Response, Error> {
    let repository = repository(registry, name)?;
    let said = content_type(request.headers());
    let bytes = body(request.into_body()).await?;
    let (media_type, parts) = read(&bytes, said)?;
    let algorithm = match manifest {
        Name::Digest(digest) => digest.algorithm(),
        Name::Tag(_) => Algorithm::Sha256,
    };
    let mut digester = Digester::new(algorithm);
    digester.update(&bytes);
    let descriptor = Descriptor::new(media_type, digester.finish(), bytes.len() as u64);
    if let Name::Digest(expected) = manifest
        && *expected != descriptor.digest
    {
        return Err(Error::DigestInvalid(format!("the manifest is {}, not {expected}", descriptor.digest)));
    }
    let referrer = Referrer::read(&descriptor, &bytes).map_err(|error| Error::ManifestInvalid(error.to_string()))?;
    for part in parts {
        // Layers that nobody may pass on lie elsewhere, at an address that the manifest gives.
        let lies_elsewhere = part.media_type.contains("nondistributable") || part.media_type.contains("foreign");
        if !lies_elsewhere && !repository.exists(&part).await.map_err(Error::Store)? {
            return Err(Error::ManifestBlobUnknown(part.digest.to_string()));
        }
    }
    let failed = |error| Error::of_store(error, || Error::NameUnknown(name.to_owned()));
    repository.push(&descriptor, &InHand(bytes), &Quiet).await.map_err(failed)?;
    if let Name::Tag(tag) = manifest {
        repository.tag(&descriptor, tag).await.map_err(failed)?;
    }
    let mut headers = vec![
        (header::LOCATION, format!("/v2/{name}/manifests/{}", descriptor.digest)),
        (CONTENT_DIGEST, descriptor.digest.to_string()),
        (header::CONTENT_LENGTH, "0".to_owned()),
    ];
    if let Some(referrer) = referrer {
        headers.push((OCI_SUBJECT, referrer.subject.to_string()));
    }
    Ok(empty(StatusCode::CREATED, &headers))
}

/// Takes a tag away, or a manifest with all its tags.
pub(crate) async fn delete(registry: &Registry, name: &str, manifest: &Name) -> Result<Response, Error> {
    let repository = repository(registry, name)?;
    let removed = match manifest {
        Name::Tag(tag) => repository.untag(tag).await,
        Name::Digest(digest) => repository.delete(digest).await,
    };
    removed.map_err(|error| Error::of_store(error, || Error::ManifestUnknown(manifest.to_string())))?;
    Ok(empty(StatusCode::ACCEPTED, &[]))
}

/// The tags of a repository.
pub(crate) async fn tags(registry: &Registry, name: &str, uri: &Uri) -> Result<Response, Error> {
    let unknown = |error| Error::of_store(error, || Error::NameUnknown(name.to_owned()));
    let tags = repository(registry, name)?.tags().await.map_err(unknown)?;
    listed(uri, tags, |page| json!({"name": name, "tags": page}))
}

/// The repositories: not part of the specification, and asked for by everyone.
pub(crate) async fn catalog(registry: &Registry, uri: &Uri) -> Result<Response, Error> {
    let names = registry.repositories.names().await.map_err(Error::Store)?;
    listed(uri, names, |page| json!({"repositories": page}))
}

/// One page of a list: at most `n` names after `last`, and where the next page is.
fn listed(uri: &Uri, mut names: Vec<String>, document: impl FnOnce(&[String]) -> Value) -> Result<Response, Error> {
    names.sort();
    names.dedup();
    let last = parameter(uri, "last");
    let start = last.map_or(0, |last| names.partition_point(|name| *name <= last));
    let rest = &names[start..];
    let limit = match parameter(uri, "n") {
        None => rest.len(),
        Some(text) => text
            .parse::<u32>()
            .map_err(|_| Error::PageInvalid(format!("n is the number of names wanted, found '{}'", printable(&text))))?
            as usize,
    };
    let page = &rest[..limit.min(rest.len())];
    let mut response = Json(document(page)).into_response();
    if let Some(last) = page.last().filter(|_| page.len() < rest.len()) {
        let link = format!("<{}?n={limit}&last={last}>; rel=\"next\"", uri.path());
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    Ok(response)
}

fn repository(registry: &Registry, name: &str) -> Result<Arc<dyn Repository>, Error> {
    registry
        .repositories
        .repository(name)
        .map_err(|error| Error::of_store(error, || Error::NameUnknown(name.to_owned())))
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_owned()).filter(|text| !text.is_empty())
}

async fn body(body: Body) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Error::ManifestInvalid("the manifest ended early".to_owned()))?;
        if (bytes.len() + piece.len()) as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::ManifestTooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.into())
}

/// The type of a manifest and what it refers to. `said` is the request's word for the type.
fn read(bytes: &[u8], said: Option<String>) -> Result<(String, Vec<Descriptor>), Error> {
    let wrong = |reason: String| Error::ManifestInvalid(reason);
    let document: Value =
        serde_json::from_slice(bytes).map_err(|error| wrong(format!("the manifest is no JSON: {error}")))?;
    // Readers of the two shapes would see two artifacts under one digest (CVE-2021-41190).
    let lists = document.get("manifests").is_some();
    if lists && (document.get("layers").is_some() || document.get("config").is_some()) {
        return Err(wrong("a document with 'manifests' and 'layers' is neither an index nor a manifest".to_owned()));
    }
    let own = document.get("mediaType").and_then(Value::as_str).map(str::to_owned);
    let said = said.filter(|said| said != "application/json");
    if let (Some(own), Some(said)) = (&own, &said)
        && own != said
    {
        let (own, said) = (printable(own), printable(said));
        return Err(wrong(format!("Content-Type is {said}, the manifest's own mediaType is {own}")));
    }
    let default = if lists { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let media_type = own.or(said).unwrap_or_else(|| default.to_owned());
    if !media_type::is_manifest(&media_type) {
        let found = printable(&media_type);
        return Err(wrong(format!("expected an OCI or Docker v2 manifest or index, found the type {found}")));
    }
    if media_type::is_index(&media_type) != lists {
        return Err(wrong(format!("the document has not the fields of a {media_type}")));
    }
    let parts = if lists {
        Index::parse(bytes).map(|index| index.manifests)
    } else {
        Manifest::parse(bytes).map(|manifest| manifest.blobs().cloned().collect())
    };
    Ok((media_type, parts.map_err(|error| wrong(error.to_string()))?))
}

/// A manifest in hand, as the source of its own push.
struct InHand(Bytes);

#[async_trait]
impl Fetch for InHand {
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, ContentError> {
        let found = self.0.len() as u64;
        if range.start > range.end || range.end > found {
            return Err(ContentError::SizeMismatch { digest: descriptor.digest, expected: range.end, found });
        }
        let bytes = self.0.slice(range.start as usize..range.end as usize);
        Ok(Box::pin(stream::iter([Ok(bytes)])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_say_what_they_are() {
        let blob = Descriptor::of(media_type::OCTET_STREAM, b"x");
        let manifest = json!({"schemaVersion": 2, "config": blob, "layers": []});
        let check = |document: &Value, said: Option<&str>, expected: Option<&str>| {
            let found = read(document.to_string().as_bytes(), said.map(str::to_owned)).ok();
            assert_eq!(found.map(|(found, _)| found).as_deref(), expected, "{document} {said:?}");
        };
        check(&manifest, None, Some(media_type::OCI_MANIFEST));
        check(&manifest, Some("application/json"), Some(media_type::OCI_MANIFEST));
        check(&manifest, Some(media_type::DOCKER_MANIFEST), Some(media_type::DOCKER_MANIFEST));
        check(&manifest, Some(media_type::OCI_INDEX), None);
        check(&manifest, Some("text/plain"), None);
        let mut own = manifest.clone();
        own["mediaType"] = json!(media_type::OCI_MANIFEST);
        check(&own, Some(media_type::OCI_MANIFEST), Some(media_type::OCI_MANIFEST));
        check(&own, Some(media_type::DOCKER_MANIFEST), None);
        let mut both = manifest;
        both["manifests"] = json!([]);
        check(&both, Some(media_type::OCI_MANIFEST), None);
        check(&json!({"schemaVersion": 2, "manifests": []}), None, Some(media_type::OCI_INDEX));
        check(&json!([]), None, None);
    }
}
