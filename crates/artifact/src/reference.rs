//! References: `[registry/]repository[:tag][@digest]`, as people type them and as recipes name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, shortened};

/// The tag of a reference that names none.
pub const LATEST: &str = "latest";

/// The name of a manifest. Without a registry it is a local name. Where it holds a digest, the digest decides and the
/// tag is a remark.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// A local name.
    pub fn local(repository: &str, tag: Option<&str>) -> Result<Self, Error> {
        match tag {
            Some(tag) => format!("{repository}:{tag}").parse(),
            None => repository.parse(),
        }
    }

    /// Host and port of the registry; `None` for a local name.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The repository, for example `org/model`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag where one is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest where one is named.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The tag that is meant: the one named, else `latest`.
    pub fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or(LATEST)
    }

    /// Registry and repository, without tag and digest.
    pub fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }

    /// The same repository, pinned to a digest; the tag stays as a remark.
    pub fn at(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The same repository under another tag, no longer pinned.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Error> {
        format!("{}:{tag}", self.name()).parse()
    }

    /// The same repository and tag at a registry: how `MLXCTL_REGISTRY` completes a short name. A prefix may hold the
    /// first components of the repository: `ghcr.io/org`.
    pub fn under(&self, prefix: &str) -> Result<Self, Error> {
        if self.registry.is_some() {
            return Ok(self.clone());
        }
        format!("{}/{self}", prefix.trim_end_matches('/')).parse()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::Reference { found: shortened(text), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        // Docker's rule: the first component is a registry if it looks like a host.
        let (registry, rest) = match rest.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => (Some(first), path),
            _ => (None, rest),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if let Some(registry) = registry
            && !is_host(registry)
        {
            return Err(wrong("the registry is not a host with an optional port"));
        }
        if !is_repository(repository) {
            return Err(wrong("a repository is lower-case letters and digits, separated by '.', '_', '-' or '/'"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag is at most 128 letters, digits, '.', '_' or '-', and starts with none of '.-'"));
        }
        Ok(Self {
            registry: registry.map(str::to_ascii_lowercase),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// `host[:port]`: a name, an IPv4 address or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return false;
    }
    match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        Some(None) => false,
        None => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                })
        }
    }
}

/// Distribution specification: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`, at most 255 characters.
fn is_repository(text: &str) -> bool {
    text.len() <= 255 && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

/// Distribution specification: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.is_empty()
        && !text.starts_with(['.', '-'])
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check = |text: &str, registry: Option<&str>, repository: &str, tag: Option<&str>| {
            let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (reference.registry(), reference.repository(), reference.tag()),
                (registry, repository, tag),
                "{text}"
            );
            assert_eq!(reference.to_string(), text);
        };
        check("pebble", None, "pebble", None);
        check("qwen3-0.6b", None, "qwen3-0.6b", None);
        check("qwen3-0.6b:1.0.0", None, "qwen3-0.6b", Some("1.0.0"));
        check("org/model:V1", None, "org/model", Some("V1"));
        check("ghcr.io/org/model", Some("ghcr.io"), "org/model", None);
        check("localhost/m:x", Some("localhost"), "m", Some("x"));
        check("127.0.0.1:5000/a/b/c:latest", Some("127.0.0.1:5000"), "a/b/c", Some("latest"));
        check("[::1]:5000/m", Some("[::1]:5000"), "m", None);
        check("a__b/c--d", None, "a__b/c--d", None);
        check(&format!("ghcr.io/m:1@{digest}"), Some("ghcr.io"), "m", Some("1"));
        check(&format!("m@{digest}"), None, "m", None);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            ":",
            "/",
            "Model",
            "a/",
            "/a",
            "a//b",
            "a___b",
            "a-",
            "-a",
            "a:",
            "a:.b",
            "a:-b",
            "a@sha256:1",
            "a b",
            "reg.io:99999/a",
            "reg.io:/a",
            "[::1/a",
            "-bad.io/a",
            "a..b/c",
            "../x",
            "a/../b",
            "é",
            "a:é",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert!("a".repeat(256).parse::<Reference>().is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn a_prefix_completes_a_short_name() {
        let short: Reference = "pebble:1".parse().unwrap();
        assert_eq!(short.under("ghcr.io/org/").unwrap().to_string(), "ghcr.io/org/pebble:1");
        let full: Reference = "quay.io/pebble:1".parse().unwrap();
        assert_eq!(full.under("ghcr.io/org").unwrap(), full);
    }

    proptest! {
        #[test]
        fn what_parses_prints_back(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
