//! Which models can be asked for, and by what name: those of the store, and the folders named at the start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use mlxctl_artifact::{Descriptor, Digest, Reference};
use mlxctl_store::Store;

use crate::Error;
use crate::files::{ModelFiles, model_manifest};

/// The fewest hex digits by which a model can be named.
const MIN_DIGEST_DIGITS: usize = 6;
/// The most names that an error suggests.
const MAX_NEAR: usize = 3;
/// The longest name that is looked up.
const MAX_NAME: usize = 1024;

/// Models by name.
pub struct Catalogue {
    store: Option<Store>,
    folders: RwLock<Vec<Arc<Folder>>>,
    /// What completes short names, as on push and pull.
    prefix: Option<String>,
}

/// A model folder, as an image volume mounts it.
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) pinned: Option<Digest>,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A model that was found.
#[derive(Clone)]
pub(crate) struct Found {
    /// Its name as the catalogue has it.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    source: Source,
}

#[derive(Clone)]
enum Source {
    Stored(Descriptor),
    Folder(Arc<Folder>),
}

/// A model as lists show it.
pub(crate) struct Listed {
    pub(crate) found: Found,
    pub(crate) size: u64,
    pub(crate) modified: SystemTime,
}

impl Catalogue {
    /// The models of a store. `prefix` completes short names, as on push and pull.
    pub fn new(store: Option<Store>, prefix: Option<String>) -> Self {
        Self { store, folders: RwLock::default(), prefix }
    }

    /// Adds the model of a folder, with the digest it is to be checked against where one is named, and tells its name.
    /// Blocks: the folder's files are hashed.
    pub fn add_folder(&self, path: &Path, pinned: Option<Digest>) -> Result<String, Error> {
        let name = folder_name(path);
        let files = ModelFiles::folder(path, &name, pinned, self.store.as_ref())?;
        let spec = files.spec()?;
        let name = if spec.name.is_empty() { name } else { spec.name };
        let (digest, size) = (files.digest, files.size);
        let folder = Folder { name: name.clone(), path: path.to_owned(), pinned, digest, size };
        let mut folders = self.folders.write().unwrap_or_else(PoisonError::into_inner);
        folders.retain(|other| other.name != name);
        folders.push(Arc::new(folder));
        Ok(name)
    }

    fn folders(&self) -> Vec<Arc<Folder>> {
        self.folders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The store, where there is one.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The model that `name` stands for: a folder's, else the store's; `name:tag`, `name@sha256:…` with a digest that
    /// may be shortened, or the digest alone. Blocks.
    pub(crate) fn find(&self, name: &str) -> Result<Found, Error> {
        if name.len() > MAX_NAME {
            let name = format!("{}…", name.chars().take(60).collect::<String>());
            return Err(Error::UnknownModel { name, near: Vec::new() });
        }
        let (plain, digest) = match name.split_once('@') {
            Some((plain, digest)) => (plain, Some(digest)),
            None if name.starts_with("sha256:") => ("", Some(name)),
            None => (name, None),
        };
        if let Some(digest) = digest {
            return self.by_digest(name, plain, digest);
        }
        let untagged = plain.strip_suffix(":latest").unwrap_or(plain);
        if let Some(folder) = self.folders().iter().find(|folder| folder.name == untagged) {
            return Ok(Found::of_folder(folder));
        }
        let Ok(reference) = plain.parse::<Reference>() else { return Err(self.unknown(name)) };
        let under_prefix = self.prefix.as_ref().and_then(|prefix| reference.under(prefix).ok());
        for candidate in std::iter::once(reference.clone()).chain(under_prefix) {
            let Some(store) = &self.store else { break };
            match store.resolve(&candidate) {
                Ok(descriptor) => {
                    let name = candidate.with_tag(candidate.tag_or_latest())?.to_string();
                    return Ok(Found::stored(name, descriptor));
                }
                Err(mlxctl_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.unknown(name))
    }

    fn by_digest(&self, name: &str, plain: &str, digest: &str) -> Result<Found, Error> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        if hex.len() < MIN_DIGEST_DIGITS || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(self.unknown(name));
        }
        let matches = |found: &Found| {
            let named = plain.is_empty() || found.name == plain || untagged(&found.name) == untagged(plain);
            named && found.digest.hex().starts_with(hex)
        };
        let mut all: Vec<Found> = self.all()?.into_iter().filter(matches).collect();
        all.dedup_by(|one, other| one.digest == other.digest);
        match all.len() {
            1 => return Ok(all.swap_remove(0)),
            0 => {}
            _ => {
                let matches = all.into_iter().map(|found| format!("{}@{}", found.name, found.digest)).collect();
                return Err(Error::Ambiguous { name: name.to_owned(), matches });
            }
        }
        // A whole digest is found in the store whether or not a name points to it.
        if let (Some(store), Ok(digest)) = (&self.store, format!("sha256:{hex}").parse::<Digest>()) {
            let reference = if plain.is_empty() { "pinned" } else { plain };
            if let Ok(reference) = reference.parse::<Reference>() {
                match store.resolve(&reference.at(digest)) {
                    Ok(descriptor) => return Ok(Found::stored(name.to_owned(), descriptor)),
                    Err(mlxctl_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(self.unknown(name))
    }

    fn all(&self) -> Result<Vec<Found>, Error> {
        let mut all: Vec<Found> = self.folders().iter().map(Found::of_folder).collect();
        if let Some(store) = &self.store {
            all.extend(store.tags()?.into_iter().map(|(name, to)| Found::stored(name.to_string(), to)));
        }
        Ok(all)
    }

    /// Everything that can be asked for, with what lists show. Manifests that are no models are left out.
    pub(crate) fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut listed = Vec::new();
        for found in self.all()? {
            match &found.source {
                Source::Folder(folder) => {
                    let modified = std::fs::metadata(&folder.path).and_then(|meta| meta.modified());
                    let (size, modified) = (folder.size, modified.unwrap_or(SystemTime::UNIX_EPOCH));
                    listed.push(Listed { found, size, modified });
                }
                Source::Stored(descriptor) => {
                    let Some(store) = &self.store else { continue };
                    let Ok((_, manifest)) = model_manifest(store, &found.name, descriptor) else { continue };
                    let Ok(layers) = manifest.model_layers() else { continue };
                    if layers.is_empty() {
                        continue;
                    }
                    let size = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.descriptor.size));
                    let blob =
                        store.root().join("blobs").join(found.digest.algorithm().name()).join(found.digest.hex());
                    let modified = std::fs::metadata(blob).and_then(|meta| meta.modified());
                    listed.push(Listed { size, modified: modified.unwrap_or(SystemTime::UNIX_EPOCH), found });
                }
            }
        }
        Ok(listed)
    }

    /// The files of a model. Blocks.
    pub(crate) fn files(&self, found: &Found) -> Result<ModelFiles, Error> {
        match (&found.source, &self.store) {
            (Source::Stored(descriptor), Some(store)) => ModelFiles::stored(store, &found.name, descriptor),
            (Source::Folder(folder), store) => {
                ModelFiles::folder(&folder.path, &folder.name, folder.pinned, store.as_ref())
            }
            (Source::Stored(_), None) => Err(self.unknown(&found.name)),
        }
    }

    fn unknown(&self, name: &str) -> Error {
        let names = self.all().unwrap_or_default().into_iter().map(|found| found.name);
        let mut near: Vec<(f64, String)> = names
            .map(|known| (strsim::jaro_winkler(untagged(&known), untagged(name)), known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .collect();
        near.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        near.dedup();
        let near = near.into_iter().take(MAX_NEAR).map(|(_, name)| name).collect();
        let name = name.chars().take(200).collect();
        Error::UnknownModel { name, near }
    }
}

impl Found {
    fn stored(name: String, descriptor: Descriptor) -> Self {
        Self { name, digest: descriptor.digest, source: Source::Stored(descriptor) }
    }

    fn of_folder(folder: &Arc<Folder>) -> Self {
        Self { name: folder.name.clone(), digest: folder.digest, source: Source::Folder(folder.clone()) }
    }
}

/// A name without its tag and digest.
fn untagged(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((plain, tag)) if !tag.contains('/') => plain,
        _ => name,
    }
}

/// The name of a model whose folder is all that is known of it.
fn folder_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let last = absolute.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if last.is_empty() { "model".to_owned() } else { last }
}
