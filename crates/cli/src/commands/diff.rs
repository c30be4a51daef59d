//! `mlxctl diff`: what two artifacts have in common and what not: recipe, configuration, layers, tensor by tensor.

use std::collections::BTreeMap;

use mlxctl_artifact::{LayerKind, MAX_MANIFEST_BYTES, Manifest, ModelLayer, Packaging, RESOLVED_SPEC_PATH, Reference};
use mlxctl_store::Store;
use mlxctl_weights::{Tensor, read_safetensors};
use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Change, Differences, Layer, LayerChange, Side, TensorChange, TensorShape};
use crate::packed;
use crate::printer::{size, table};

/// Tell how two artifacts in the store differ: recipe, configuration, layers, tensors.
///
/// Example: mlxctl diff pebble:1.0.0 pebble:1.1.0
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The one.
    #[arg(value_name = "A")]
    one: Reference,

    /// The other.
    #[arg(value_name = "B")]
    other: Reference,

    /// Print {a, b, same, recipe, config, layers, tensors, equal_tensors} as JSON.
    #[arg(long)]
    json: bool,
}

/// One of the two artifacts.
struct Artifact {
    digest: mlxctl_artifact::Digest,
    manifest: Manifest,
    layers: BTreeMap<String, ModelLayer>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let store = context.store()?;
    let (one, other) = (open(context, &store, &args.one)?, open(context, &store, &args.other)?);
    let layers = pairs(&one.layers, &other.layers)
        .filter(|(_, a, b)| a.map(|layer| &layer.descriptor) != b.map(|layer| &layer.descriptor))
        .map(|(path, a, b)| LayerChange { path, a: a.map(Layer::of), b: b.map(Layer::of) })
        .collect();
    let (tensors, equal_tensors) = tensors(&store, &one, &other)?;
    let found = Differences {
        a: Side { name: args.one.to_string(), digest: one.digest.to_string() },
        b: Side { name: args.other.to_string(), digest: other.digest.to_string() },
        same: one.digest == other.digest,
        recipe: changes(&recipe(&store, &one)?, &recipe(&store, &other)?),
        config: changes(&config(&store, &one)?, &config(&store, &other)?),
        layers,
        tensors,
        equal_tensors,
    };
    if args.json { context.printer.json(&found) } else { print(context, &found) }
}

/// What of an artifact of archives is compared are its raw files.
fn open(context: &Context, store: &Store, name: &Reference) -> Result<Artifact, Failure> {
    let root = store.resolve(name)?;
    let raw = packed::raw(context, store, &root)?;
    let (_, manifest) = store.manifest(&raw)?;
    let layers = manifest.model_layers()?.into_iter().map(|layer| (layer.path.to_string(), layer)).collect();
    Ok(Artifact { digest: root.digest, manifest, layers })
}

/// Everything that either side has, in order.
fn pairs<'a, T>(
    a: &'a BTreeMap<String, T>,
    b: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (String, Option<&'a T>, Option<&'a T>)> {
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| (name.clone(), a.get(name), b.get(name)))
}

fn recipe(store: &Store, artifact: &Artifact) -> Result<Value, Failure> {
    let Some(layer) = artifact.layers.get(RESOLVED_SPEC_PATH) else { return Ok(Value::Null) };
    document(&store.read(&layer.descriptor, MAX_MANIFEST_BYTES)?, RESOLVED_SPEC_PATH)
}

/// The configuration without the layers' digests, which are told as layers.
fn config(store: &Store, artifact: &Artifact) -> Result<Value, Failure> {
    let mut config = document(&store.read(&artifact.manifest.config, MAX_MANIFEST_BYTES)?, "the configuration")?;
    if let Some(fields) = config.as_object_mut() {
        fields.remove("modelfs");
    }
    Ok(config)
}

fn document(bytes: &[u8], name: &str) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::new(format!("{name}: {error}")))
}

/// The values that differ, by their paths.
fn changes(a: &Value, b: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    let mut left = vec![(String::new(), Some(a), Some(b))];
    while let Some((path, a, b)) = left.pop() {
        match (a, b) {
            (a, b) if a == b => {}
            (Some(Value::Object(a)), Some(Value::Object(b))) => {
                let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
                keys.sort();
                keys.dedup();
                let dot = if path.is_empty() { "" } else { "." };
                left.extend(keys.into_iter().rev().map(|key| (format!("{path}{dot}{key}"), a.get(key), b.get(key))));
            }
            (a, b) => found.push(Change { path, a: a.cloned(), b: b.cloned() }),
        }
    }
    found
}

/// The tensors of either side that have no equal of the same name on the other, and how many have one.
fn tensors(store: &Store, a: &Artifact, b: &Artifact) -> Result<(Vec<TensorChange>, usize), Failure> {
    let (a, b) = (tensors_of(store, a)?, tensors_of(store, b)?);
    let mut changes = Vec::new();
    let mut equal = 0;
    for (name, a, b) in pairs(&a, &b) {
        let shape = |tensor: &Tensor| TensorShape { dtype: tensor.dtype.to_string(), shape: tensor.shape.clone() };
        match (a, b) {
            (Some(a), Some(b)) if a.dtype == b.dtype && a.shape == b.shape && a.data == b.data => equal += 1,
            (a, b) => changes.push(TensorChange { name, a: a.map(shape), b: b.map(shape) }),
        }
    }
    Ok((changes, equal))
}

fn tensors_of(store: &Store, artifact: &Artifact) -> Result<BTreeMap<String, Tensor>, Failure> {
    let mut tensors = BTreeMap::new();
    for (path, layer) in &artifact.layers {
        let is_weights = layer.role.kind == LayerKind::Weight && layer.role.packaging == Packaging::Raw;
        if is_weights && path.ends_with(".safetensors") {
            let read = read_safetensors(&store.map(&layer.descriptor)?, path);
            let read = read.map_err(|error| Failure::new(error.to_string()))?;
            // An adapter's tensors may be called as the model's are.
            let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            tensors.extend(read.tensors.into_iter().map(|(name, tensor)| (format!("{folder}{name}"), tensor)));
        }
    }
    Ok(tensors)
}

fn print(context: &Context, found: &Differences) -> Result<(), Failure> {
    if found.same {
        return context
            .printer
            .result(format!("{} and {} are the same: {}", found.a.name, found.b.name, found.a.digest));
    }
    let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let mut rows = Vec::new();
    for (what, changes) in [("recipe", &found.recipe), ("config", &found.config)] {
        for Change { path, a, b } in changes {
            rows.push(vec![what.to_owned(), path.clone(), value(a), value(b)]);
        }
    }
    let layer = |layer: &Option<Layer>| match layer {
        None => "-".to_owned(),
        Some(layer) => format!("{} {}", &layer.digest[..19.min(layer.digest.len())], size(layer.size)),
    };
    for LayerChange { path, a, b } in &found.layers {
        rows.push(vec!["layer".to_owned(), path.clone(), layer(a), layer(b)]);
    }
    let tensor = |tensor: &Option<TensorShape>| match tensor {
        None => "-".to_owned(),
        Some(TensorShape { dtype, shape }) => format!("{dtype} {shape:?}"),
    };
    for TensorChange { name, a, b } in &found.tensors {
        let other = if a == b { "other values".to_owned() } else { tensor(b) };
        rows.push(vec!["tensor".to_owned(), name.clone(), tensor(a), other]);
    }
    if !rows.is_empty() {
        rows.insert(0, ["", "", "A", "B"].map(str::to_owned).to_vec());
        context.printer.result(table(&rows))?;
    }
    context.printer.result(format!("{} tensors are equal, {} are not", found.equal_tensors, found.tensors.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_that_differ_are_named_by_their_paths() {
        let (a, b) = (json!({"a": {"b": 1, "c": [1]}, "d": 1}), json!({"a": {"b": 1, "c": [2]}, "e": null}));
        let found: Vec<_> = changes(&a, &b).into_iter().map(|change| (change.path, change.a, change.b)).collect();
        let expected = [
            ("a.c".to_owned(), Some(json!([1])), Some(json!([2]))),
            ("d".to_owned(), Some(json!(1)), None),
            ("e".to_owned(), None, Some(json!(null))),
        ];
        assert_eq!(found, expected);
        assert!(changes(&a, &a).is_empty());
    }
}
