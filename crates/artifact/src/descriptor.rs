//! A descriptor: the media type, digest and size by which one document points to another.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;

/// What a manifest says of a blob (image specification, "Content Descriptors"). Annotations are sorted, so that
/// writing one is deterministic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// IANA media type of the content.
    pub media_type: String,
    /// Identity of the content.
    pub digest: Digest,
    /// Length of the content in bytes; at most `i64::MAX`, as the specification has it.
    pub size: u64,
    /// What a manifest that this points to is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free-form facts about the content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, artifact_type: None, annotations: BTreeMap::new() }
    }

    /// The descriptor of bytes at hand.
    pub fn of(media_type: impl Into<String>, content: &[u8]) -> Self {
        Self::new(media_type, Digest::sha256_of(content), content.len() as u64)
    }

    /// The same with one more annotation.
    pub fn with_annotation(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn from_oci(wire: &oci::Descriptor) -> Result<Self, Error> {
        if i64::try_from(wire.size()).is_err() {
            return Err(Error::Document {
                what: "descriptor",
                reason: format!("size {} of {} is beyond 2^63", wire.size(), wire.digest()),
            });
        }
        Ok(Self {
            media_type: wire.media_type().to_string(),
            digest: wire.digest().as_ref().parse()?,
            size: wire.size(),
            artifact_type: wire.artifact_type().as_ref().map(ToString::to_string),
            annotations: wire.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }
}
