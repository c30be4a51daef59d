//! Manifests and tags: resolve, read, put, list, delete.

use bytes::Bytes;
use mlxctl_artifact::{Algorithm, Descriptor, Digest, Digester, MAX_MANIFEST_BYTES, Reference, media_type};
use mlxctl_content::{self as content, Observer};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use crate::error::{Error, action, printable};
use crate::fetch::length;
use crate::repository::RemoteRepository;
use crate::transport::Request;

/// What we can read, the most wanted first. Some registries answer 404 to a client that does not name the type.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// The registry's claim about what it sends or has stored.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// The most pages, and the most tags, of one listing.
const MAX_PAGES: usize = 1000;
const MAX_TAGS: usize = 1_000_000;
/// Tags asked for at once; more is refused by some registries.
const PAGE: usize = 1000;

impl RemoteRepository {
    fn manifest_request(&self, method: Method, name: &str) -> Request {
        Request::new(method, self.url(&format!("manifests/{name}")), self.pull_scope())
            .with_header(ACCEPT, HeaderValue::from_static(ACCEPTED))
    }

    fn not_found(&self, name: &str) -> content::Error {
        let separator = if name.contains(':') { '@' } else { ':' };
        content::Error::NotFound { what: format!("{}{separator}{}", self.name(), printable(name, 150)) }
    }

    /// The manifest that a tag or a digest stands for: from the head of the answer where that says enough, else from
    /// the manifest itself.
    pub(crate) async fn resolve_manifest(&self, name: &str) -> Result<Descriptor, content::Error> {
        Self::check_name(name)?;
        let request = self.manifest_request(Method::HEAD, name);
        let transport = &self.transport;
        let head = transport.send(&request, &*transport.observer, &[StatusCode::OK]).await;
        match head {
            Ok(response) => {
                if let Some(found) = described(response.headers()) {
                    return Self::check_pinned(name, found, &action(&Method::HEAD, &request.url));
                }
            }
            // The answer to a HEAD has no body that says why; the one to a GET has.
            Err(Error::Answered { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.read_manifest(name).await?.0)
    }

    /// A manifest whole, its digest checked against its bytes and against what the registry says.
    pub(crate) async fn read_manifest(&self, name: &str) -> Result<(Descriptor, Bytes), content::Error> {
        Self::check_name(name)?;
        let request = self.manifest_request(Method::GET, name);
        let action = action(&Method::GET, &request.url);
        let transport = &self.transport;
        let response = match transport.send(&request, &*transport.observer, &[StatusCode::OK]).await {
            Err(error) if error.status() == Some(404) => return Err(self.not_found(name)),
            other => other?,
        };
        let headers = response.headers().clone();
        let body = transport.body(&action, response, MAX_MANIFEST_BYTES).await?;
        let pinned = name.parse::<Digest>().ok();
        let claimed = content_digest(&headers);
        let algorithm = pinned.or(claimed).map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let mut digester = Digester::new(algorithm);
        digester.update(&body);
        let found = digester.finish();
        // A claim made with another algorithm cannot be compared and is not needed.
        let claimed = claimed.filter(|claimed| claimed.algorithm() == algorithm);
        for expected in [pinned, claimed].into_iter().flatten() {
            if expected != found {
                return Err(content::Error::DigestMismatch {
                    what: format!("the answer to {action}"),
                    expected,
                    found,
                });
            }
        }
        let media_type = Self::media_type(&headers, &body, &action)?;
        Ok((Descriptor::new(media_type, found, body.len() as u64), body))
    }

    /// The type of a manifest: its own word where it has one, else the registry's.
    fn media_type(headers: &HeaderMap, body: &[u8], action: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        let wrong = |reason: String| Error::Protocol { action: action.to_owned(), reason };
        let typed: Typed =
            serde_json::from_slice(body).map_err(|_| wrong("the answer is no manifest: no JSON object".to_owned()))?;
        let said = typed.media_type.or_else(|| content_type(headers));
        match said {
            // Readers of the two shapes would see two models under one digest (CVE-2021-41190).
            _ if typed.layers.is_some() && typed.manifests.is_some() => {
                Err(wrong("the answer is a manifest and an index at once; that is refused".to_owned()))
            }
            Some(said) if media_type::is_manifest(&said) => Ok(said),
            // Old manifests say nothing, and some registries call every one of them JSON.
            _ if typed.layers.is_some() => Ok(media_type::OCI_MANIFEST.to_owned()),
            _ if typed.manifests.is_some() => Ok(media_type::OCI_INDEX.to_owned()),
            said => {
                let said = printable(&said.unwrap_or_else(|| "nothing".to_owned()), 100);
                Err(wrong(format!("expected an OCI or Docker v2 manifest or index, found the type {said}")))
            }
        }
    }

    fn check_pinned(name: &str, found: Descriptor, action: &str) -> Result<Descriptor, content::Error> {
        match name.parse::<Digest>() {
            Ok(expected) if expected != found.digest => Err(content::Error::DigestMismatch {
                what: format!("the answer to {action}"),
                expected,
                found: found.digest,
            }),
            _ => Ok(found),
        }
    }

    /// A name goes into an address: it has to be a tag or a digest.
    fn check_name(name: &str) -> Result<(), content::Error> {
        let fits = name.parse::<Digest>().is_ok() || is_tag(name);
        if fits {
            return Ok(());
        }
        Err(content::Error::Refused { message: format!("'{}' is neither a tag nor a digest", printable(name, 120)) })
    }

    /// Whether the repository has the manifest.
    pub(crate) async fn has_manifest(&self, descriptor: &Descriptor) -> Result<bool, content::Error> {
        let mut request = self.manifest_request(Method::HEAD, &descriptor.digest.to_string());
        request.scope = self.push_scope();
        let observer = &*self.transport.observer;
        let response = self.transport.send(&request, observer, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
        let claimed = content_digest(response.headers());
        Ok(response.status() == StatusCode::OK && claimed.is_none_or(|claimed| claimed == descriptor.digest))
    }

    /// Stores the bytes of a manifest under a tag or its digest.
    pub(crate) async fn put_manifest(
        &self,
        name: &str,
        descriptor: &Descriptor,
        body: Bytes,
        observer: &dyn Observer,
    ) -> Result<HeaderMap, content::Error> {
        Self::check_name(name)?;
        let wrong = |_| content::Error::Refused {
            message: format!("'{}' is not the media type of a manifest", printable(&descriptor.media_type, 120)),
        };
        let media_type = HeaderValue::from_str(&descriptor.media_type).map_err(wrong)?;
        let url = self.url(&format!("manifests/{name}"));
        let action = action(&Method::PUT, &url);
        let mut request = Request::new(Method::PUT, url, self.push_scope()).with_header(CONTENT_TYPE, media_type);
        request.body = body;
        let stored = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let response = self.transport.send(&request, observer, &stored).await?;
        check_digest(&action, response.headers(), &descriptor.digest)?;
        Ok(response.headers().clone())
    }

    /// Every tag, page by page.
    pub(crate) async fn list_tags(&self) -> Result<Vec<String>, content::Error> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut url = self.url("tags/list");
        url.set_query(Some(&format!("n={PAGE}")));
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let request = Request::new(Method::GET, url.clone(), self.pull_scope());
            let action = action(&Method::GET, &url);
            let response = match self.transport.send(&request, &*self.transport.observer, &[StatusCode::OK]).await {
                Err(error) if error.status() == Some(404) => {
                    return Err(content::Error::NotFound { what: format!("repository {}", self.name()) });
                }
                other => other?,
            };
            let next = next_page(response.headers(), &url);
            let body = self.transport.body(&action, response, MAX_MANIFEST_BYTES).await?;
            let wrong = |reason: &str| Error::Protocol { action: action.clone(), reason: reason.to_owned() };
            let page: Page = serde_json::from_slice(&body).map_err(|_| wrong("the answer is no list of tags"))?;
            // What is no tag could not be asked for again, and would be printed.
            tags.extend(page.tags.unwrap_or_default().into_iter().filter(|tag| is_tag(tag)));
            if tags.len() > MAX_TAGS {
                return Err(wrong("the repository lists more than a million tags").into());
            }
            match next {
                Some(next) if self.transport.host.is_origin_of(&next) && next != url => url = next,
                _ => break,
            }
        }
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// Removes what lies under `path`; whether it was there.
    pub(crate) async fn remove(&self, path: &str) -> Result<bool, content::Error> {
        let request = Request::new(Method::DELETE, self.url(path), self.delete_scope());
        let answers = [StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::NOT_FOUND];
        let response = self.transport.send(&request, &*self.transport.observer, &answers).await?;
        Ok(response.status() != StatusCode::NOT_FOUND)
    }

    pub(crate) async fn remove_tag(&self, tag: &str) -> Result<(), content::Error> {
        Self::check_name(tag)?;
        if self.remove(&format!("manifests/{tag}")).await? { Ok(()) } else { Err(self.not_found(tag)) }
    }
}

/// The descriptor that the head of an answer holds, where it holds a whole one.
fn described(headers: &HeaderMap) -> Option<Descriptor> {
    let media_type = content_type(headers).filter(|found| media_type::is_manifest(found))?;
    let size = length(headers).filter(|size| (1..=MAX_MANIFEST_BYTES).contains(size))?;
    Some(Descriptor::new(media_type, content_digest(headers)?, size))
}

/// The type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or(text).trim().to_owned())
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}

/// Whether the registry has stored what was sent, where it says what it stored.
pub(crate) fn check_digest(action: &str, headers: &HeaderMap, expected: &Digest) -> Result<(), Error> {
    match content_digest(headers) {
        Some(found) if found.algorithm() == expected.algorithm() && found != *expected => {
            let reason = format!("{expected} was sent, the registry says it stored {found}");
            Err(Error::Protocol { action: action.to_owned(), reason })
        }
        _ => Ok(()),
    }
}

fn is_tag(text: &str) -> bool {
    Reference::local("name", Some(text)).is_ok_and(|reference| reference.tag() == Some(text))
}

/// The address in `Link: <…>; rel="next"` (RFC 8288).
pub(crate) fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let text = headers.get(LINK)?.to_str().ok()?;
    let (target, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then(|| from.join(target).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_next_page() {
        let from: Url = "http://r/v2/a/tags/list?n=2".parse().unwrap();
        let next = |text: &str| {
            next_page(&[(LINK, text.parse().unwrap())].into_iter().collect(), &from).map(|url| url.to_string())
        };
        assert_eq!(
            next("</v2/a/tags/list?last=b&n=2>; rel=\"next\"").as_deref(),
            Some("http://r/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(next("<http://x/y>; title=z; rel=next").as_deref(), Some("http://x/y"));
        assert_eq!(next("</v2/>; rel=\"prev\""), None);
        assert_eq!(next("</v2/"), None);
    }
}
