//! A manifest that is about another one, as lists of referrers describe it.

use std::collections::BTreeMap;

use mlxctl_artifact::{Descriptor, Digest, Error as DocumentError, media_type};
use serde::Deserialize;

/// A manifest with a subject. Stores list them, and a client writes them into a tag where a registry does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// The manifest that it is about.
    pub subject: Digest,
    /// The manifest itself, with its type of artifact and its annotations.
    pub descriptor: Descriptor,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    subject: Option<Subject>,
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: Option<String>,
}

impl Referrer {
    /// Reads the manifest or index that `descriptor` stands for; `None` where it has no subject.
    ///
    /// # Errors
    /// Where the document is no JSON, or one of these fields has the wrong shape.
    pub fn read(descriptor: &Descriptor, content: &[u8]) -> Result<Option<Self>, DocumentError> {
        let wrong = |error: serde_json::Error| DocumentError::Document { what: "manifest", reason: error.to_string() };
        let document: Document = serde_json::from_slice(content).map_err(wrong)?;
        let Some(subject) = document.subject else { return Ok(None) };
        let mut found = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
        // Distribution specification, "Listing Referrers": a manifest without a type is of its configuration's.
        let of_config = || document.config.and_then(|config| config.media_type);
        let is_list = media_type::is_index(&descriptor.media_type);
        found.artifact_type = document.artifact_type.filter(|text| !text.is_empty());
        if found.artifact_type.is_none() && !is_list {
            found.artifact_type = of_config();
        }
        found.annotations = document.annotations.unwrap_or_default();
        Ok(Some(Self { subject: subject.digest, descriptor: found }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_referrer_is_described_by_its_manifest() {
        let subject = Descriptor::of(media_type::OCI_MANIFEST, b"subject");
        let read = |media_type: &str, document: serde_json::Value| {
            let content = document.to_string();
            Referrer::read(&Descriptor::of(media_type, content.as_bytes()), content.as_bytes())
        };
        let check = |media_type: &str, document: serde_json::Value, expected: Option<&str>| {
            let found = read(media_type, document.clone()).unwrap().unwrap();
            assert_eq!(found.subject, subject.digest);
            assert_eq!(found.descriptor.artifact_type.as_deref(), expected, "{document}");
        };
        let config = json!({"mediaType": "application/x", "size": 2, "digest": subject.digest});
        check(media_type::OCI_MANIFEST, json!({"subject": subject, "config": config}), Some("application/x"));
        check(media_type::OCI_MANIFEST, json!({"subject": subject, "config": config, "artifactType": "y"}), Some("y"));
        check(media_type::OCI_INDEX, json!({"subject": subject, "artifactType": "y"}), Some("y"));
        check(media_type::OCI_INDEX, json!({"subject": subject, "manifests": []}), None);
        let annotated = json!({"subject": subject, "annotations": {"a": "b"}});
        assert_eq!(read(media_type::OCI_INDEX, annotated).unwrap().unwrap().descriptor.annotations["a"], "b");
        assert_eq!(read(media_type::OCI_MANIFEST, json!({"config": config})).unwrap(), None);
        for bad in [json!([]), json!({"subject": {"digest": "sha256:x"}}), json!({"subject": 1})] {
            assert!(read(media_type::OCI_MANIFEST, bad.clone()).is_err(), "{bad}");
        }
    }
}
