//! The files of a model: where they come from (the store, or a folder that an image volume mounted), and which of them
//! serving needs. Documents are read when a model is looked at; weights only when it is loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mlxctl_artifact::{
    Descriptor, Digest, LayerKind, LayerRole, MAX_MANIFEST_BYTES, Manifest, ModelConfig, ModelLayer, Packaging,
    RESOLVED_SPEC_PATH, ResolvedSpec, media_type,
};
use mlxctl_store::{Store, Verify};

use crate::Error;

/// The largest document that is read into memory, in bytes: tokenizers reach 40 MB.
const MAX_DOCUMENT_BYTES: u64 = 256 << 20;
/// The most files of a folder that are looked at.
const MAX_FOLDER_FILES: usize = 4096;

/// A model's files. Paths are relative to the folder of its `config.json`.
pub struct ModelFiles {
    /// What messages call the model.
    pub name: String,
    /// The manifest's digest; for a folder without one, that of the manifest its files would have.
    pub digest: Digest,
    /// Bytes of all files.
    pub size: u64,
    /// What the artifact's configuration says; empty for a folder.
    pub config: ModelConfig,
    documents: BTreeMap<String, Bytes>,
    weights: Vec<Weight>,
}

/// A file of weights, and how to get at it.
enum Weight {
    Stored(String, Descriptor),
    File(String, PathBuf),
}

impl Weight {
    fn path(&self) -> &str {
        match self {
            Self::Stored(path, _) | Self::File(path, _) => path,
        }
    }
}

impl ModelFiles {
    /// The files of a manifest in the store; documents are checked against their digests.
    pub fn stored(store: &Store, name: &str, descriptor: &Descriptor) -> Result<Self, Error> {
        let (descriptor, manifest) = model_manifest(store, name, descriptor)?;
        let unservable = |reason: String| Error::Unservable { model: name.to_owned(), reason };
        let layers = manifest.model_layers()?;
        if layers.is_empty() {
            let found = manifest.artifact_type.unwrap_or(manifest.config.media_type);
            return Err(unservable(format!("its manifest holds no layer of a model ({found})")));
        }
        let config = match store.read(&manifest.config, MAX_MANIFEST_BYTES) {
            Ok(bytes) if manifest.config.media_type == media_type::MODEL_CONFIG => ModelConfig::parse(&bytes)?,
            Ok(_) => ModelConfig::default(),
            Err(error) => return Err(error.into()),
        };
        let root = root(layers.iter().map(|layer| layer.path.as_str()));
        let mut files = Self {
            name: name.to_owned(),
            digest: descriptor.digest,
            size: layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.descriptor.size)),
            config,
            documents: BTreeMap::new(),
            weights: Vec::new(),
        };
        for ModelLayer { descriptor, role, path } in layers {
            let Some(path) = path.as_str().strip_prefix(root.as_str()) else { continue };
            if !matches!(role.kind, LayerKind::Weight | LayerKind::WeightConfig | LayerKind::Doc) {
                continue;
            }
            if role.packaging != Packaging::Raw {
                if role.kind == LayerKind::Doc {
                    continue;
                }
                return Err(unservable(format!(
                    "layer '{path}' is packed ({}), only raw layers are read",
                    descriptor.media_type
                )));
            }
            if is_weights(path) {
                files.weights.push(Weight::Stored(path.to_owned(), descriptor));
            } else if is_document(path) {
                let bytes = store.read(&descriptor, MAX_DOCUMENT_BYTES)?;
                files.documents.insert(path.to_owned(), bytes);
            }
        }
        Ok(files)
    }

    /// The files of a folder. With a digest, the files that its manifest names are served and no others, and each is
    /// hashed; the manifest is the folder's `manifest.json`, or the store has it.
    pub fn folder(path: &Path, name: &str, digest: Option<Digest>, store: Option<&Store>) -> Result<Self, Error> {
        let manifest = match digest {
            Some(digest) => Some((digest, folder_manifest(path, &digest, store)?)),
            None => None,
        };
        let mut paths = Vec::new();
        match &manifest {
            Some((digest, manifest)) => {
                for layer in manifest.model_layers()? {
                    if layer.role.packaging == Packaging::Raw {
                        check_file(&path.join(layer.path.as_str()), &layer.descriptor, digest)?;
                        paths.push(layer.path.as_str().to_owned());
                    }
                }
            }
            None => paths = listed(path)?,
        }
        let root = root(paths.iter().map(String::as_str));
        let mut files = Self {
            name: name.to_owned(),
            digest: Digest::sha256_of(b""),
            size: 0,
            config: ModelConfig::default(),
            documents: BTreeMap::new(),
            weights: Vec::new(),
        };
        let mut layers = Vec::new();
        for full in &paths {
            let Some(relative) = full.strip_prefix(root.as_str()) else { continue };
            let at = path.join(full);
            let bytes = if is_weights(relative) {
                files.weights.push(Weight::File(relative.to_owned(), at.clone()));
                if manifest.is_some() { Bytes::new() } else { mlxctl_store::map_file(&at)? }
            } else if is_document(relative) {
                let bytes = read_bounded(&at)?;
                files.documents.insert(relative.to_owned(), bytes.clone());
                bytes
            } else {
                continue;
            };
            let size = std::fs::metadata(&at).map_err(Error::io("read", &at))?.len();
            files.size = files.size.saturating_add(size);
            if manifest.is_none() {
                let kind = if is_weights(relative) { LayerKind::Weight } else { LayerKind::WeightConfig };
                let content = Descriptor::of(LayerRole::raw(kind).media_type(), &bytes);
                layers.push(ModelLayer::of_file(kind, relative.parse()?, &content));
            }
        }
        files.digest = if let Some((digest, _)) = manifest {
            digest
        } else {
            let config = Descriptor::of(media_type::OCI_EMPTY, b"{}");
            Digest::sha256_of(&Manifest::of_model(config, &layers, BTreeMap::new()).to_bytes())
        };
        Ok(files)
    }

    /// A document by its path.
    pub fn document(&self, path: &str) -> Option<&Bytes> {
        self.documents.get(path)
    }

    /// Documents in byte order of their paths.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.documents.iter().map(|(path, bytes)| (path.as_str(), bytes))
    }

    /// A document that must be there.
    pub fn required(&self, path: &str) -> Result<&Bytes, Error> {
        self.document(path).ok_or_else(|| {
            let found: Vec<&str> = self.documents.keys().map(String::as_str).collect();
            let reason = format!("it has no {path} (it has {})", found.join(", "));
            Error::Unservable { model: self.name.clone(), reason }
        })
    }

    /// What the recipe says; empty where the model came without one.
    pub fn spec(&self) -> Result<ResolvedSpec, Error> {
        match self.document(RESOLVED_SPEC_PATH) {
            Some(bytes) => Ok(ResolvedSpec::parse(bytes)?),
            None => Ok(ResolvedSpec::default()),
        }
    }

    /// The weights, mapped: `model*.safetensors`, as mlx-lm takes them. Those of the store are hashed where no seal
    /// vouches for them, or in any case.
    pub fn weights(&self, store: Option<&Store>, verify: Verify) -> Result<Vec<(String, Bytes)>, Error> {
        let wanted: Vec<&Weight> = self.weights.iter().filter(|weight| weight.path().starts_with("model")).collect();
        if wanted.is_empty() {
            let found: Vec<&str> = self.weights.iter().map(Weight::path).collect();
            let found = if found.is_empty() { "none at all".to_owned() } else { found.join(", ") };
            let reason = format!("it has no model*.safetensors (of .safetensors it has {found})");
            return Err(Error::Unservable { model: self.name.clone(), reason });
        }
        wanted
            .into_iter()
            .map(|weight| match (weight, store) {
                (Weight::Stored(path, descriptor), Some(store)) => {
                    Ok((path.clone(), store.map_with(descriptor, verify)?))
                }
                (Weight::Stored(..), None) => {
                    Err(Error::Internal { what: "mounting", reason: "the store is closed".to_owned() })
                }
                (Weight::File(path, file), _) => Ok((path.clone(), mlxctl_store::map_file(file)?)),
            })
            .collect()
    }
}

/// The manifest of a model; of an index that lists one manifest, that one.
pub(crate) fn model_manifest(
    store: &Store,
    name: &str,
    descriptor: &Descriptor,
) -> Result<(Descriptor, Manifest), Error> {
    if !media_type::is_index(&descriptor.media_type) {
        return Ok((descriptor.clone(), store.manifest(descriptor)?.1));
    }
    let index = mlxctl_artifact::Index::parse(&store.read(descriptor, MAX_MANIFEST_BYTES)?)?;
    let [only] = index.manifests.as_slice() else {
        let reason = format!("it is an index of {} manifests, expected a manifest", index.manifests.len());
        return Err(Error::Unservable { model: name.to_owned(), reason });
    };
    Ok((only.clone(), store.manifest(only)?.1))
}

/// The folder of the `config.json` that lies highest, with a slash at its end; empty where it lies at the top.
fn root<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    let configs = paths.filter_map(|path| path.strip_suffix("config.json"));
    let folders = configs.filter(|folder| folder.is_empty() || folder.ends_with('/'));
    folders.min_by_key(|folder| folder.matches('/').count()).unwrap_or_default().to_owned()
}

fn is_weights(path: &str) -> bool {
    !path.contains('/') && has_ending(path, "safetensors")
}

fn is_document(path: &str) -> bool {
    let template = path.strip_prefix("additional_chat_templates/").is_some_and(|name| has_ending(name, "jinja"));
    let licence = path.starts_with("LICENSE") && !path.contains('/');
    template || licence || (!path.contains('/') && (has_ending(path, "json") || has_ending(path, "jinja")))
}

/// Upper case is another ending: the names are fixed by convention.
fn has_ending(path: &str, ending: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, found)| found == ending)
}

/// Files of a folder and of the folders in it that serving may need, relative, sorted.
fn listed(folder: &Path) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for (inner, prefix) in
        [(folder.to_owned(), ""), (folder.join("additional_chat_templates"), "additional_chat_templates/")]
    {
        let entries = match std::fs::read_dir(&inner) {
            Ok(entries) => entries,
            Err(error) if !prefix.is_empty() && error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read the folder", &inner)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("read the folder", &inner))?;
            // A link is followed: volumes are made of them.
            let is_file = std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file());
            if let (true, Some(name)) = (is_file, entry.file_name().to_str()) {
                found.push(format!("{prefix}{name}"));
            }
            if found.len() > MAX_FOLDER_FILES {
                let reason = format!("its folder has more than {MAX_FOLDER_FILES} files");
                return Err(Error::Unservable { model: folder.display().to_string(), reason });
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_bounded(path: &Path) -> Result<Bytes, Error> {
    let bytes = mlxctl_store::map_file(path)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        let reason = format!("{} has {} bytes, more than the {MAX_DOCUMENT_BYTES} read", path.display(), bytes.len());
        return Err(Error::Unservable { model: path.display().to_string(), reason });
    }
    // Copied: documents are small, and a file that shrinks while it is mapped would end the process.
    Ok(Bytes::copy_from_slice(&bytes))
}

fn folder_manifest(folder: &Path, digest: &Digest, store: Option<&Store>) -> Result<Manifest, Error> {
    let beside = folder.join("manifest.json");
    if let Ok(meta) = std::fs::metadata(&beside)
        && meta.len() <= MAX_MANIFEST_BYTES
    {
        let bytes = std::fs::read(&beside).map_err(Error::io("read", &beside))?;
        let mut digester = mlxctl_artifact::Digester::new(digest.algorithm());
        digester.update(&bytes);
        if digester.finish() == *digest {
            return Ok(Manifest::parse(&bytes)?);
        }
    }
    if let Some(store) = store
        && let Some(size) = store.size(digest)?
    {
        return Ok(store.manifest(&Descriptor::new(media_type::OCI_MANIFEST, *digest, size))?.1);
    }
    Err(Error::Unverifiable { path: folder.to_owned(), digest: *digest })
}

fn check_file(path: &Path, descriptor: &Descriptor, manifest: &Digest) -> Result<(), Error> {
    let wrong = |reason| Error::Folder { path: path.to_owned(), manifest: *manifest, reason };
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size != descriptor.size {
        return Err(wrong(format!("expected {} bytes, found {size}", descriptor.size)));
    }
    let bytes = mlxctl_store::map_file(path)?;
    let mut digester = mlxctl_artifact::Digester::new(descriptor.digest.algorithm());
    digester.update(&bytes);
    let found = digester.finish();
    if found == descriptor.digest {
        Ok(())
    } else {
        Err(wrong(format!("expected {}, found {found}", descriptor.digest)))
    }
}
