//! The ModelPack configuration document (`application/vnd.cncf.model.config.v1+json`, model-spec 0.0.7).
//!
//! The specification allows no further properties, so whatever has no field here travels in the `modelspec.json` layer.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;

/// The configuration of a model artifact. `createdAt` is never written: it would make digests differ from run to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Who made the model and what it is called.
    pub descriptor: ModelDescriptor,
    /// What the model is made of.
    pub config: ModelDetails,
    /// The uncompressed content of each layer, in the manifest's order.
    pub modelfs: ModelFs,
}

impl ModelConfig {
    /// Reads a configuration, also one with properties that a later version adds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::Document { what: "model configuration", reason: error.to_string() })
    }
}

/// General facts about a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct ModelDescriptor {
    #[serde(rename = "createdAt", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(rename = "docURL", skip_serializing_if = "Option::is_none")]
    pub doc_url: Option<String>,
    #[serde(rename = "sourceURL", skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    #[serde(rename = "datasetsURL", skip_serializing_if = "Vec::is_empty")]
    pub datasets_url: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
}

/// What a model is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelDetails {
    /// For example `transformer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// For example `safetensors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// For example `2.7M`, `8B`.
    #[serde(rename = "paramSize", skip_serializing_if = "Option::is_none")]
    pub param_size: Option<String>,
    /// For example `bf16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// For example `affine-8bit-g64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// What the model takes and gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Capabilities {
    /// `text`, `image`, `audio`, `video`, `embedding`, `other`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_types: Vec<String>,
    /// The same words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output_types: Vec<String>,
    /// Whether it thinks aloud before it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<bool>,
    /// Whether it calls tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_usage: Option<bool>,
}

/// The digests of the layers' uncompressed contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One a layer, in order; at least one.
    #[serde(rename = "diffIds")]
    pub diff_ids: Vec<Digest>,
}

impl Default for ModelFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}
