//! Finding the files of a model: which of a folder's, a hub repository's or another artifact's files travel, and as
//! what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mlxctl_artifact::{Descriptor, LayerKind, LayerPath, media_type};
use mlxctl_modelspec::{From, ModelSpec};
use mlxctl_store::Store;

use crate::Error;
use crate::base::Base;
use crate::materials::Materials;

/// A folder deeper than this is not walked: no model is, and a link to a parent would never end.
const MAX_DEPTH: usize = 8;
/// Files that are looked at in one folder tree.
const MAX_FILES: usize = 100_000;

/// The files a recipe takes, by their path within the model.
#[derive(Debug)]
pub(crate) struct Source {
    /// The model's folder.
    pub folder: PathBuf,
    /// What travels: kind and place on this machine.
    pub files: BTreeMap<LayerPath, SourceFile>,
    /// What the person should know.
    pub notices: Vec<String>,
    /// The artifact that this one is built upon.
    pub base: Option<Base>,
}

/// One file that travels.
#[derive(Debug, Clone)]
pub(crate) struct SourceFile {
    pub kind: LayerKind,
    pub place: Place,
    pub size: u64,
}

/// Where a file lies.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In a folder.
    Disk(PathBuf),
    /// In the store already, as a layer of another artifact.
    Stored(Descriptor),
}

impl SourceFile {
    fn on_disk(kind: LayerKind, path: PathBuf, size: u64) -> Self {
        Self { kind, place: Place::Disk(path), size }
    }

    /// Its bytes, borrowed from the disk.
    pub(crate) fn map(&self, store: &Store) -> Result<Bytes, Error> {
        Ok(match &self.place {
            Place::Disk(path) => mlxctl_store::map_file(path)?,
            Place::Stored(blob) => store.map(blob)?,
        })
    }

    /// The blob that it is, or becomes: a file of the store is not copied.
    pub(crate) fn ingest(&self, store: &Store) -> Result<Descriptor, Error> {
        Ok(match &self.place {
            Place::Disk(path) => store.ingest_file(media_type::OCTET_STREAM, path)?,
            Place::Stored(blob) => Descriptor::new(media_type::OCTET_STREAM, blob.digest, blob.size),
        })
    }
}

impl Source {
    /// Looks through the recipe's source, its tokenizer and its documents.
    pub(crate) fn find(
        spec: &ModelSpec,
        recipe_folder: &Path,
        store: &Store,
        materials: &Materials,
    ) -> Result<Self, Error> {
        let mut source = Self { folder: PathBuf::new(), files: BTreeMap::new(), notices: Vec::new(), base: None };
        let found = match &spec.from {
            From::Path(path) => {
                source.folder = recipe_folder.join(path);
                walk("from.path", &source.folder)?
            }
            From::Hf(reference) => {
                let brought = materials.repository("from.hf", reference)?;
                source.folder.clone_from(&brought.folder);
                brought.found("from.hf")?
            }
            From::Oci(reference) => {
                let base = Base::read(store, materials.artifact("from.oci", reference)?)?;
                source.folder = PathBuf::from(format!("{reference}"));
                source.files = base.files(spec);
                source.base = Some(base);
                Vec::new()
            }
        };
        let mut pickles = Vec::new();
        for (path, place, size) in found {
            match taken(spec, &path) {
                Some(kind) => drop(source.files.insert(path.parse()?, SourceFile::on_disk(kind, place, size))),
                None if is_pickle(&path) && spec.files.takes(&path) => pickles.push(path),
                None => {}
            }
        }
        if !source.files.values().any(|file| file.kind == LayerKind::Weight) {
            let (reason, hint) = match pickles.first() {
                None if source.base.is_some() => ("the artifact holds no *.safetensors file".to_owned(), None),
                None => ("the folder holds no *.safetensors file".to_owned(), None),
                Some(pickle) => (
                    format!("the weights are pickled ({pickle}), and reading a pickle can run any code it holds"),
                    Some("convert the model to safetensors first"),
                ),
            };
            return Err(Error::Source { path: source.folder, reason, hint });
        }
        if !pickles.is_empty() {
            source.notices.push(format!("left out {} pickled files: {}", pickles.len(), pickles.join(", ")));
        }
        if let Some(tokenizer) = &spec.tokenizer {
            source.replace_tokenizer(&recipe_folder.join(&tokenizer.path))?;
        }
        source.add_documents(spec, recipe_folder)?;
        Ok(source)
    }

    /// A file by its path within the model.
    pub(crate) fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.get(&path.parse::<LayerPath>().ok()?)
    }

    /// The weight files, in order.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&LayerPath, &SourceFile)> {
        self.files.iter().filter(|(_, file)| file.kind == LayerKind::Weight)
    }

    /// The tokenizer files of the source give way to those of another folder.
    fn replace_tokenizer(&mut self, folder: &Path) -> Result<(), Error> {
        let found: Vec<_> =
            walk("tokenizer.path", folder)?.into_iter().filter(|(path, ..)| is_tokenizer(path)).collect();
        if !found.iter().any(|(path, ..)| path == "tokenizer.json" || path == "tokenizer.model") {
            let reason = "the folder holds neither tokenizer.json nor tokenizer.model".to_owned();
            return Err(Error::Source { path: folder.to_owned(), reason, hint: None });
        }
        self.files.retain(|path, _| !is_tokenizer(path.as_str()));
        for (path, place, size) in found {
            self.files.insert(path.parse()?, SourceFile::on_disk(LayerKind::WeightConfig, place, size));
        }
        Ok(())
    }

    /// Documents lie beside the recipe, or else in the model's folder.
    fn add_documents(&mut self, spec: &ModelSpec, recipe_folder: &Path) -> Result<(), Error> {
        for name in &spec.docs {
            let beside = recipe_folder.join(name);
            // A document of the base travels by itself.
            if !beside.exists() && self.file(name).is_some_and(|file| file.kind == LayerKind::Doc) {
                continue;
            }
            let place = if beside.exists() { beside.clone() } else { self.folder.join(name) };
            let size = match std::fs::metadata(&place) {
                Ok(found) if found.is_file() => found.len(),
                Ok(_) => {
                    let reason = "this is no file, and docs lists files".to_owned();
                    return Err(Error::Source { path: place, reason, hint: None });
                }
                Err(source) => return Err(Error::Path { key: "docs", path: beside, source }),
            };
            self.files.insert(name.parse()?, SourceFile::on_disk(LayerKind::Doc, place, size));
        }
        Ok(())
    }
}

/// What a file of the source travels as under this recipe; `None` where it does not travel.
pub(crate) fn taken(spec: &ModelSpec, path: &str) -> Option<LayerKind> {
    if !spec.files.takes(path) {
        return None;
    }
    // What a person names outright travels, whatever it is.
    let named = !spec.files.include.is_empty() && !is_pickle(path);
    kind_of(path).or(named.then_some(LayerKind::WeightConfig))
}

/// What a file of a model's folder is; `None` where it does not travel.
pub(crate) fn kind_of(path: &str) -> Option<LayerKind> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "safetensors" => Some(LayerKind::Weight),
        "json" | "jinja" | "model" | "tiktoken" => Some(LayerKind::WeightConfig),
        "txt" if matches!(name, "merges.txt" | "vocab.txt") => Some(LayerKind::WeightConfig),
        _ => None,
    }
}

pub(crate) fn is_pickle(path: &str) -> bool {
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    matches!(ending, "bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle")
}

fn is_tokenizer(path: &str) -> bool {
    const NAMES: [&str; 9] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
    ];
    NAMES.contains(&path) || path.starts_with("additional_chat_templates/")
}

/// All files below a folder, hidden ones aside: path within it with `/`, place, size; sorted by path. Links to files
/// are followed, as the hub's cache is made of them.
pub(crate) fn walk(key: &'static str, folder: &Path) -> Result<Vec<(String, PathBuf, u64)>, Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Path { key, path, source }
    };
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((place, prefix, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&place).map_err(at(&place))? {
            let entry = entry.map_err(at(&place))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                let reason = "the file name is not UTF-8".to_owned();
                return Err(Error::Source { path, reason, hint: None });
            };
            if name.starts_with('.') {
                continue;
            }
            let within = format!("{prefix}{name}");
            let found = std::fs::metadata(&path).map_err(at(&path))?;
            if found.is_file() {
                files.push((within, path, found.len()));
            } else if found.is_dir() && depth < MAX_DEPTH {
                folders.push((path, format!("{within}/"), depth + 1));
            }
            if files.len() > MAX_FILES {
                let reason = format!("the folder holds more than {MAX_FILES} files: is it a model's?");
                return Err(Error::Source { path: folder.to_owned(), reason, hint: None });
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_name() {
        for (path, kind) in [
            ("model.safetensors", Some(LayerKind::Weight)),
            ("model-00001-of-00002.safetensors", Some(LayerKind::Weight)),
            ("config.json", Some(LayerKind::WeightConfig)),
            ("1_Pooling/config.json", Some(LayerKind::WeightConfig)),
            ("tokenizer.model", Some(LayerKind::WeightConfig)),
            ("merges.txt", Some(LayerKind::WeightConfig)),
            ("notes.txt", None),
            ("README.md", None),
            ("pytorch_model.bin", None),
        ] {
            assert_eq!(kind_of(path), kind, "{path}");
        }
    }
}
