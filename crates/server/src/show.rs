//! What can be told of a model without loading it, and with what its engine knows once it is loaded.

use mlxctl_api::ollama::{Details, Shown};
use mlxctl_artifact::Parameters;
use serde_json::{Map, Value};

use crate::Error;
use crate::files::ModelFiles;
use crate::model::LoadedModel;

/// The largest chat template that is shown, in bytes.
const MAX_TEMPLATE: usize = 1 << 20;

/// The short description that lists show: the artifact's own words, then its `config.json`, then the engine's.
pub(crate) fn details(files: &ModelFiles, loaded: Option<&mlxctl_models::Details>) -> Details {
    let config = config(files);
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
    let said = &files.config;
    let family = text("model_type").or_else(|| said.descriptor.family.clone()).unwrap_or_default();
    let quantization = said.config.quantization.clone().or_else(|| said.config.precision.clone());
    let quantization = quantization.or_else(|| loaded.map(|facts| facts.weight_type.clone()));
    let size = said.config.param_size.clone().or_else(|| loaded.map(|facts| parameters_in_words(facts.parameters)));
    Details {
        parent_model: String::new(),
        format: said.config.format.clone().unwrap_or_else(|| "safetensors".to_owned()),
        families: vec![family.clone()],
        family,
        parameter_size: size.unwrap_or_default(),
        quantization_level: quantization.or_else(|| text("torch_dtype")).or_else(|| text("dtype")).unwrap_or_default(),
    }
}

/// Everything that `/api/show` tells.
pub(crate) fn show(files: &ModelFiles, loaded: Option<&LoadedModel>) -> Result<Shown, Error> {
    let spec = files.spec()?;
    let facts = loaded.map(|model| &model.engine.facts().details);
    let details = details(files, facts);
    let template = template(files);
    let system = spec.system.clone().unwrap_or_default();
    let capabilities = if spec.capabilities.is_empty() {
        let mut capabilities = vec!["completion".to_owned()];
        if template.contains("tools") {
            capabilities.push("tools".to_owned());
        }
        capabilities
    } else {
        // What a recipe calls chat is part of what Ollama calls completion.
        let mut capabilities = vec!["completion".to_owned()];
        capabilities
            .extend(spec.capabilities.iter().filter(|name| !["chat", "completion"].contains(&name.as_str())).cloned());
        capabilities
    };
    let mut modelfile = format!("# {}\nFROM {}@{}\n", spec.name, files.name, files.digest);
    if !template.is_empty() {
        modelfile.extend(["TEMPLATE \"\"\"", &template, "\"\"\"\n"]);
    }
    if !system.is_empty() {
        modelfile.extend(["SYSTEM \"\"\"", &system, "\"\"\"\n"]);
    }
    let parameters = parameters(&spec.parameters);
    for line in parameters.lines() {
        modelfile.extend(["PARAMETER ", line, "\n"]);
    }
    Ok(Shown {
        license: files.config.descriptor.licenses.join(", "),
        modelfile,
        parameters,
        template,
        system,
        model_info: model_info(files, loaded, &details),
        details,
        capabilities,
        modified_at: String::new(),
        digest: files.digest.to_string(),
    })
}

fn model_info(files: &ModelFiles, loaded: Option<&LoadedModel>, details: &Details) -> Map<String, Value> {
    let config = config(files);
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), details.family.clone().into());
    if let Some(name) = &files.config.descriptor.name {
        info.insert("general.basename".to_owned(), name.clone().into());
    }
    if let Some(model) = loaded {
        let facts = &model.engine.facts().details;
        info.insert("general.parameter_count".to_owned(), facts.parameters.into());
        info.insert("mlxctl.fingerprint".to_owned(), model.fingerprint.clone().into());
        info.insert("mlxctl.context_length".to_owned(), model.context().into());
    }
    for (key, name) in [
        ("max_position_embeddings", "context_length"),
        ("hidden_size", "embedding_length"),
        ("num_hidden_layers", "block_count"),
        ("intermediate_size", "feed_forward_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("head_dim", "attention.key_length"),
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        ("rope_theta", "rope.freq_base"),
        ("vocab_size", "vocab_size"),
    ] {
        if let Some(value) = config.get(key).filter(|value| value.is_number()) {
            info.insert(format!("{}.{name}", details.family), value.clone());
        }
    }
    info
}

fn config(files: &ModelFiles) -> Map<String, Value> {
    let parsed = files.document("config.json").map(|bytes| serde_json::from_slice(bytes));
    // A broken one is complained of when the model is loaded.
    parsed.and_then(Result::ok).unwrap_or_default()
}

/// The template as its file has it.
fn template(files: &ModelFiles) -> String {
    let text = match files.document("chat_template.jinja") {
        Some(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        None => files.document("tokenizer_config.json").and_then(|bytes| {
            let config: Value = serde_json::from_slice(bytes).ok()?;
            match config.get("chat_template")? {
                Value::String(template) => Some(template.clone()),
                Value::Array(named) => {
                    let default =
                        named.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"))?;
                    default.get("template")?.as_str().map(str::to_owned)
                }
                _ => None,
            }
        }),
    };
    text.filter(|text| text.len() <= MAX_TEMPLATE).unwrap_or_default()
}

/// One parameter a line, by Ollama's names.
fn parameters(parameters: &Parameters) -> String {
    let number = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let mut lines: Vec<String> = [
        number("temperature", parameters.temperature.map(|v| v.to_string())),
        number("top_p", parameters.top_p.map(|v| v.to_string())),
        number("top_k", parameters.top_k.map(|v| v.to_string())),
        number("min_p", parameters.min_p.map(|v| v.to_string())),
        number("num_predict", parameters.max_tokens.map(|v| v.to_string())),
        number("num_ctx", parameters.context_length.map(|v| v.to_string())),
        number("seed", parameters.seed.map(|v| v.to_string())),
        number("repeat_penalty", parameters.repetition_penalty.map(|v| v.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect();
    lines.extend(parameters.stop.iter().map(|stop| format!("stop {}", Value::from(stop.as_str()))));
    lines.join("\n")
}

/// `2.7M`, `8B`: what people call a number of parameters.
fn parameters_in_words(count: u64) -> String {
    let scaled = |unit: f64| {
        let value = count as f64 / unit;
        if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
    };
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => scaled(1e3) + "K",
        1_000_000..1_000_000_000 => scaled(1e6) + "M",
        _ => scaled(1e9) + "B",
    }
}
