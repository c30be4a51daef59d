//! What a manifest refers to: followed by the collector, by `verify`, and by whoever lets go of a lease.

use mlxctl_artifact::{Descriptor, Digest, Index, MAX_MANIFEST_BYTES, Manifest, media_type};
use mlxctl_content::Referrer;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Error;
use crate::blob::Blobs;

/// What a manifest says about other content.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// What it needs.
    pub(crate) children: Vec<Descriptor>,
    /// Draft models and adapters: kept with it where they are here, and not missed where they are not.
    pub(crate) references: Vec<Descriptor>,
    /// What it is about: it lives as long as that does.
    pub(crate) subject: Option<Digest>,
}

/// The fields that tell a manifest from an index and from any other JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<Vec<IgnoredAny>>,
    manifests: Option<Vec<IgnoredAny>>,
}

/// The media type of a document of which nothing but its bytes is known: a manifest's, an index's, or that of a mere
/// blob. A document with the fields of both is neither (CVE-2021-41190).
pub(crate) fn media_type_of(content: &[u8]) -> String {
    let neither = media_type::OCTET_STREAM.to_owned();
    if !content.trim_ascii_start().starts_with(b"{") {
        return neither;
    }
    let Ok(shape) = serde_json::from_slice::<Shape>(content) else { return neither };
    let lists = shape.manifests.is_some();
    let composes = shape.config.is_some() && shape.layers.is_some();
    let default = match (composes, lists) {
        (true, false) => media_type::OCI_MANIFEST,
        (false, true) => media_type::OCI_INDEX,
        _ => return neither,
    };
    match shape.media_type {
        None => default.to_owned(),
        Some(said) if media_type::is_manifest(&said) && media_type::is_index(&said) == lists => said,
        Some(_) => neither,
    }
}

/// What the document `content` of this media type refers to; nothing where it is a mere blob.
pub(crate) fn links(media_type: &str, content: &[u8]) -> Result<Links, mlxctl_artifact::Error> {
    if media_type::is_index(media_type) {
        let subject = Referrer::read(&Descriptor::of(media_type, b""), content)?.map(|referrer| referrer.subject);
        return Ok(Links { children: Index::parse(content)?.manifests, subject, ..Links::default() });
    }
    if !media_type::is_manifest(media_type) {
        return Ok(Links::default());
    }
    let manifest = Manifest::parse(content)?;
    let subject = manifest.subject.as_ref().map(|subject| subject.digest);
    Ok(Links { children: manifest.blobs().cloned().collect(), references: manifest.references()?, subject })
}

/// What a blob of which only the digest is known is, and its bytes where it may be a manifest; `None` where it is not
/// here.
pub(crate) fn describe(blobs: &Blobs, digest: &Digest) -> Result<Option<(Descriptor, Vec<u8>)>, Error> {
    let Some(blob) = blobs.find(digest)? else { return Ok(None) };
    let mere = Descriptor::new(media_type::OCTET_STREAM, *digest, blob.stamp.size);
    if mere.size > MAX_MANIFEST_BYTES || !starts_like_json(&blob.file) {
        return Ok(Some((mere, Vec::new())));
    }
    let content = blobs.read(&mere, MAX_MANIFEST_BYTES)?;
    let found = media_type_of(&content);
    Ok(Some((Descriptor::new(found, *digest, mere.size), content.into())))
}

fn starts_like_json(file: &std::fs::File) -> bool {
    use std::os::unix::fs::FileExt as _;
    let mut start = [0; 16];
    let length = file.read_at(&mut start, 0).unwrap_or(0);
    start[..length].trim_ascii_start().first() == Some(&b'{')
}
