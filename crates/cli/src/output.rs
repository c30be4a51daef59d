//! What `--json` prints: each shape has a JSON Schema in `schemas/`, held true by a test.

use mlxctl_artifact::ModelLayer;
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

/// An entry of `list --json`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listed {
    /// The artifact's name in the store.
    pub(crate) name: String,
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// Bytes of its configuration and layers.
    pub(crate) size: u64,
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
