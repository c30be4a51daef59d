//! Takes the path of a request apart. Repository names hold slashes, and words such as `blobs` may be part of them, so
//! the path is read from its end.

use mlxctl_artifact::{Digest, Reference};

use crate::error::Error;

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `…/blobs/<digest>`
    Blob(String, Digest),
    /// `…/blobs/uploads/`
    Uploads(String),
    /// `…/blobs/uploads/<session>`
    Upload(String, String),
    /// `…/manifests/<tag or digest>`
    Manifest(String, Name),
    /// `…/tags/list`
    Tags(String),
    /// `…/referrers/<digest>`
    Referrers(String, Digest),
}

/// How a manifest is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Tag(String),
    Digest(Digest),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Route {
    /// Reads a path as it was sent: nothing in the grammar needs an escape, so none is undone, but for the colon of a
    /// digest, which some clients escape.
    pub(crate) fn parse(path: &str) -> Result<Self, Error> {
        let rest = match path {
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            _ => path.strip_prefix("/v2/").ok_or(Error::NoSuchAddress)?,
        };
        let mut from_end = rest.rsplitn(4, '/');
        let (last, second, third) = (from_end.next(), from_end.next(), from_end.next());
        let before_third = from_end.next();
        let before_second = match (before_third, third) {
            (Some(before), Some(third)) => Some(&rest[..before.len() + 1 + third.len()]),
            (None, third) => third,
            (Some(_), None) => None,
        };
        match (before_third, third, second, last) {
            (Some(before), Some("blobs"), Some("uploads"), Some("")) => Ok(Self::Uploads(name(before)?)),
            (Some(before), Some("blobs"), Some("uploads"), Some(session)) => {
                Ok(Self::Upload(name(before)?, session.to_owned()))
            }
            _ => match (before_second, second, last) {
                (Some(before), Some("blobs"), Some("uploads")) => Ok(Self::Uploads(name(before)?)),
                (Some(before), Some("blobs"), Some(text)) => Ok(Self::Blob(name(before)?, digest(text)?)),
                (Some(before), Some("tags"), Some("list")) => Ok(Self::Tags(name(before)?)),
                (Some(before), Some("referrers"), Some(text)) => Ok(Self::Referrers(name(before)?, digest(text)?)),
                (Some(before), Some("manifests"), Some(text)) => {
                    Ok(Self::Manifest(name(before)?, manifest_name(text)?))
                }
                _ => Err(Error::NoSuchAddress),
            },
        }
    }
}

/// A repository's name, checked.
pub(crate) fn name(text: &str) -> Result<String, Error> {
    // With a registry in front, no part of the name can be taken for one.
    let parsed = format!("localhost/{text}").parse::<Reference>();
    let fits = parsed.is_ok_and(|reference| reference.repository() == text);
    if fits { Ok(text.to_owned()) } else { Err(Error::NameInvalid(printable(text))) }
}

/// A digest, checked.
pub(crate) fn digest(text: &str) -> Result<Digest, Error> {
    let unescaped = text.replacen("%3A", ":", 1).replacen("%3a", ":", 1);
    unescaped.parse().map_err(|error: mlxctl_artifact::Error| Error::DigestInvalid(error.to_string()))
}

fn manifest_name(text: &str) -> Result<Name, Error> {
    if text.contains(':') || text.contains('%') {
        return digest(text).map(Name::Digest);
    }
    let fits = Reference::local("name", Some(text)).is_ok_and(|reference| reference.tag() == Some(text));
    if fits { Ok(Name::Tag(text.to_owned())) } else { Err(Error::ManifestUnknown(printable(text))) }
}

/// The start of a foreign text, for a message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_taken_apart_from_their_end() {
        let of_abc = Digest::sha256_of(b"abc");
        let blob = |name: &str| Route::Blob(name.to_owned(), of_abc);
        let check = |path: String, expected: Route| assert_eq!(Route::parse(&path).unwrap(), expected, "{path}");
        check("/v2/".to_owned(), Route::Base);
        check("/v2".to_owned(), Route::Base);
        check("/v2/_catalog".to_owned(), Route::Catalog);
        check(format!("/v2/a/blobs/{of_abc}"), blob("a"));
        check(format!("/v2/a/blobs/{}", of_abc.to_string().replace(':', "%3A")), blob("a"));
        check(format!("/v2/a/b/c/d/blobs/{of_abc}"), blob("a/b/c/d"));
        check(format!("/v2/blobs/blobs/{of_abc}"), blob("blobs"));
        check(format!("/v2/a/blobs/uploads/blobs/{of_abc}"), blob("a/blobs/uploads"));
        check(format!("/v2/my.org/model/blobs/{of_abc}"), blob("my.org/model"));
        check("/v2/a/blobs/uploads/".to_owned(), Route::Uploads("a".to_owned()));
        check("/v2/a/blobs/uploads".to_owned(), Route::Uploads("a".to_owned()));
        check("/v2/a/b/blobs/uploads/x-1".to_owned(), Route::Upload("a/b".to_owned(), "x-1".to_owned()));
        check("/v2/a/manifests/V1".to_owned(), Route::Manifest("a".to_owned(), Name::Tag("V1".to_owned())));
        check(format!("/v2/a/manifests/{of_abc}"), Route::Manifest("a".to_owned(), Name::Digest(of_abc)));
        check(
            "/v2/manifests/manifests/tags".to_owned(),
            Route::Manifest("manifests".to_owned(), Name::Tag("tags".to_owned())),
        );
        check("/v2/a/tags/list".to_owned(), Route::Tags("a".to_owned()));
    }

    #[test]
    fn other_paths_are_refused() {
        for bad in [
            "",
            "/",
            "/v1/",
            "/v2/a",
            "/v2//blobs/x",
            "/v2/A/tags/list",
            "/v2/../x/tags/list",
            "/v2/a/../b/tags/list",
            "/v2/a%2fb/tags/list",
            "/v2/a/manifests/",
            "/v2/a/manifests/.x",
            "/v2/a/manifests/sha256:1",
            "/v2/a/blobs/x",
            "/v2/blobs/uploads/",
            "/v2/tags/list",
            "/v2/a/referrers/sha256:1",
            "/v2/a//tags/list",
            "/v2/a/tags/list/",
        ] {
            assert!(Route::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn foreign_paths_never_panic(path in "(/|v2|blobs|uploads|manifests|tags|list|a|:|%|é|\\.|_){0,12}") {
            let _ = Route::parse(&path);
            let _ = Route::parse(&format!("/v2/{path}"));
        }
    }
}
