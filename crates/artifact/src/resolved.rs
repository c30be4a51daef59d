//! The resolved recipe: what ModelPack's configuration has no field for. It travels in the artifact as the layer
//! `modelspec.json`, canonical JSON, and is all that the runtime knows of a recipe.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;

/// The path of the layer that holds the resolved recipe.
pub const RESOLVED_SPEC_PATH: &str = "modelspec.json";

/// The largest resolved recipe that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A recipe after resolution: no path, clock or owner of the machine that built it. Unknown fields are passed over, so
/// that an older runtime serves what a newer builder made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResolvedSpec {
    /// `mlxctl.dev/v1alpha1`.
    pub api_version: String,
    /// `ModelSpec`.
    pub kind: String,
    /// The recipe's name.
    pub name: String,
    /// The recipe's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The system prompt of conversations that bring none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// How answers are sampled where a request does not say.
    #[serde(skip_serializing_if = "Parameters::is_default")]
    pub parameters: Parameters,
    /// How `create` quantised the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<serde_json::Value>,
    /// The type of the weights that are not quantised: `f32`, `f16`, `bf16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// `chat`, `completion`, `embed`, `rerank`, `vision`, `tools`, `reasoning`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Adapters, pinned by digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<PinnedAdapter>,
    /// The draft model of speculative decoding, pinned by digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<PinnedDraft>,
    /// Prompts and what their greedy answers must be; `verify --smoke` replays them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<SmokeTest>,
}

impl ResolvedSpec {
    /// Reads the layer `modelspec.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Document { what: RESOLVED_SPEC_PATH, reason };
        if bytes.len() > MAX_BYTES {
            return Err(wrong(format!("it has {} bytes, more than the {MAX_BYTES} allowed", bytes.len())));
        }
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
    }
}

/// How answers are sampled; what is absent is the runtime's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The least set of tokens whose probabilities reach this sum; in (0, 1].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The likeliest tokens; 0 is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Tokens at least this fraction as likely as the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Tokens of an answer at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// An answer ends before the first of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Tokens of prompt and answer together at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u32>,
    /// Seed of the generator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Divides the logits of tokens that came before; 1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
}

impl Parameters {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An adapter, named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedAdapter {
    /// The name by which requests ask for it.
    pub name: String,
    /// Its manifest where it has a reference, else the blob of its weights within this artifact.
    pub digest: Digest,
    /// Where another artifact holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// A draft model, named by its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedDraft {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Where the recipe found it.
    pub reference: Reference,
}

/// A prompt and what its greedy answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeTest {
    /// What the user says.
    pub prompt: String,
    /// What the answer must be.
    pub expect: Expectation,
}

/// What an answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// It holds this text.
    Contains(String),
    /// It is this text, white space around it aside.
    Equals(String),
    /// It is these tokens.
    Tokens(Vec<u32>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_recipe_reads_back_and_later_fields_are_passed_over() {
        let text = r#"{"apiVersion":"mlxctl.dev/v1alpha1","kind":"ModelSpec","name":"m","later":1,
            "parameters":{"top_k":3,"later":2},"tests":[{"prompt":"p","expect":{"contains":"x"}}]}"#;
        let spec = ResolvedSpec::parse(text.as_bytes()).unwrap();
        assert_eq!((spec.name.as_str(), spec.parameters.top_k), ("m", Some(3)));
        assert_eq!(spec.tests[0].expect, Expectation::Contains("x".to_owned()));
        let written = crate::canonical_json(&spec).unwrap();
        assert_eq!(ResolvedSpec::parse(&written).unwrap(), spec);
    }
}
