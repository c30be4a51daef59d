//! The referrers API: what is about a manifest, as an index, page by page.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use mlxctl_artifact::{Digest, Index, media_type};

use crate::error::Error;
use crate::serve::{Registry, empty};
use crate::uploads::parameter;

/// Says that the list holds what the client asked for alone.
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The most bytes of descriptors on a page: an index is a manifest, and may have 4 MiB.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Lists the referrers of a manifest, whether it is here or not.
pub(crate) async fn list(registry: &Registry, name: &str, subject: Digest, uri: &Uri) -> Result<Response, Error> {
    let unknown = |error| Error::of_store(error, || Error::NameUnknown(name.to_owned()));
    let wanted = parameter(uri, "artifactType").filter(|text| !text.is_empty());
    let repository = registry.repositories.repository(name).map_err(unknown)?;
    let mut found = repository.referrers(&subject, wanted.as_deref()).await.map_err(unknown)?;
    if let Some(last) = parameter(uri, "last") {
        let last: Digest = last
            .parse()
            .map_err(|_| Error::PageInvalid("last is the digest that the page before ended with".to_owned()))?;
        found.retain(|referrer| referrer.digest > last);
    }
    let mut bytes = 0;
    let fits = found.iter().take_while(|referrer| {
        bytes += serde_json::to_vec(referrer).map_or(MAX_PAGE_BYTES, |text| text.len());
        bytes <= MAX_PAGE_BYTES
    });
    // One that fills a page alone is still shown: a list that never ends helps nobody.
    let count = fits.count().max(1).min(found.len());
    let next = (count < found.len()).then(|| found[count - 1].digest);
    found.truncate(count);
    let content = Index::of(found).to_bytes();
    let mut headers = vec![
        (header::CONTENT_TYPE, media_type::OCI_INDEX.to_owned()),
        (header::CONTENT_LENGTH, content.len().to_string()),
    ];
    if wanted.is_some() {
        headers.push((FILTERS_APPLIED, "artifactType".to_owned()));
    }
    let mut response = empty(StatusCode::OK, &headers);
    if let Some(last) = next {
        let filter = wanted.map(|wanted| format!("artifactType={}&", escaped(&wanted))).unwrap_or_default();
        let link = format!("<{}?{filter}last={last}>; rel=\"next\"", uri.path());
        if let Ok(link) = HeaderValue::from_str(&link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    *response.body_mut() = Body::from(content);
    Ok(response)
}

/// A text as it may stand in a query.
fn escaped(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            found.push(byte.into());
        } else {
            // Writing into a string cannot fail.
            let _ = write!(found, "%{byte:02X}");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_the_way_to_the_next_page() {
        for text in ["application/vnd.x+json", "a b&c=d", "ü%", ""] {
            let uri: Uri = format!("/v2/a/referrers/x?artifactType={}&last=b", escaped(text)).parse().unwrap();
            assert_eq!(parameter(&uri, "artifactType").as_deref(), Some(text));
        }
    }
}
