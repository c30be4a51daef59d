//! The store from outside: one test program, so that it links once.

// Clippy sees helpers of tests as code.
#![allow(clippy::unwrap_used)]

mod basics;
mod collect;
mod damage;
mod lanes;
mod processes;
mod transfer;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mlxctl_artifact::{Descriptor, Digest, LayerKind, Manifest, ModelLayer, Reference, media_type};
use mlxctl_store::Store;

/// A store in a folder that goes away with the test.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(&self.path()).unwrap()
    }
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
}

fn seal_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join("seals").join(digest.algorithm().name()).join(digest.hex())
}

/// A manifest with these files as layers, not tagged; the manifest comes first, then its layers.
fn ingest_model(store: &Store, files: &[(&str, &[u8])]) -> Vec<Descriptor> {
    let layers: Vec<ModelLayer> = files
        .iter()
        .map(|(path, content)| {
            let blob = store.ingest_bytes(media_type::OCTET_STREAM, content).unwrap();
            ModelLayer::of_file(LayerKind::Weight, path.parse().unwrap(), &blob)
        })
        .collect();
    let config = store.ingest_bytes(media_type::MODEL_CONFIG, b"{}").unwrap();
    let manifest = Manifest::of_model(config, &layers, BTreeMap::new());
    let manifest = store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes()).unwrap();
    std::iter::once(manifest).chain(layers.into_iter().map(|layer| layer.descriptor)).collect()
}

/// Overwrites a blob in place, which the store never does.
fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files_below(&path) } else { vec![path] }
        })
        .collect();
    files.sort();
    files
}
