//! Artifacts whose layers are archives (KitOps' ModelKits, ModelPack's `tar` packagings) taken apart into one of raw
//! files, as the runtime maps them. The same artifact gives the same result on every machine.
//!
//! The result names the artifact it was made of as its subject: the collector keeps it as long as that one lives, and
//! [`unpacked`] finds it again.

use std::collections::BTreeMap;
use std::io::{Read, Write as _};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use mlxctl_artifact::{
    Descriptor, Digest, LayerKind, LayerPath, LayerRole, MAX_MANIFEST_BYTES, Manifest, ModelConfig, ModelDescriptor,
    ModelFs, ModelLayer, Packaging, canonical_json, media_type,
};
use mlxctl_content::Referrers as _;
use mlxctl_store::Store;
use serde_json::Value;

use crate::{Error, MemberKind, Members};

/// Annotation of a result: the digest of the artifact that it was made of.
const UNPACKED_FROM: &str = "dev.mlxctl.unpacked-from";
/// Files that one artifact may be taken apart into.
const MAX_FILES: usize = 10_000;
/// An archive may grow to this many bytes in any case …
const MAX_SMALL_BYTES: u64 = 1 << 30;
/// … and else to this many times its own size: weights hardly compress.
const MAX_GROWTH: u64 = 64;

/// Whether serving this artifact takes [`unpack`] first: layers of weights or of configuration are archives.
pub fn is_packed(manifest: &Manifest) -> Result<bool, Error> {
    Ok(manifest.model_layers()?.iter().any(needs_unpacking))
}

fn needs_unpacking(layer: &ModelLayer) -> bool {
    layer.role.packaging != Packaging::Raw && matches!(layer.role.kind, LayerKind::Weight | LayerKind::WeightConfig)
}

/// What [`unpack`] made of this artifact before; `None` where it did not, or where it is gone.
pub async fn unpacked(store: &Store, root: &Descriptor) -> Result<Option<Descriptor>, Error> {
    // Referrers are the whole store's; the name is that of no repository in particular.
    let about = store.repository("unpacked")?.referrers(&root.digest, None).await?;
    let source = root.digest.to_string();
    for found in about.into_iter().filter(|found| found.annotations.get(UNPACKED_FROM) == Some(&source)) {
        let found = Descriptor { annotations: BTreeMap::new(), ..found };
        let (_, manifest) = store.manifest(&found)?;
        // A pull of the source alone brings no blobs of what was made of it.
        let whole = manifest.blobs().map(|blob| store.contains(&blob.digest)).collect::<Result<Vec<_>, _>>()?;
        if whole.into_iter().all(|held| held) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Takes the archives among an artifact's layers of weights and configuration apart and gives the manifest of the raw
/// files; other layers stay as they are. Nothing names the result yet. `notice` hears what was left out. Blocks, and
/// reads and writes as much as the model has.
///
/// # Errors
/// [`Error::Archive`] where an archive holds links, devices, paths that leave it, or grows beyond measure;
/// [`Error::Refused`] where two layers hold one path.
pub fn unpack(store: &Store, root: &Descriptor, notice: &dyn Fn(&str)) -> Result<Descriptor, Error> {
    let (_, manifest) = store.manifest(root)?;
    let mut files = Files { store, notice, found: BTreeMap::new() };
    let mut kept = Vec::new();
    for layer in manifest.model_layers()? {
        if needs_unpacking(&layer) {
            files.open(&layer)?;
        } else if layer.role.packaging == Packaging::Raw {
            files.add(layer.path.clone(), layer.role.kind, &layer.descriptor)?;
        } else {
            kept.push(repackaged(layer));
        }
    }
    let mut layers: Vec<ModelLayer> = rooted(files.found)?;
    // Weights first, as `create` orders them.
    layers.sort_by_key(|layer| layer.role.kind != LayerKind::Weight);
    layers.extend(kept);
    if layers.is_empty() {
        return Err(Error::Refused { message: format!("{} holds no file of a model", root.digest), hint: None });
    }
    let mut config = config(store, &manifest)?;
    config.modelfs =
        ModelFs { diff_ids: layers.iter().map(|layer| layer.descriptor.digest).collect(), ..ModelFs::default() };
    let bytes = canonical_json(&config).map_err(|error| Error::Refused { message: error.to_string(), hint: None })?;
    let config = store.ingest_bytes(media_type::MODEL_CONFIG, &bytes)?;
    let mut annotations = manifest.annotations.clone();
    annotations.insert(UNPACKED_FROM.to_owned(), root.digest.to_string());
    let mut made = Manifest::of_model(config, &layers, annotations);
    made.subject = Some(Descriptor::new(root.media_type.clone(), root.digest, root.size));
    let made = store.ingest_bytes(media_type::OCI_MANIFEST, &made.to_bytes())?;
    Ok(Descriptor { artifact_type: Some(media_type::MODEL_MANIFEST.to_owned()), ..made })
}

/// The layer under ModelPack's name for what it is.
fn repackaged(layer: ModelLayer) -> ModelLayer {
    let ModelLayer { descriptor, role, path } = layer;
    let raw = ModelLayer::of_file(role.kind, path, &descriptor);
    ModelLayer { descriptor: Descriptor { media_type: role.media_type(), ..raw.descriptor }, role, path: raw.path }
}

/// The files of an artifact, by their paths.
struct Files<'a> {
    store: &'a Store,
    notice: &'a dyn Fn(&str),
    found: BTreeMap<LayerPath, (LayerKind, Descriptor)>,
}

impl Files<'_> {
    fn add(&mut self, path: LayerPath, kind: LayerKind, blob: &Descriptor) -> Result<(), Error> {
        if let Some((_, other)) = self.found.get(&path)
            && other.digest != blob.digest
        {
            let message = format!("two layers hold {path}, and their bytes differ");
            return Err(Error::Refused { message, hint: None });
        }
        self.found.insert(path, (kind, Descriptor::new(media_type::OCTET_STREAM, blob.digest, blob.size)));
        if self.found.len() > MAX_FILES {
            let message = format!("the artifact holds more than {MAX_FILES} files");
            return Err(Error::Refused { message, hint: None });
        }
        Ok(())
    }

    fn open(&mut self, layer: &ModelLayer) -> Result<(), Error> {
        let name = format!("layer {}", layer.path);
        let packed = self.store.map(&layer.descriptor)?;
        let limit = (layer.descriptor.size.saturating_mul(MAX_GROWTH)).max(MAX_SMALL_BYTES);
        let reader = decoded(layer.role, packed).map_err(|reason| Error::Archive { archive: name.clone(), reason })?;
        let mut members = Members::of_stream(reader, name.clone());
        let wrong = |reason: String| Error::Archive { archive: name.clone(), reason };
        let mut total: u64 = 0;
        let mut seen = std::collections::BTreeSet::new();
        while let Some(member) = members.next_member()? {
            match member.kind {
                MemberKind::Folder => continue,
                MemberKind::Link => return Err(wrong(format!("{:?} is a link; a model holds files", member.path))),
                MemberKind::File => {}
            }
            total = total.saturating_add(member.size);
            if total > limit {
                return Err(wrong(format!("it grows to more than {limit} bytes")));
            }
            if !seen.insert(member.path.clone()) {
                return Err(wrong(format!("{:?} is there twice", member.path)));
            }
            let path: LayerPath = member.path.parse()?;
            let Some(kind) = kind_of(&path, layer.role.kind) else {
                (self.notice)(&format!("{path} is pickled, and reading a pickle can run any code it holds: left out"));
                continue;
            };
            let mut writer = self.store.ingest_writer(media_type::OCTET_STREAM)?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match members.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => writer.write_all(&buffer[..count]).map_err(Error::io("write", self.store.root()))?,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(wrong(format!("{path}: {error}"))),
                }
            }
            self.add(path, kind, &writer.finish()?)?;
        }
        Ok(())
    }
}

/// The archive under its compression.
fn decoded(role: LayerRole, packed: Bytes) -> Result<Box<dyn Read>, String> {
    let reader = std::io::Cursor::new(packed);
    Ok(match role.packaging {
        Packaging::Raw | Packaging::Tar => Box::new(reader),
        Packaging::TarGzip => Box::new(MultiGzDecoder::new(reader)),
        Packaging::TarZstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(reader);
            Box::new(decoder.map_err(|error| format!("it is no zstd stream: {error}"))?)
        }
    })
}

/// What a file from a layer of weights or configuration is; `None` for a pickle.
fn kind_of(path: &LayerPath, layer: LayerKind) -> Option<LayerKind> {
    let name = path.file_name();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    Some(match ending {
        "bin" | "pt" | "pth" | "ckpt" | "pkl" | "pickle" => return None,
        "safetensors" | "gguf" => LayerKind::Weight,
        "json" | "jinja" | "model" | "tiktoken" | "txt" => LayerKind::WeightConfig,
        "md" => LayerKind::Doc,
        "py" => LayerKind::Code,
        _ if name.starts_with("LICENSE") => LayerKind::Doc,
        _ => layer,
    })
}

/// The layers, without the folder that all of a model lies in.
fn rooted(files: BTreeMap<LayerPath, (LayerKind, Descriptor)>) -> Result<Vec<ModelLayer>, Error> {
    let configs = files.keys().filter_map(|path| path.as_str().strip_suffix("config.json"));
    let root = configs.filter(|folder| folder.is_empty() || folder.ends_with('/')).min_by_key(|folder| folder.len());
    let root = root.unwrap_or_default().to_owned();
    let inside = files.keys().all(|path| path.as_str().starts_with(&root));
    let mut layers = Vec::new();
    for (path, (kind, blob)) in files {
        let path = if inside { path.as_str()[root.len()..].parse()? } else { path };
        layers.push(ModelLayer::of_file(kind, path, &blob));
    }
    Ok(layers)
}

/// ModelPack's configuration of the result: the source's own, or what KitOps' and Docker's say of the same.
fn config(store: &Store, manifest: &Manifest) -> Result<ModelConfig, Error> {
    let bytes = store.read(&manifest.config, MAX_MANIFEST_BYTES)?;
    if manifest.config.media_type == media_type::MODEL_CONFIG {
        return Ok(ModelConfig::parse(&bytes)?);
    }
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let list = |pointer: &str| match value.pointer(pointer) {
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        _ => Vec::new(),
    };
    let mut config = ModelConfig {
        descriptor: ModelDescriptor {
            name: text("/package/name"),
            version: text("/package/version"),
            description: text("/package/description"),
            authors: list("/package/authors"),
            licenses: list("/package/license"),
            ..ModelDescriptor::default()
        },
        ..ModelConfig::default()
    };
    config.config.format = text("/config/format");
    config.config.architecture = text("/config/architecture");
    config.config.param_size = text("/config/parameters");
    config.config.quantization = text("/config/quantization");
    Ok(config)
}

/// The digest that a result was made of.
pub fn unpacked_from(manifest: &Manifest) -> Option<Digest> {
    manifest.annotations.get(UNPACKED_FROM)?.parse().ok()
}
