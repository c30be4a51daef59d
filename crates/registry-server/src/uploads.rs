//! Uploads: whole, in chunks, or by mounting what another repository has.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use mlxctl_artifact::Digest;
use mlxctl_content::{ByteStream, Error as ContentError, Quiet, Repository};

use crate::blobs::CONTENT_DIGEST;
use crate::error::Error;
use crate::route::{self, printable};
use crate::serve::{Registry, empty};

/// The session's name, as Docker's clients know it.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Opens an upload; with `digest` it takes the blob at once, with `mount` it looks for it next door.
pub(crate) async fn post(registry: &Registry, name: &str, request: Request) -> Result<Response, Error> {
    let repository = repository(registry, name)?;
    if let Some(digest) = parameter(request.uri(), "mount") {
        let (digest, from) = (route::digest(&digest)?, parameter(request.uri(), "from"));
        if mount(registry, &*repository, digest, from).await? {
            return Ok(created(name, &digest));
        }
        // Not there: the specification wants an upload to be opened instead.
        let session = begin(&*repository).await?;
        return Ok(progress(StatusCode::ACCEPTED, name, &session, 0));
    }
    let digest = parameter(request.uri(), "digest").map(|text| route::digest(&text)).transpose()?;
    let session = begin(&*repository).await?;
    match digest {
        None => Ok(progress(StatusCode::ACCEPTED, name, &session, 0)),
        Some(digest) => finish(&Upload::new(registry, name, &session)?, digest, request, 0).await,
    }
}

/// Adds a chunk.
pub(crate) async fn patch(registry: &Registry, name: &str, session: &str, request: Request) -> Result<Response, Error> {
    let upload = Upload::new(registry, name, session)?;
    let offset = upload.offset().await?;
    let offset = upload.append(offset, request).await?;
    Ok(progress(StatusCode::ACCEPTED, name, session, offset))
}

/// Closes an upload, with its last chunk where the request has a body.
pub(crate) async fn put(registry: &Registry, name: &str, session: &str, request: Request) -> Result<Response, Error> {
    let upload = Upload::new(registry, name, session)?;
    let digest = parameter(request.uri(), "digest").ok_or_else(|| {
        Error::DigestInvalid("an upload is closed with '?digest=': it says what the bytes should be".to_owned())
    })?;
    let offset = upload.offset().await?;
    finish(&upload, route::digest(&digest)?, request, offset).await
}

/// Says how far an upload is.
pub(crate) async fn get(registry: &Registry, name: &str, session: &str) -> Result<Response, Error> {
    let offset = Upload::new(registry, name, session)?.offset().await?;
    Ok(progress(StatusCode::NO_CONTENT, name, session, offset))
}

/// Drops an upload.
pub(crate) async fn delete(registry: &Registry, name: &str, session: &str) -> Result<Response, Error> {
    let upload = Upload::new(registry, name, session)?;
    upload.repository.cancel(session).await.map_err(|error| upload.error(error))?;
    Ok(empty(StatusCode::NO_CONTENT, &[]))
}

struct Upload<'a> {
    repository: Arc<dyn Repository>,
    name: &'a str,
    session: &'a str,
    max_bytes: u64,
}

impl<'a> Upload<'a> {
    fn new(registry: &Registry, name: &'a str, session: &'a str) -> Result<Self, Error> {
        let max_bytes = registry.options.max_blob_bytes;
        Ok(Self { repository: repository(registry, name)?, name, session, max_bytes })
    }

    async fn offset(&self) -> Result<u64, Error> {
        self.repository.offset(self.session).await.map_err(|error| self.error(error))
    }

    fn error(&self, error: ContentError) -> Error {
        Error::of_store(error, || Error::UploadUnknown(printable(self.session)))
    }

    fn out_of_order(&self, offset: u64, reason: impl Into<String>) -> Error {
        Error::UploadRange { offset, reason: reason.into(), location: location(self.name, self.session) }
    }

    /// Takes the body of a request; returns the new offset.
    async fn append(&self, offset: u64, request: Request) -> Result<u64, Error> {
        let length = content_length(request.headers());
        let mut limit = length;
        if let Some(value) = request.headers().get(header::CONTENT_RANGE) {
            let text = value.to_str().unwrap_or_default();
            let (start, last) = content_range(text).ok_or_else(|| {
                let reason = format!("Content-Range is '<first>-<last>', found '{}'", printable(text));
                self.out_of_order(offset, reason)
            })?;
            if start != offset {
                return Err(self.out_of_order(offset, format!("the chunk starts at {start}")));
            }
            let says = last - start + 1;
            if length.is_some_and(|length| length != says) {
                return Err(self.out_of_order(offset, "Content-Range and Content-Length differ"));
            }
            limit = Some(says);
        }
        let room = self.max_bytes.saturating_sub(offset);
        if limit.is_some_and(|limit| limit > room) {
            return Err(Error::BlobTooLarge(self.max_bytes));
        }
        match self.repository.append(self.session, offset, stream(request.into_body(), limit.unwrap_or(room))).await {
            Ok(offset) => Ok(offset),
            // Somebody else writes to this session, or has written since.
            Err(ContentError::Refused { message }) => Err(self.out_of_order(offset, message)),
            // The bytes that arrived before the body broke are kept: the client asks where to go on.
            Err(ContentError::Remote { message, .. }) => Err(Error::UploadInvalid(message)),
            Err(error) => Err(self.error(error)),
        }
    }
}

async fn finish(upload: &Upload<'_>, digest: Digest, request: Request, offset: u64) -> Result<Response, Error> {
    let empty_body = content_length(request.headers()) == Some(0)
        || (content_length(request.headers()).is_none() && !request.headers().contains_key(header::TRANSFER_ENCODING));
    if !empty_body {
        upload.append(offset, request).await?;
    }
    upload.repository.commit(upload.session, &digest).await.map_err(|error| upload.error(error))?;
    Ok(created(upload.name, &digest))
}

/// Whether the blob is in the repository now, because it was or because `from` has it.
async fn mount(
    registry: &Registry,
    target: &dyn Repository,
    digest: Digest,
    from: Option<String>,
) -> Result<bool, Error> {
    let found = |resolved: Result<_, ContentError>| match resolved {
        Ok(blob) => Ok(Some(blob)),
        Err(ContentError::NotFound { .. }) => Ok(None),
        Err(error) => Err(Error::Store(error)),
    };
    let key = digest.to_string();
    if let Some(blob) = found(target.resolve(&key).await)? {
        return target.exists(&blob).await.map_err(Error::Store);
    }
    let Some(from) = from else { return Ok(false) };
    let source = repository(registry, &route::name(&from)?)?;
    let Some(blob) = found(source.resolve(&key).await)? else { return Ok(false) };
    target.push(&blob, &*source, &Quiet).await.map_err(Error::Store)?;
    Ok(true)
}

fn repository(registry: &Registry, name: &str) -> Result<Arc<dyn Repository>, Error> {
    registry
        .repositories
        .repository(name)
        .map_err(|error| Error::of_store(error, || Error::NameUnknown(name.to_owned())))
}

async fn begin(repository: &dyn Repository) -> Result<String, Error> {
    repository.begin().await.map_err(|error| Error::of_store(error, || Error::NameUnknown(String::new())))
}

/// The body as the store takes it. A body that ends early or goes on too long is an error of its sender.
fn stream(body: Body, limit: u64) -> ByteStream {
    let broken = |message: String| ContentError::Remote { message, status: None, hint: None };
    let mut left = limit;
    Box::pin(body.into_data_stream().map(move |bytes| {
        let bytes = bytes.map_err(|error| broken(format!("the body ended early: {error}")))?;
        let fits = left.checked_sub(bytes.len() as u64);
        left = fits.ok_or_else(|| broken("the body is longer than its Content-Range, or than allowed".to_owned()))?;
        Ok(bytes)
    }))
}

fn location(name: &str, session: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{session}")
}

/// The bytes that an upload holds, as the `Range` header says it; the specification has no word for none.
pub(crate) fn held(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn progress(status: StatusCode, name: &str, session: &str, offset: u64) -> Response {
    let mut headers = vec![
        (header::LOCATION, location(name, session)),
        (header::RANGE, held(offset)),
        (UPLOAD_UUID, session.to_owned()),
    ];
    if status != StatusCode::NO_CONTENT {
        headers.push((header::CONTENT_LENGTH, "0".to_owned()));
    }
    empty(status, &headers)
}

fn created(name: &str, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_string()),
        (header::CONTENT_LENGTH, "0".to_owned()),
    ];
    empty(StatusCode::CREATED, &headers)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `<first>-<last>`, both included; Docker's clients write it without `bytes`, some others with.
fn content_range(text: &str) -> Option<(u64, u64)> {
    let text = text.trim();
    let text = text.strip_prefix("bytes ").or_else(|| text.strip_prefix("bytes=")).unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (start, last) = text.split_once('-')?;
    let (start, last): (u64, u64) = (start.parse().ok()?, last.parse().ok()?);
    (start <= last && last < u64::MAX).then_some((start, last))
}

/// A parameter of the query, unescaped.
pub(crate) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| unescaped(value))
    })
}

/// Undoes `%XX` and `+`; what is no escape stays as it is.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value =
            escape.and_then(|hex| std::str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        at += if value.is_some() { 3 } else { 1 };
        found.push(value.unwrap_or(if byte == b'+' { b' ' } else { byte }));
    }
    String::from_utf8_lossy(&found).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges_are_read_in_every_dialect() {
        let check = |text: &str, expected| assert_eq!(content_range(text), expected, "{text}");
        check("0-4", Some((0, 4)));
        check("bytes 5-9/10", Some((5, 9)));
        check("bytes=5-9", Some((5, 9)));
        check("5-4", None);
        check("-4", None);
        check("0-18446744073709551615", None);
        check("", None);
    }

    #[test]
    fn parameters_are_unescaped() {
        let uri: Uri = "/v2/a/blobs/uploads/?mount=sha256%3Aab&from=o%2Fm&x".parse().unwrap();
        assert_eq!(parameter(&uri, "mount").as_deref(), Some("sha256:ab"));
        assert_eq!(parameter(&uri, "from").as_deref(), Some("o/m"));
        assert_eq!(parameter(&uri, "x").as_deref(), Some(""));
        assert_eq!(parameter(&uri, "digest"), None);
        assert_eq!(unescaped("%zz%4"), "%zz%4");
    }

    proptest! {
        #[test]
        fn foreign_texts_never_panic(text in "[%0-9a-fé+-]{0,20}") {
            let _ = (unescaped(&text), content_range(&text));
        }
    }
}
