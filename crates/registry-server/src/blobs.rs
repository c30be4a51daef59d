//! Blobs: the whole, a range, or just the head.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::Response;
use mlxctl_artifact::Digest;

use crate::error::Error;
use crate::serve::{Registry, empty};

/// The digest of what an answer is about.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(crate) async fn get(
    registry: &Registry,
    name: &str,
    digest: Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Error> {
    let unknown = || Error::BlobUnknown(digest.to_string());
    let missing = |error| Error::of_store(error, unknown);
    let repository = registry.repositories.repository(name).map_err(missing)?;
    let blob = repository.resolve(&digest.to_string()).await.map_err(missing)?;
    let size = blob.size;
    let (status, range) = match wanted(headers, size) {
        Wanted::Whole => (StatusCode::OK, 0..size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Outside => return Err(Error::RangeOutside { size }),
    };
    let mut headers = vec![
        (CONTENT_DIGEST, digest.to_string()),
        (header::ETAG, format!("\"{digest}\"")),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
        // A digest never stands for other bytes.
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable".to_owned()),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end - 1;
        headers.push((header::CONTENT_RANGE, format!("bytes {}-{last}/{size}", range.start)));
    }
    let mut response = empty(status, &headers);
    if method != Method::HEAD {
        let bytes = repository.fetch(&blob, range).await.map_err(missing)?;
        *response.body_mut() = Body::from_stream(bytes);
    }
    Ok(response)
}

pub(crate) async fn delete(registry: &Registry, name: &str, digest: Digest) -> Result<Response, Error> {
    let missing = |error| Error::of_store(error, || Error::BlobUnknown(digest.to_string()));
    let repository = registry.repositories.repository(name).map_err(missing)?;
    match repository.delete(&digest).await.map_err(missing) {
        Ok(()) => Ok(empty(StatusCode::ACCEPTED, &[])),
        Err(Error::Denied(reason)) => Err(Error::Unsupported(reason)),
        Err(error) => Err(error),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// `Range` (RFC 9110 section 14.2). What cannot be read, and a list of ranges, is ignored, as the RFC allows.
fn wanted(headers: &HeaderMap, size: u64) -> Wanted {
    let text = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = text.and_then(|text| text.trim().strip_prefix("bytes=")?.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a u64 holds are just a large number.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size)),
        (Some(start), None) if last.is_empty() => (start, size),
        (None, Some(count)) if first.is_empty() => (size - count.min(size), size),
        _ => return Wanted::Whole,
    };
    if start < end { Wanted::Part(start..end) } else { Wanted::Outside }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str, size: u64) -> Wanted {
        wanted(&HeaderMap::from_iter([(header::RANGE, text.parse().unwrap())]), size)
    }

    #[test]
    fn ranges_follow_the_rfc() {
        // The examples of RFC 9110 section 14.1.2, for a representation of 10000 bytes.
        assert_eq!(of("bytes=0-499", 10_000), Wanted::Part(0..500));
        assert_eq!(of("bytes=500-999", 10_000), Wanted::Part(500..1000));
        assert_eq!(of("bytes=-500", 10_000), Wanted::Part(9500..10_000));
        assert_eq!(of("bytes=9500-", 10_000), Wanted::Part(9500..10_000));
        assert_eq!(of("bytes=0-0,-1", 10_000), Wanted::Whole);
        assert_eq!(of("bytes=9999-99999", 10_000), Wanted::Part(9999..10_000));
        assert_eq!(of("bytes=0-99999999999999999999999", 10_000), Wanted::Part(0..10_000));
        assert_eq!(of("bytes=10000-", 10_000), Wanted::Outside);
        assert_eq!(of("bytes=-0", 10_000), Wanted::Outside);
        assert_eq!(of("bytes=-20000", 10_000), Wanted::Part(0..10_000));
        assert_eq!(of("bytes=0-", 0), Wanted::Outside);
        for ignored in ["bytes=5-4", "bytes=", "bytes=-", "lines=1-2", "bytes=a-b", "bytes=+1-2"] {
            assert_eq!(of(ignored, 10), Wanted::Whole, "{ignored}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 10), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_blob(text in "bytes=[0-9,-]{0,24}", size in 0u64..20_000) {
            if let Wanted::Part(range) = of(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
