//! What `--json` prints: each shape has a JSON Schema in `schemas/`, held true by a test.

use std::collections::BTreeMap;

use mlxctl_artifact::{Descriptor, ModelLayer, media_type};
use schemars::JsonSchema;
use serde::Serialize;

/// `create --json`: the artifact that was built.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Created {
    /// Its name in the store.
    pub(crate) name: String,
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// Bytes of all its layers.
    pub(crate) size: u64,
    /// Its layers, in the manifest's order.
    pub(crate) layers: Vec<Layer>,
}

/// A layer of an artifact.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    /// The path of its file within the model.
    pub(crate) path: String,
    /// The digest of its content.
    pub(crate) digest: String,
    /// Bytes of its content.
    pub(crate) size: u64,
    /// What it is.
    pub(crate) media_type: String,
}

impl Layer {
    pub(crate) fn of(layer: &ModelLayer) -> Self {
        Self {
            path: layer.path.to_string(),
            digest: layer.descriptor.digest.to_string(),
            size: layer.descriptor.size,
            media_type: layer.descriptor.media_type.clone(),
        }
    }
}

/// An entry of `list --json` and `import --json`, and all of `convert --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listed {
    /// The artifact's name in the store.
    pub(crate) name: String,
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// Bytes of its configuration and layers.
    pub(crate) size: u64,
}

/// `pack --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Packed {
    /// The name that was asked for.
    pub(crate) name: String,
    /// The digest of the manifest.
    pub(crate) digest: String,
    /// The folder or file that was written.
    pub(crate) path: String,
}

/// `show --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Shown {
    /// The name that was asked for.
    pub(crate) name: String,
    /// The digest of the manifest.
    pub(crate) digest: String,
    /// The ModelPack configuration.
    pub(crate) config: serde_json::Value,
    /// The layers, in the manifest's order.
    pub(crate) layers: Vec<Layer>,
}

/// An entry of `verify --json`: a blob or a name that is not as it should be.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Finding {
    /// The name through which it was reached.
    pub(crate) name: Option<String>,
    /// The digest of the blob.
    pub(crate) digest: Option<String>,
    /// Its file.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) problem: String,
}

impl Finding {
    pub(crate) fn of(finding: &mlxctl_store::Finding) -> Self {
        Self {
            name: finding.name.as_ref().map(ToString::to_string),
            digest: finding.digest.as_ref().map(ToString::to_string),
            path: finding.path.display().to_string(),
            problem: finding.to_string(),
        }
    }
}

/// `diff --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Differences {
    /// The one artifact.
    pub(crate) a: Side,
    /// The other.
    pub(crate) b: Side,
    /// Whether they have one digest.
    pub(crate) same: bool,
    /// Values of the resolved recipes that differ.
    pub(crate) recipe: Vec<Change>,
    /// Values of the configurations that differ, the layers' digests aside.
    pub(crate) config: Vec<Change>,
    /// Layers that differ.
    pub(crate) layers: Vec<LayerChange>,
    /// Tensors that differ.
    pub(crate) tensors: Vec<TensorChange>,
    /// How many tensors are equal: name, type, shape and bytes.
    pub(crate) equal_tensors: usize,
}

/// One of two artifacts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Side {
    /// The name that was asked for.
    pub(crate) name: String,
    /// The digest of its manifest.
    pub(crate) digest: String,
}

/// A value of a document; a side that does not have it has none.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Change {
    /// Keys, joined by dots.
    pub(crate) path: String,
    /// The one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) a: Option<serde_json::Value>,
    /// The other's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) b: Option<serde_json::Value>,
}

/// A layer that differs; a side that does not have it has null.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LayerChange {
    /// The path of its file within the model.
    pub(crate) path: String,
    /// The one's.
    pub(crate) a: Option<Layer>,
    /// The other's.
    pub(crate) b: Option<Layer>,
}

/// A tensor that differs; a side that does not have it has null. Where both are alike, the values differ.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TensorChange {
    /// Its name; that of an adapter with the folder in front.
    pub(crate) name: String,
    /// The one's.
    pub(crate) a: Option<TensorShape>,
    /// The other's.
    pub(crate) b: Option<TensorShape>,
}

/// What a tensor is.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct TensorShape {
    /// Its type, as safetensors names it.
    pub(crate) dtype: String,
    /// Its dimensions.
    pub(crate) shape: Vec<usize>,
}

/// `gc --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Collected {
    /// Blobs removed, or to be removed.
    pub(crate) blobs: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Whether they are still there.
    pub(crate) dry_run: bool,
}

/// `inspect --json`: an artifact at a registry.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inspected {
    /// Its name there.
    pub(crate) name: String,
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// The type of its manifest.
    pub(crate) media_type: String,
    /// What it is, where it says so.
    pub(crate) artifact_type: Option<String>,
    /// Bytes of the manifest and all its parts.
    pub(crate) size: u64,
    /// Configuration and layers, or the manifests of an index.
    pub(crate) parts: Vec<Part>,
    /// The configuration, where it is JSON.
    pub(crate) config: Option<serde_json::Value>,
}

/// What a manifest or an index lists.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    /// The path of its file within the model, where it has one.
    pub(crate) path: Option<String>,
    /// The digest of its content.
    pub(crate) digest: String,
    /// Bytes of its content.
    pub(crate) size: u64,
    /// The type of its content.
    pub(crate) media_type: String,
}

impl Part {
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        let annotations = &descriptor.annotations;
        Self {
            path: annotations.get(media_type::FILEPATH).or_else(|| annotations.get(media_type::TITLE)).cloned(),
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
        }
    }
}

/// An entry of `referrers --json`: a manifest about the artifact.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referring {
    /// The digest of the manifest.
    pub(crate) digest: String,
    /// Its bytes.
    pub(crate) size: u64,
    /// What it is.
    pub(crate) artifact_type: Option<String>,
    /// What it says of itself.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Referring {
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            artifact_type: descriptor.artifact_type.clone(),
            annotations: descriptor.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use schemars::schema_for;

    use super::*;

    #[test]
    fn the_schemas_in_the_tree_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        for (name, schema) in [
            ("create", schema_for!(Created)),
            ("list", schema_for!(Vec<Listed>)),
            ("import", schema_for!(Vec<Listed>)),
            ("convert", schema_for!(Listed)),
            ("pack", schema_for!(Packed)),
            ("show", schema_for!(Shown)),
            ("verify", schema_for!(Vec<Finding>)),
            ("gc", schema_for!(Collected)),
            ("diff", schema_for!(Differences)),
            ("inspect", schema_for!(Inspected)),
            ("tags", schema_for!(Vec<String>)),
            ("referrers", schema_for!(Vec<Referring>)),
        ] {
            let path = folder.join(format!("{name}.schema.json"));
            let made = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            if std::env::var_os("MLXCTL_UPDATE").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == made, "{} is not what the types say: run `cargo xtask schemas`", path.display());
        }
    }
}
