//! Putting the parts together: layers in a fixed order, ModelPack configuration, resolved recipe, manifest.

use std::collections::BTreeMap;

use mlxctl_artifact::{
    Capabilities, Descriptor, LayerKind, LayerPath, Manifest, ModelConfig, ModelDescriptor, ModelDetails, ModelFs,
    ModelLayer, RESOLVED_SPEC_PATH, canonical_json, media_type,
};
use mlxctl_modelspec::{Capability, ModelSpec, TemplateSource, template_catalogue};
use mlxctl_store::Store;
use mlxctl_weights::{Dtype, QuantizationConfig};

use crate::companions::Companions;
use crate::config::{SourceConfig, in_words};
use crate::convert::Weights;
use crate::source::Source;
use crate::{BuildOptions, Built, Error};

/// Where a model keeps its chat template; it beats the one in `tokenizer_config.json`.
const TEMPLATE_PATH: &str = "chat_template.jinja";
/// The index of a model in several files.
const INDEX_PATH: &str = "model.safetensors.index.json";
/// The longest chat template, in bytes.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// Makes the artifact of weights that are in the store and of everything beside them.
pub(crate) fn artifact(
    spec: &ModelSpec,
    source: &Source,
    companions: &Companions,
    config: &SourceConfig,
    weights: Weights,
    store: &Store,
    options: &BuildOptions<'_>,
) -> Result<Built, Error> {
    let mut beside: BTreeMap<(u8, LayerPath), ModelLayer> = BTreeMap::new();
    let mut add = |kind: LayerKind, path: LayerPath, blob: &Descriptor| {
        let rank = u8::from(kind == LayerKind::Doc);
        beside.insert((rank, path.clone()), ModelLayer::of_file(kind, path, blob));
    };
    let is_replaced = |path: &str| match path {
        "config.json" | INDEX_PATH => weights.converted.is_some(),
        TEMPLATE_PATH => spec.template.is_some(),
        _ => path == RESOLVED_SPEC_PATH,
    };
    for (path, file) in &source.files {
        if file.kind != LayerKind::Weight && !is_replaced(path.as_str()) {
            options.progress.file(path.as_str(), file.size);
            add(file.kind, path.clone(), &file.ingest(store)?);
            options.progress.advanced(file.size);
        }
    }
    let mut write = |path: &str, bytes: &[u8]| -> Result<(), Error> {
        add(LayerKind::WeightConfig, path.parse()?, &store.ingest_bytes(media_type::OCTET_STREAM, bytes)?);
        Ok(())
    };
    if let Some(converted) = &weights.converted {
        let dtype = spec.dtype.and(weights.dtype).map(torch_name);
        write("config.json", &config.converted(converted.quantization.as_ref(), dtype))?;
        if let Some(index) = &converted.index {
            write(INDEX_PATH, &canonical_json(index).expect("an index is names and numbers"))?;
        }
    }
    if let Some(text) = template(spec, options)? {
        write(TEMPLATE_PATH, text.as_bytes())?;
    }
    let resolved = companions.resolve(spec, source.base.as_ref());
    write(RESOLVED_SPEC_PATH, &canonical_json(&resolved).expect("a recipe holds finite numbers and text"))?;

    let own = weights.layers.iter().cloned().chain(beside.into_values());
    let layers: Vec<ModelLayer> = own.chain(companions.layers.iter().cloned()).collect();
    let model_config = ModelConfig {
        descriptor: describe(spec, source, config),
        config: details(spec, config, &weights),
        modelfs: ModelFs {
            diff_ids: layers.iter().map(|layer| layer.descriptor.digest).collect(),
            ..ModelFs::default()
        },
    };
    let bytes = canonical_json(&model_config).expect("a model configuration holds text and digests");
    let config_blob = store.ingest_bytes(media_type::MODEL_CONFIG, &bytes)?;
    let mut annotations = annotations(spec);
    annotations.extend(companions.annotation().map(|value| (media_type::REFERENCES.to_owned(), value)));
    let manifest = Manifest::of_model(config_blob, &layers, annotations);
    let manifest = store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes())?;
    let manifest = Descriptor { artifact_type: Some(media_type::MODEL_MANIFEST.to_owned()), ..manifest };
    Ok(Built { manifest, layers })
}

/// The text of the template that the recipe gives.
fn template(spec: &ModelSpec, options: &BuildOptions<'_>) -> Result<Option<String>, Error> {
    match &spec.template {
        None => Ok(None),
        Some(TemplateSource::Inline(text)) => Ok(Some(text.clone())),
        Some(TemplateSource::Catalog(name)) => {
            let found = template_catalogue().iter().find(|(known, _)| known == name);
            let unknown =
                || Error::Unfit { key: "template.catalog".to_owned(), reason: format!("no template {name:?}") };
            found.map(|(_, text)| Some((*text).to_owned())).ok_or_else(unknown)
        }
        Some(TemplateSource::File(name)) => {
            let path = options.folder.join(name);
            let at = |source| Error::Path { key: "template.file", path: path.clone(), source };
            let size = std::fs::metadata(&path).map_err(at)?.len();
            if size > MAX_TEMPLATE_BYTES {
                let reason = format!("it has {size} bytes, more than the {MAX_TEMPLATE_BYTES} allowed");
                return Err(Error::Source { path, reason, hint: None });
            }
            Ok(Some(std::fs::read_to_string(&path).map_err(at)?))
        }
    }
}

fn describe(spec: &ModelSpec, source: &Source, config: &SourceConfig) -> ModelDescriptor {
    // Who made the base, and its licence, hold for what is built upon it.
    let base = source.base.as_ref().map(|base| base.descriptor.clone()).unwrap_or_default();
    let or = |own: &[String], base: Vec<String>| if own.is_empty() { base } else { own.to_vec() };
    ModelDescriptor {
        authors: or(&spec.authors, base.authors),
        vendor: spec.vendor.clone().or(base.vendor),
        family: spec.family.clone().or_else(|| config.family().map(str::to_owned)),
        name: Some(spec.name.clone()),
        version: spec.version.clone(),
        description: spec.description.clone(),
        doc_url: spec.url.clone(),
        licenses: or(&spec.licenses, base.licenses),
        ..ModelDescriptor::default()
    }
}

fn details(spec: &ModelSpec, config: &SourceConfig, weights: &Weights) -> ModelDetails {
    let quantized = weights.converted.as_ref().and_then(|converted| converted.quantization.as_ref());
    let quantized = quantized.and_then(QuantizationConfig::default_format).map(in_words);
    let has = |capability| spec.capabilities.contains(&capability);
    let text = |yes: bool| yes.then(|| "text".to_owned());
    let generates = has(Capability::Chat) || has(Capability::Completion);
    let capabilities = (!spec.capabilities.is_empty()).then(|| Capabilities {
        input_types: text(true).into_iter().chain(has(Capability::Vision).then(|| "image".to_owned())).collect(),
        output_types: text(generates)
            .into_iter()
            .chain(has(Capability::Embed).then(|| "embedding".to_owned()))
            .collect(),
        reasoning: has(Capability::Reasoning).then_some(true),
        tool_usage: has(Capability::Tools).then_some(true),
    });
    ModelDetails {
        architecture: Some("transformer".to_owned()),
        format: Some("safetensors".to_owned()),
        param_size: Some(rounded(weights.parameters)),
        precision: weights.dtype.map(|dtype| dtype.name().to_ascii_lowercase()),
        quantization: quantized.or_else(|| config.quantization()),
        capabilities,
    }
}

/// The annotations that general tools show.
fn annotations(spec: &ModelSpec) -> BTreeMap<String, String> {
    let mut annotations = spec.labels.clone();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            annotations.insert(format!("org.opencontainers.image.{key}"), value);
        }
    };
    let joined = |list: &[String], separator: &str| (!list.is_empty()).then(|| list.join(separator));
    add("title", Some(spec.name.clone()));
    add("version", spec.version.clone());
    add("description", spec.description.clone());
    add("url", spec.url.clone());
    add("vendor", spec.vendor.clone());
    add("authors", joined(&spec.authors, ", "));
    add("licenses", joined(&spec.licenses, " AND "));
    annotations
}

/// How `config.json` names a type.
fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// A count as model cards give it: `2.7M`, `8B`, three digits at the most.
fn rounded(count: u64) -> String {
    let (divisor, unit) = match count {
        0..1_000 => return count.to_string(),
        1_000..1_000_000 => (1e3, "K"),
        1_000_000..1_000_000_000 => (1e6, "M"),
        1_000_000_000..1_000_000_000_000 => (1e9, "B"),
        _ => (1e12, "T"),
    };
    let value = count as f64 / divisor;
    let text = if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    format!("{}{unit}", text.trim_end_matches(".0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_on_model_cards() {
        for (count, text) in [
            (999, "999"),
            (2_657_088, "2.7M"),
            (1_000_000, "1M"),
            (596_049_920, "596M"),
            (8_030_261_248, "8B"),
            (70_553_706_496, "71B"),
        ] {
            assert_eq!(rounded(count), text);
        }
    }
}
