//! Manifests and indexes: read through `oci-spec`, written as canonical JSON.

use std::collections::BTreeMap;

use oci_spec::image as oci;
use serde::Serialize;

use crate::canonical::canonical_json;
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::layer::ModelLayer;
use crate::media_type;

/// The largest manifest that a registry has to accept (distribution specification), and that we read.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// A manifest: a configuration and layers. What is pushed on is always the bytes that were read, never this view
/// written out again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    /// The manifest's own media type.
    pub media_type: String,
    /// What the artifact is, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The contents.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about: a signature's or an SBOM's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// The ModelPack manifest of a model.
    pub fn of_model(config: Descriptor, layers: &[ModelLayer], annotations: BTreeMap<String, String>) -> Self {
        Self {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: Some(media_type::MODEL_MANIFEST.to_owned()),
            config,
            layers: layers.iter().map(|layer| layer.descriptor.clone()).collect(),
            subject: None,
            annotations,
        }
    }

    /// Reads a manifest of the OCI or the Docker v2 shape.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wire: oci::ImageManifest = read("manifest", bytes)?;
        if wire.schema_version() != 2 {
            let reason = format!("schemaVersion is {}, expected 2", wire.schema_version());
            return Err(Error::Document { what: "manifest", reason });
        }
        Ok(Self {
            schema_version: 2,
            media_type: wire.media_type().as_ref().map_or(media_type::OCI_MANIFEST.to_owned(), ToString::to_string),
            artifact_type: wire.artifact_type().as_ref().map(ToString::to_string),
            config: Descriptor::from_oci(wire.config())?,
            layers: wire.layers().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?,
            subject: wire.subject().as_ref().map(Descriptor::from_oci).transpose()?,
            annotations: wire.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }

    /// The bytes to hash and store: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical_json(self).expect("a manifest holds strings and integers alone")
    }

    /// Everything this manifest needs beside itself, the configuration first.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// The layers of a model: ModelPack's, KitOps' and Docker Model Runner's.
    ///
    /// # Errors
    /// [`Error::LayerPath`] where a path leads out of the model's folder or two layers claim one path.
    pub fn model_layers(&self) -> Result<Vec<ModelLayer>, Error> {
        let mut seen = std::collections::BTreeSet::new();
        let mut layers = Vec::new();
        for descriptor in &self.layers {
            if let Some(layer) = ModelLayer::from_descriptor(descriptor)? {
                if !seen.insert(layer.path.clone()) {
                    let found = layer.path.to_string();
                    return Err(Error::LayerPath { found, reason: "two layers claim it" });
                }
                layers.push(layer);
            }
        }
        Ok(layers)
    }
}

/// An index: a list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    /// The index's own media type.
    pub media_type: String,
    /// The manifests it lists.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// An OCI index of these manifests.
    pub fn of(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media_type::OCI_INDEX.to_owned(), manifests }
    }

    /// Reads an index of the OCI shape or a Docker manifest list.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wire: oci::ImageIndex = read("index", bytes)?;
        let media_type = wire.media_type().as_ref().map_or(media_type::OCI_INDEX.to_owned(), ToString::to_string);
        let manifests = wire.manifests().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?;
        Ok(Self { schema_version: 2, media_type, manifests })
    }

    /// The bytes to hash and store: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical_json(self).expect("an index holds strings and integers alone")
    }
}

fn read<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        let reason = format!("it has {} bytes, more than the {MAX_MANIFEST_BYTES} allowed", bytes.len());
        return Err(Error::Document { what, reason });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::Document { what, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{LayerKind, LayerPath};

    fn model() -> Manifest {
        let path: LayerPath = "model.safetensors".parse().unwrap();
        let layer = ModelLayer::of_file(LayerKind::Weight, path, &Descriptor::of("", b"weights"));
        Manifest::of_model(Descriptor::of(media_type::MODEL_CONFIG, b"{}"), &[layer], BTreeMap::new())
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written() {
        let manifest = model();
        let read = Manifest::parse(&manifest.to_bytes()).unwrap();
        assert_eq!(read, manifest);
        assert_eq!(read.to_bytes(), manifest.to_bytes());
        assert_eq!(read.model_layers().unwrap()[0].path.as_str(), "model.safetensors");
    }

    #[test]
    fn a_layer_that_leaves_its_folder_is_refused() {
        let mut manifest = model();
        manifest.layers[0].annotations.insert(media_type::FILEPATH.to_owned(), "../../x".to_owned());
        let error = manifest.model_layers().unwrap_err();
        assert_eq!(error.to_string(), "layer path \"../../x\" is refused: it leads out of the model's folder");
    }

    #[test]
    fn two_layers_with_one_path_are_refused() {
        let mut manifest = model();
        manifest.layers.push(manifest.layers[0].clone());
        assert!(matches!(manifest.model_layers(), Err(Error::LayerPath { .. })));
    }

    #[test]
    fn sizes_beyond_the_specification_are_refused() {
        let text =
            String::from_utf8(model().to_bytes()).unwrap().replace("\"size\":7", "\"size\":18446744073709551615");
        assert!(Manifest::parse(text.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
            let _ = Index::parse(&bytes);
        }
    }
}
