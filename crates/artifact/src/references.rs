//! Artifacts that a model refers to without holding them: its draft model, adapters of another artifact. A manifest has
//! no field for them that a registry would follow, so they stand in one annotation, as descriptors; whoever copies or
//! collects manifests follows it.

use std::collections::BTreeMap;

use crate::canonical::canonical_json;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::media_type;

/// The most artifacts that one manifest refers to.
const MAX_REFERENCES: usize = 256;

impl Manifest {
    /// The manifests that the annotation `dev.mlxctl.references` names.
    ///
    /// # Errors
    /// [`Error::Document`] where it is no list of manifests.
    pub fn references(&self) -> Result<Vec<Descriptor>, Error> {
        let Some(text) = self.annotations.get(media_type::REFERENCES) else { return Ok(Vec::new()) };
        let wrong = |reason: String| Error::Document { what: "annotation dev.mlxctl.references", reason };
        let listed: Vec<Descriptor> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if listed.len() > MAX_REFERENCES {
            return Err(wrong(format!("it lists {} artifacts, more than the {MAX_REFERENCES} allowed", listed.len())));
        }
        if let Some(other) = listed
            .iter()
            .find(|listed| !media_type::is_manifest(&listed.media_type) || listed.size > MAX_MANIFEST_BYTES)
        {
            let Descriptor { digest, size, media_type, .. } = other;
            let kind: String = media_type.chars().take(120).collect();
            return Err(wrong(format!("{digest} is no manifest ({kind}, {size} bytes)")));
        }
        Ok(listed)
    }
}

/// The value of the annotation: media type, digest and size of each, sorted by digest, as canonical JSON.
pub fn references_annotation(references: impl IntoIterator<Item = Descriptor>) -> String {
    let plain = |node: Descriptor| (node.digest, Descriptor::new(node.media_type, node.digest, node.size));
    let sorted: BTreeMap<_, _> = references.into_iter().map(plain).collect();
    let bytes =
        canonical_json(&sorted.into_values().collect::<Vec<_>>()).expect("descriptors are strings and integers");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(annotation: &str) -> Manifest {
        let annotations = BTreeMap::from([(media_type::REFERENCES.to_owned(), annotation.to_owned())]);
        Manifest::of_model(Descriptor::of(media_type::MODEL_CONFIG, b"{}"), &[], annotations)
    }

    #[test]
    fn references_read_back_sorted_and_each_once() {
        let [one, two] = [b"one", b"two"].map(|content| Descriptor::of(media_type::OCI_MANIFEST, content));
        let text = references_annotation([one.clone(), two.clone(), one.clone().with_annotation("a", "b")]);
        assert_eq!(text, references_annotation([two.clone(), one.clone()]));
        let mut expected = vec![one, two];
        expected.sort_by_key(|node| node.digest);
        assert_eq!(manifest(&text).references().unwrap(), expected);
        assert_eq!(Manifest::of_model(expected[0].clone(), &[], BTreeMap::new()).references(), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_list_of_manifests_is_refused() {
        let blob = references_annotation([Descriptor::of(media_type::OCTET_STREAM, b"x")]);
        let mut huge = Descriptor::of(media_type::OCI_MANIFEST, b"x");
        huge.size = MAX_MANIFEST_BYTES + 1;
        let many: Vec<_> = (0..=MAX_REFERENCES as u32)
            .map(|number| Descriptor::of(media_type::OCI_MANIFEST, &number.to_le_bytes()))
            .collect();
        for bad in ["", "{}", "[1]", &blob, &references_annotation([huge]), &references_annotation(many)] {
            assert!(manifest(bad).references().is_err(), "{bad:.80}");
        }
    }
}
