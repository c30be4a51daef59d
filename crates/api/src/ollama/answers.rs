//! What the native routes answer. Durations are ns; times are RFC 3339.

use serde::{Deserialize, Serialize};

/// One line of `/api/generate`; the last has `done: true` and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Generated {
    /// The model as the request named it.
    pub model: String,
    /// When the line was written.
    pub created_at: String,
    /// Text.
    pub response: String,
    /// Whether this is the last line.
    pub done: bool,
    /// `stop`, `length`, `load`, `unload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// The tokens of the conversation so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<u32>>,
    /// In the last line.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

/// One line of `/api/chat`; the last has `done: true` and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Chat {
    /// The model as the request named it.
    pub model: String,
    /// When the line was written.
    pub created_at: String,
    /// What was said.
    pub message: Spoken,
    /// Whether this is the last line.
    pub done: bool,
    /// `stop`, `length`, `load`, `unload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_reason: Option<String>,
    /// In the last line.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Spoken {
    /// `assistant`.
    pub role: String,
    /// Text.
    pub content: String,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Metrics {
    /// From the request to the last token.
    pub total_duration: u64,
    /// Of it, loading the model.
    pub load_duration: u64,
    /// Tokens of the prompt.
    pub prompt_eval_count: u64,
    /// Of the duration, until the first token.
    pub prompt_eval_duration: u64,
    /// Tokens that were generated.
    pub eval_count: u64,
    /// Of the duration, from the first token to the last.
    pub eval_duration: u64,
}

/// `GET /api/version`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Version {
    /// Of the daemon.
    pub version: String,
}

/// `GET /api/tags`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Tags {
    /// All models of the store.
    pub models: Vec<ListedModel>,
}

/// A model of the store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ListedModel {
    /// `name:tag`.
    pub name: String,
    /// The same.
    pub model: String,
    /// When the tag was written.
    pub modified_at: String,
    /// Bytes of its layers.
    pub size: u64,
    /// The manifest's hash, hex without the algorithm, as Ollama writes it.
    pub digest: String,
    /// What is known of it.
    pub details: Details,
}

/// What is known of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Details {
    /// Empty.
    pub parent_model: String,
    /// `safetensors`.
    pub format: String,
    /// For example `qwen3`.
    pub family: String,
    /// The same, as a list.
    pub families: Vec<String>,
    /// For example `2.7M`.
    pub parameter_size: String,
    /// For example `affine-8bit-g64`, `bf16`.
    pub quantization_level: String,
}

/// `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Shown {
    /// Identifiers of the licences.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub license: String,
    /// The model in the words of a Modelfile.
    pub modelfile: String,
    /// One parameter a line.
    pub parameters: String,
    /// The chat template (Jinja).
    pub template: String,
    /// The system prompt.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// What is known of it.
    pub details: Details,
    /// `general.architecture`, `<family>.context_length`, …
    pub model_info: serde_json::Map<String, serde_json::Value>,
    /// `completion`, `tools`, …
    pub capabilities: Vec<String>,
    /// When the tag was written.
    pub modified_at: String,
    /// Not Ollama's: the manifest's digest.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

/// `GET /api/ps`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Running {
    /// The models that are loaded.
    pub models: Vec<RunningModel>,
}

/// A model that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct RunningModel {
    /// Its name.
    pub name: String,
    /// The same.
    pub model: String,
    /// Bytes of its layers.
    pub size: u64,
    /// The manifest's hash, hex.
    pub digest: String,
    /// What is known of it.
    pub details: Details,
    /// When it will be unloaded.
    pub expires_at: String,
    /// Bytes on the accelerator.
    pub size_vram: u64,
    /// Tokens of prompt and answer together at the most.
    pub context_length: u64,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// For the person.
    pub error: String,
}
