//! Single files as an artifact: what `mlxctl import` makes of files that are no whole model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlxctl_artifact::{
    Descriptor, LayerKind, LayerPath, Manifest, ModelConfig, ModelDescriptor, ModelDetails, ModelFs, ModelLayer,
    canonical_json, media_type,
};
use mlxctl_store::Store;

use crate::source::{is_pickle, kind_of};
use crate::{Built, Error, Progress};

/// Packs files under their own names, each as a layer. Weights are checked by their headers.
///
/// # Errors
/// [`Error::Source`] for a pickle, for two files of one name, and for a safetensors file that is damaged.
pub fn pack_files(name: &str, files: &[PathBuf], store: &Store, progress: &dyn Progress) -> Result<Built, Error> {
    let mut layers: BTreeMap<(bool, LayerPath), ModelLayer> = BTreeMap::new();
    let mut format = None;
    for place in files {
        let wrong = |reason: String, hint| Error::Source { path: place.clone(), reason, hint };
        let Some(file_name) = place.file_name().and_then(|name| name.to_str()) else {
            return Err(wrong("its name is not UTF-8".to_owned(), None));
        };
        if is_pickle(file_name) {
            let reason = "it is pickled, and reading a pickle can run any code it holds".to_owned();
            return Err(wrong(reason, Some("convert it to safetensors first")));
        }
        let at = |source| Error::Path { key: "import", path: place.clone(), source };
        let size = std::fs::metadata(place).map_err(at)?.len();
        progress.file(file_name, size);
        let blob = store.ingest_file(media_type::OCTET_STREAM, place)?;
        progress.advanced(size);
        let kind = match Path::new(file_name).extension().and_then(|ending| ending.to_str()) {
            Some("gguf") => {
                format = Some("gguf");
                LayerKind::Weight
            }
            Some("safetensors") => {
                mlxctl_weights::read_safetensors(&store.map(&blob)?, file_name)?;
                format = Some("safetensors");
                LayerKind::Weight
            }
            Some("py") => LayerKind::Code,
            _ => kind_of(file_name).unwrap_or(LayerKind::Doc),
        };
        let path: LayerPath = file_name.parse()?;
        let layer = ModelLayer::of_file(kind, path.clone(), &blob);
        if layers.insert((kind != LayerKind::Weight, path), layer).is_some() {
            return Err(wrong(format!("two files are called {file_name}"), None));
        }
    }
    let layers: Vec<ModelLayer> = layers.into_values().collect();
    let config = ModelConfig {
        descriptor: ModelDescriptor { name: Some(name.to_owned()), ..ModelDescriptor::default() },
        config: ModelDetails { format: format.map(str::to_owned), ..ModelDetails::default() },
        modelfs: ModelFs {
            diff_ids: layers.iter().map(|layer| layer.descriptor.digest).collect(),
            ..ModelFs::default()
        },
    };
    let bytes = canonical_json(&config).expect("a model configuration holds text and digests");
    let config = store.ingest_bytes(media_type::MODEL_CONFIG, &bytes)?;
    let annotations = BTreeMap::from([(media_type::TITLE.to_owned(), name.to_owned())]);
    let manifest = Manifest::of_model(config, &layers, annotations);
    let manifest = store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes())?;
    let manifest = Descriptor { artifact_type: Some(media_type::MODEL_MANIFEST.to_owned()), ..manifest };
    Ok(Built { manifest, layers })
}
