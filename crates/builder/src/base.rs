//! Another artifact as base: its layers are taken over by digest, and what its recipe says holds where the new recipe is
//! silent.

use std::collections::BTreeMap;

use mlxctl_artifact::{
    Descriptor, LayerKind, LayerPath, MAX_MANIFEST_BYTES, ModelConfig, ModelDescriptor, ModelLayer, Packaging,
    Parameters, RESOLVED_SPEC_PATH, ResolvedSpec, media_type,
};
use mlxctl_modelspec::ModelSpec;
use mlxctl_store::Store;

use crate::Error;
use crate::companions::ADAPTERS_FOLDER;
use crate::source::{Place, SourceFile, is_pickle};

/// The largest resolved recipe that is read, in bytes.
const MAX_SPEC_BYTES: u64 = 1 << 20;

/// An artifact in the store that another one is built upon.
#[derive(Debug)]
pub(crate) struct Base {
    layers: Vec<ModelLayer>,
    /// Who made it and under which licence.
    pub descriptor: ModelDescriptor,
    /// What its recipe says; empty where it came without one.
    pub spec: ResolvedSpec,
}

impl Base {
    /// Reads an artifact whose blobs are in the store.
    pub(crate) fn read(store: &Store, manifest: &Descriptor) -> Result<Self, Error> {
        let unfit = |reason: String| Error::Unfit { key: "from.oci".to_owned(), reason };
        if media_type::is_index(&manifest.media_type) {
            return Err(unfit(format!("{} is an index; name one of its manifests by digest", manifest.digest)));
        }
        let (_, manifest) = store.manifest(manifest)?;
        let layers = manifest.model_layers()?;
        if layers.is_empty() {
            return Err(unfit("the artifact holds no layer of a model".to_owned()));
        }
        let needed = |layer: &&ModelLayer| matches!(layer.role.kind, LayerKind::Weight | LayerKind::WeightConfig);
        if let Some(packed) = layers.iter().filter(needed).find(|layer| layer.role.packaging != Packaging::Raw) {
            let kind = &packed.descriptor.media_type;
            return Err(unfit(format!(
                "layer {} is an archive ({kind}); `mlxctl convert` takes it apart",
                packed.path
            )));
        }
        let descriptor = match manifest.config.media_type.as_str() {
            media_type::MODEL_CONFIG => {
                ModelConfig::parse(&store.read(&manifest.config, MAX_MANIFEST_BYTES)?)?.descriptor
            }
            _ => ModelDescriptor::default(),
        };
        let spec = layers.iter().find(|layer| layer.path.as_str() == RESOLVED_SPEC_PATH);
        let spec = spec.map(|layer| store.read(&layer.descriptor, MAX_SPEC_BYTES)).transpose()?;
        let spec = spec.map(|bytes| ResolvedSpec::parse(&bytes)).transpose()?.unwrap_or_default();
        Ok(Self { layers, descriptor, spec })
    }

    /// The files that the recipe takes over.
    pub(crate) fn files(&self, spec: &ModelSpec) -> BTreeMap<LayerPath, SourceFile> {
        let is_taken = |layer: &&ModelLayer| {
            let path = layer.path.as_str();
            layer.role.packaging == Packaging::Raw
                && path != RESOLVED_SPEC_PATH
                && !path.starts_with(ADAPTERS_FOLDER)
                && !is_pickle(path)
                && spec.files.takes(path)
        };
        let file = |layer: &ModelLayer| SourceFile {
            kind: layer.role.kind,
            place: Place::Stored(layer.descriptor.clone()),
            size: layer.descriptor.size,
        };
        self.layers.iter().filter(is_taken).map(|layer| (layer.path.clone(), file(layer))).collect()
    }

    /// The layers of its packed adapters.
    pub(crate) fn adapter_layers(&self, name: &str) -> impl Iterator<Item = &ModelLayer> {
        let folder = format!("{ADAPTERS_FOLDER}{name}/");
        self.layers.iter().filter(move |layer| layer.path.as_str().starts_with(&folder))
    }

    /// What the new recipe leaves unsaid. Its tests are not taken over: another prompt or template changes answers.
    pub(crate) fn complete(&self, resolved: &mut ResolvedSpec) {
        let base = self.spec.clone();
        resolved.system = resolved.system.take().or(base.system);
        resolved.quantize = resolved.quantize.take().or(base.quantize);
        resolved.dtype = resolved.dtype.take().or(base.dtype);
        resolved.draft = resolved.draft.take().or(base.draft);
        if resolved.capabilities.is_empty() {
            resolved.capabilities = base.capabilities;
        }
        let (own, base) = (std::mem::take(&mut resolved.parameters), base.parameters);
        resolved.parameters = Parameters {
            temperature: own.temperature.or(base.temperature),
            top_p: own.top_p.or(base.top_p),
            top_k: own.top_k.or(base.top_k),
            min_p: own.min_p.or(base.min_p),
            max_tokens: own.max_tokens.or(base.max_tokens),
            stop: if own.stop.is_empty() { base.stop } else { own.stop },
            context_length: own.context_length.or(base.context_length),
            seed: own.seed.or(base.seed),
            repetition_penalty: own.repetition_penalty.or(base.repetition_penalty),
        };
    }
}
