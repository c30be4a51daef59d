//! The model's `config.json`: what the build reads from it, and how it is written anew when the weights change.

use mlxctl_artifact::canonical_json;
use mlxctl_store::Store;
use mlxctl_weights::{Quantization, QuantizationConfig};
use serde_json::{Map, Value};

use crate::Error;
use crate::source::Source;

/// A quantisation as people say it, for example `affine 4-bit`.
pub(crate) fn in_words(quantization: Quantization) -> String {
    format!("{} {}-bit, groups of {}", quantization.mode().name(), quantization.bits(), quantization.group_size())
}

/// The longest `config.json` that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The source's `config.json`.
pub(crate) struct SourceConfig {
    fields: Map<String, Value>,
    /// `eos_token_id` of `generation_config.json`, which beats that of `config.json`.
    end_tokens: Option<Value>,
}

impl SourceConfig {
    /// Reads it; a folder without one is no model.
    pub(crate) fn read(source: &Source, store: &Store) -> Result<Self, Error> {
        let Some(fields) = read_object(source, store, "config.json")? else {
            let reason = "a model needs this file, and the source does not have it".to_owned();
            return Err(Error::Source { path: source.folder.join("config.json"), reason, hint: None });
        };
        // As mlx-lm, a generation_config.json that cannot be read changes nothing.
        let generation = read_object(source, store, "generation_config.json").ok().flatten();
        let end_tokens = generation.and_then(|mut fields| fields.remove("eos_token_id"));
        let says_nothing = |value: &Value| match value {
            Value::Null => true,
            Value::Number(id) => id.as_u64() == Some(0),
            Value::Array(ids) => ids.is_empty(),
            _ => false,
        };
        Ok(Self { fields, end_tokens: end_tokens.filter(|tokens| !says_nothing(tokens)) })
    }

    /// Whether the source's weights are quantised already.
    pub(crate) fn is_quantized(&self) -> bool {
        ["quantization", "quantization_config"].iter().any(|key| self.fields.get(*key).is_some_and(|v| !v.is_null()))
    }

    /// Weights a scale of a source that is quantised already.
    pub(crate) fn group_size(&self, module: &str) -> u64 {
        let block = ["quantization", "quantization_config"].iter().find_map(|key| self.fields.get(*key));
        let size = |value: Option<&Value>| value.and_then(|value| value.get("group_size")).and_then(Value::as_u64);
        size(block.and_then(|block| block.get(module))).or_else(|| size(block)).unwrap_or(64)
    }

    /// The source's quantisation in words, for example `affine 4-bit`.
    pub(crate) fn quantization(&self) -> Option<String> {
        let config = QuantizationConfig::from_config(&Value::Object(self.fields.clone())).ok()?;
        config.default_format().map(in_words)
    }

    /// Whether the head shares the embedding's weight.
    pub(crate) fn ties_embeddings(&self) -> bool {
        self.fields.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false)
    }

    /// `model_type`, for example `qwen3`.
    pub(crate) fn family(&self) -> Option<&str> {
        self.fields.get("model_type").and_then(Value::as_str)
    }

    /// The bytes of the configuration that fits converted weights: what mlx-lm writes when it converts.
    pub(crate) fn converted(&self, quantization: Option<&QuantizationConfig>, dtype: Option<&str>) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.remove("_name_or_path");
        if let Some(tokens) = &self.end_tokens {
            fields.insert("eos_token_id".to_owned(), tokens.clone());
        }
        if let Some(block) = quantization.and_then(QuantizationConfig::to_json) {
            fields.insert("quantization".to_owned(), block.clone());
            fields.insert("quantization_config".to_owned(), block);
        }
        if let Some(dtype) = dtype {
            fields.remove("dtype");
            fields.insert("torch_dtype".to_owned(), dtype.into());
        }
        canonical_json(&fields).expect("what was read from JSON can be written as JSON")
    }
}

/// The fields of one of the source's JSON files; `None` where there is none.
fn read_object(source: &Source, store: &Store, name: &str) -> Result<Option<Map<String, Value>>, Error> {
    let wrong = |reason: String| Error::Source { path: source.folder.join(name), reason, hint: None };
    let Some(file) = source.file(name) else { return Ok(None) };
    if file.size > MAX_BYTES {
        return Err(wrong(format!("it has {} bytes, more than the {MAX_BYTES} allowed", file.size)));
    }
    let bytes = file.map(store)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(wrong("it is not a JSON object".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}
