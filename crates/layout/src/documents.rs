//! The two documents of a layout beside its blobs: `oci-layout` and `index.json` (image specification, "Image Layout").

use std::path::Path;

use mlxctl_artifact::{Descriptor, Index, Manifest, Reference, media_type};

use crate::Error;

pub(crate) const LAYOUT_FILE: &str = "oci-layout";
pub(crate) const INDEX_FILE: &str = "index.json";
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The longest `oci-layout` that is read, in bytes.
pub(crate) const MAX_LAYOUT_BYTES: u64 = 4096;

/// Annotation: the whole name of a manifest, as containerd writes it.
const FULL_NAME: &str = "io.containerd.image.name";

/// A manifest that a layout lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The manifest, without the index's annotations.
    pub manifest: Descriptor,
    /// `org.opencontainers.image.ref.name`, as it is: mostly a tag.
    pub reference: Option<String>,
    /// The whole name, where the layout knows one.
    pub name: Option<Reference>,
}

impl Entry {
    fn of(mut listed: Descriptor) -> Self {
        let reference = listed.annotations.remove(media_type::REF_NAME);
        let full = listed.annotations.remove(FULL_NAME);
        listed.annotations.clear();
        // A bare word is a tag, not a name.
        let bare = reference.as_deref().filter(|text| text.contains([':', '/']));
        let name = [full.as_deref(), bare].into_iter().flatten().find_map(|text| text.parse().ok());
        Self { manifest: listed, reference, name }
    }

    /// The entry as an index lists it: the tag as its name, as other tools look it up, and the whole name beside it.
    pub(crate) fn listed(manifest: &Descriptor, name: &Reference) -> Descriptor {
        let mut listed = manifest.clone();
        listed.annotations.clear();
        if let (Some(_), None) = (name.digest(), name.tag()) {
            return listed;
        }
        let tag = name.tag_or_latest();
        listed.with_annotation(media_type::REF_NAME, tag).with_annotation(FULL_NAME, format!("{}:{tag}", name.name()))
    }

    /// The local name that suits: the layout's own, else one made of the artifact's title and the tag.
    pub fn suggested_name(&self, manifest: &Manifest) -> Option<Reference> {
        if let Some(name) = &self.name {
            return Some(name.clone());
        }
        let title = manifest.annotations.get(media_type::TITLE)?;
        let tag = self
            .reference
            .as_deref()
            .or(manifest.annotations.get("org.opencontainers.image.version").map(String::as_str));
        Reference::local(title, tag).ok()
    }
}

/// What an index lists.
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    Ok(Index::parse(bytes)?.manifests.into_iter().map(Entry::of).collect())
}

/// Whether a document is an `oci-layout` of a version that is known.
pub(crate) fn check_layout(bytes: &[u8], path: &Path) -> Result<(), Error> {
    let version = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let version = version.as_ref().and_then(|value| value.get("imageLayoutVersion")?.as_str());
    if version.is_some_and(|version| version.starts_with("1.")) {
        return Ok(());
    }
    let reason = format!("{LAYOUT_FILE} should hold imageLayoutVersion 1.0.0");
    Err(Error::NotALayout { path: path.to_owned(), reason })
}
