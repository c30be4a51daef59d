//! `mlxctl show`: what an artifact is and holds.

use mlxctl_artifact::{MAX_MANIFEST_BYTES, Manifest, ModelConfig, RESOLVED_SPEC_PATH, Reference, media_type};
use mlxctl_store::Store;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Layer, Shown};
use crate::printer::{size, table};

/// Show an artifact: its facts and layers, or one of its documents as it is.
///
/// Example: mlxctl show pebble --template
#[derive(clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "REF")]
    name: Reference,

    /// Print the manifest's bytes.
    #[arg(long, group = "document")]
    manifest: bool,

    /// Print the ModelPack configuration.
    #[arg(long, group = "document")]
    config: bool,

    /// Print the resolved recipe.
    #[arg(long, group = "document")]
    spec: bool,

    /// Print the chat template.
    #[arg(long, group = "document")]
    template: bool,

    /// Print {name, digest, config, layers} as JSON.
    #[arg(long, conflicts_with = "document")]
    json: bool,
}

/// The largest document that is printed, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let store = context.store()?;
    let descriptor = store.resolve(&args.name)?;
    let (bytes, manifest) = store.manifest(&descriptor)?;
    if args.manifest {
        return context.printer.text(&String::from_utf8_lossy(&bytes));
    }
    if args.config {
        let config = store.read(&manifest.config, MAX_MANIFEST_BYTES)?;
        return context.printer.text(&String::from_utf8_lossy(&config));
    }
    if args.spec {
        return context.printer.text(&document(&store, &manifest, RESOLVED_SPEC_PATH)?);
    }
    if args.template {
        return context.printer.text(&template(&store, &manifest)?);
    }
    let layers = manifest.model_layers()?;
    let config = (manifest.config.media_type == media_type::MODEL_CONFIG)
        .then(|| store.read(&manifest.config, MAX_MANIFEST_BYTES))
        .transpose()?
        .map(|bytes| ModelConfig::parse(&bytes))
        .transpose()?
        .unwrap_or_default();
    if args.json {
        return context.printer.json(&Shown {
            name: args.name.to_string(),
            digest: descriptor.digest.to_string(),
            config: serde_json::to_value(&config).map_err(|error| Failure::new(error.to_string()))?,
            layers: layers.iter().map(Layer::of).collect(),
        });
    }
    let mut facts = vec![vec!["digest".to_owned(), descriptor.digest.to_string()]];
    let mut fact = |key: &str, value: Option<String>| facts.extend(value.map(|value| vec![key.to_owned(), value]));
    fact("name", config.descriptor.name);
    fact("version", config.descriptor.version);
    fact("description", config.descriptor.description);
    fact("family", config.descriptor.family);
    fact("parameters", config.config.param_size);
    fact("precision", config.config.precision);
    fact("quantization", config.config.quantization);
    fact("licenses", (!config.descriptor.licenses.is_empty()).then(|| config.descriptor.licenses.join(", ")));
    context.printer.result(table(&facts))?;
    let mut rows = vec![["DIGEST", "SIZE", "PATH"].map(str::to_owned).to_vec()];
    rows.extend(
        layers
            .iter()
            .map(|layer| vec![layer.descriptor.digest.short(), size(layer.descriptor.size), layer.path.to_string()]),
    );
    context.printer.result(format!("\n{}", table(&rows)))
}

/// A layer's file as text.
fn document(store: &Store, manifest: &Manifest, path: &str) -> Result<String, Failure> {
    let layers = manifest.model_layers()?;
    let layer = layers.iter().find(|layer| layer.path.as_str() == path);
    let layer = layer.ok_or_else(|| Failure::new(format!("the artifact holds no {path}")))?;
    let bytes = store.read(&layer.descriptor, MAX_DOCUMENT_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The template's own file, else the one inside the tokenizer's configuration.
fn template(store: &Store, manifest: &Manifest) -> Result<String, Failure> {
    if let Ok(text) = document(store, manifest, "chat_template.jinja") {
        return Ok(text);
    }
    let config = document(store, manifest, "tokenizer_config.json")
        .map_err(|_| Failure::new("the artifact holds no chat template"))?;
    let config: serde_json::Value =
        serde_json::from_str(&config).map_err(|error| Failure::new(format!("tokenizer_config.json: {error}")))?;
    match &config["chat_template"] {
        serde_json::Value::String(text) => Ok(text.clone()),
        serde_json::Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default").or(named.first());
            let text = default.and_then(|entry| entry["template"].as_str());
            text.map(str::to_owned).ok_or_else(|| Failure::new("the artifact holds no chat template"))
        }
        _ => Err(Failure::new("the artifact holds no chat template")),
    }
}
