//! What travels beside a model: adapters, packed as layers under `adapters/<name>/` or pinned in another artifact, and
//! the draft model, pinned.

use std::path::PathBuf;

use mlxctl_artifact::{
    Descriptor, Digest, LayerKind, LayerPath, ModelLayer, PinnedAdapter, PinnedDraft, ResolvedSpec, media_type,
    references_annotation,
};
use mlxctl_modelspec::{Adapter, From, ModelSpec};
use mlxctl_store::Store;

use crate::base::Base;
use crate::materials::Materials;
use crate::source::{is_pickle, walk};
use crate::{BuildOptions, Error};

/// Where packed adapters lie within the model.
pub(crate) const ADAPTERS_FOLDER: &str = "adapters/";

/// Whether a file belongs to an adapter, of mlx-lm's or PEFT's making.
pub(crate) fn is_adapter_file(path: &str) -> bool {
    matches!(
        path,
        "adapter_config.json" | "adapters.safetensors" | "adapter_model.safetensors" | "adapters.json" | "README.md"
    )
}

/// What travels beside the model's own files.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    /// Files of packed adapters.
    pub layers: Vec<ModelLayer>,
    adapters: Vec<PinnedAdapter>,
    draft: Option<PinnedDraft>,
    /// Manifests of adapters and of the draft.
    references: Vec<Descriptor>,
}

impl Companions {
    /// Takes packed adapters into the store and pins what lies in other artifacts. What a base has is taken over,
    /// unless the recipe has something of the same name.
    pub(crate) fn gather(
        spec: &ModelSpec,
        base: Option<&Base>,
        materials: &Materials,
        store: &Store,
        options: &BuildOptions<'_>,
    ) -> Result<Self, Error> {
        let mut all = Self::default();
        for adapter in spec.adapters.iter().filter(|adapter| !adapter.merge) {
            match &adapter.from {
                From::Path(path) => {
                    let found = walk("adapters", &options.folder.join(path))?;
                    all.pack(adapter, found, options.folder.join(path), store, options)?;
                }
                From::Hf(reference) => {
                    let brought = materials.repository("adapters", reference)?;
                    all.pack(adapter, brought.found("adapters")?, brought.folder.clone(), store, options)?;
                }
                From::Oci(reference) => {
                    let manifest = materials.artifact("adapters", reference)?;
                    let pinned = reference.clone().at(manifest.digest);
                    let (name, digest) = (adapter.name.clone(), manifest.digest);
                    all.adapters.push(PinnedAdapter { name, digest, reference: Some(pinned) });
                    all.references.push(manifest.clone());
                }
            }
        }
        if let Some(draft) = &spec.draft {
            let manifest = materials.artifact("draft", &draft.oci)?;
            all.draft = Some(PinnedDraft { digest: manifest.digest, reference: draft.oci.clone().at(manifest.digest) });
            all.references.push(manifest.clone());
        }
        if let Some(base) = base {
            all.inherit(base, store)?;
        }
        Ok(all)
    }

    fn pack(
        &mut self,
        adapter: &Adapter,
        found: Vec<(String, PathBuf, u64)>,
        folder: PathBuf,
        store: &Store,
        options: &BuildOptions<'_>,
    ) -> Result<(), Error> {
        let mut weights: Option<Digest> = None;
        let mut pickled = None;
        for (path, place, size) in found {
            if is_pickle(&path) {
                pickled = Some(path);
                continue;
            }
            if !is_adapter_file(&path) {
                continue;
            }
            let within: LayerPath = format!("{ADAPTERS_FOLDER}{}/{path}", adapter.name).parse()?;
            options.progress.file(within.as_str(), size);
            let blob = store.ingest_file(media_type::OCTET_STREAM, &place)?;
            options.progress.advanced(size);
            let kind = match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
                "safetensors" => {
                    // A damaged file is found here rather than by whoever asks for the adapter.
                    mlxctl_weights::read_safetensors(&store.map(&blob)?, within.as_str())?;
                    weights.get_or_insert(blob.digest);
                    LayerKind::Weight
                }
                "md" => LayerKind::Doc,
                _ => LayerKind::WeightConfig,
            };
            self.layers.push(ModelLayer::of_file(kind, within, &blob));
        }
        let Some(digest) = weights else {
            let (reason, hint) = match pickled {
                Some(path) => (
                    format!("the adapter is pickled ({path}), and reading a pickle can run any code it holds"),
                    Some("convert the adapter to safetensors first"),
                ),
                None => {
                    ("the folder holds neither adapters.safetensors nor adapter_model.safetensors".to_owned(), None)
                }
            };
            return Err(Error::Source { path: folder, reason, hint });
        };
        self.adapters.push(PinnedAdapter { name: adapter.name.clone(), digest, reference: None });
        Ok(())
    }

    fn inherit(&mut self, base: &Base, store: &Store) -> Result<(), Error> {
        for adapter in &base.spec.adapters {
            if self.adapters.iter().any(|own| own.name == adapter.name) {
                continue;
            }
            self.layers.extend(base.adapter_layers(&adapter.name).cloned());
            if adapter.reference.is_some() {
                self.refer_to(adapter.digest, store)?;
            }
            self.adapters.push(adapter.clone());
        }
        if let (None, Some(draft)) = (&self.draft, &base.spec.draft) {
            self.refer_to(draft.digest, store)?;
            self.draft = Some(draft.clone());
        }
        Ok(())
    }

    /// A manifest that the base refers to; where a pull left it behind, there is nothing to follow.
    fn refer_to(&mut self, digest: Digest, store: &Store) -> Result<(), Error> {
        if let Some(size) = store.size(&digest)? {
            self.references.push(Descriptor::new(media_type::OCI_MANIFEST, digest, size));
        }
        Ok(())
    }

    /// The recipe with its pins.
    pub(crate) fn resolve(&self, spec: &ModelSpec, base: Option<&Base>) -> ResolvedSpec {
        let mut resolved = spec.resolved(self.adapters.clone(), self.draft.clone());
        if let Some(base) = base {
            base.complete(&mut resolved);
        }
        resolved
    }

    /// The value of the annotation that names other manifests; `None` where there are none.
    pub(crate) fn annotation(&self) -> Option<String> {
        (!self.references.is_empty()).then(|| references_annotation(self.references.clone()))
    }
}
