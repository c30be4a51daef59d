//! Layouts there and back: what is written is read again bit by bit, the same artifact is the same archive, and layouts of
//! strangers are held against what they say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mlxctl_artifact::{
    Descriptor, Index, LayerKind, Manifest, ModelLayer, Reference, media_type, references_annotation,
};
use mlxctl_content::{CopyOptions, Memory, Push as _, Quiet, Resolve as _, copy, reachable};
use mlxctl_layout::{Layout, LayoutFolder, write_archive};

fn model(store: &Memory, content: &[u8], annotations: BTreeMap<String, String>) -> Descriptor {
    let blob = store.insert(media_type::OCTET_STREAM, content.to_vec());
    let layer = ModelLayer::of_file(LayerKind::Weight, "model.safetensors".parse().unwrap(), &blob);
    let config = store.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
    store.insert(media_type::OCI_MANIFEST, Manifest::of_model(config, &[layer], annotations).to_bytes())
}

/// A model of three megabytes with a draft.
fn drafted(store: &Memory) -> Descriptor {
    let draft = model(store, b"draft", BTreeMap::new());
    let annotations = [
        (media_type::REFERENCES.to_owned(), references_annotation([draft])),
        (media_type::TITLE.to_owned(), "pebble".to_owned()),
    ];
    let weights: Vec<u8> = (0..3_000_001_u32).map(|index| (index % 251) as u8).collect();
    model(store, &weights, annotations.into())
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

async fn write_folder(store: &Memory, root: &Descriptor, tag: &str, path: &Path) {
    let folder = LayoutFolder::open(path).unwrap();
    copy(store, &folder, root, CopyOptions::default(), &Quiet).await.unwrap();
    folder.finish(root, &name(tag)).unwrap();
}

/// Everything that the layout's entry `tag` stands for is in the memory it is copied to.
async fn holds(path: &Path, tag: &str, origin: &Memory, root: &Descriptor) {
    let layout = Layout::open(path).unwrap();
    let found = layout.resolve(tag).await.unwrap();
    assert_eq!((found.digest, found.size), (root.digest, root.size));
    let target = Memory::default();
    copy(&layout, &target, &found, CopyOptions::default(), &Quiet).await.unwrap();
    for node in reachable(origin, root, &Quiet).await.unwrap() {
        assert!(target.exists(&node).await.unwrap(), "{node:?}");
    }
}

#[tokio::test]
async fn a_model_and_its_draft_come_back_from_a_folder_and_from_a_tar() {
    let (store, folder) = (Memory::default(), tempfile::tempdir().unwrap());
    let root = drafted(&store);
    let (layout, tar) = (folder.path().join("layout"), folder.path().join("layout.tar"));
    write_folder(&store, &root, "pebble:1.0.0", &layout).await;
    write_archive(&store, &root, &name("pebble:1.0.0"), &tar, &Quiet).await.unwrap();
    for path in [&layout, &tar] {
        holds(path, "1.0.0", &store, &root).await;
        holds(path, "pebble:1.0.0", &store, &root).await;
        assert_eq!(Layout::open(path).unwrap().entries()[0].name, Some(name("pebble:1.0.0")));
    }
}

#[tokio::test]
async fn the_same_artifact_is_the_same_archive_without_clock_or_owner() {
    let (store, folder) = (Memory::default(), tempfile::tempdir().unwrap());
    let root = drafted(&store);
    let paths = ["one.tar", "two.tar"].map(|name| folder.path().join(name));
    for path in &paths {
        write_archive(&store, &root, &name("m:1"), path, &Quiet).await.unwrap();
    }
    let bytes = fs::read(&paths[0]).unwrap();
    assert!(bytes == fs::read(&paths[1]).unwrap());
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        seen.push(entry.path().unwrap().to_string_lossy().into_owned());
    }
    assert_eq!(seen.len(), 2 + reachable(&store, &root, &Quiet).await.unwrap().len() + 2);
    assert!(seen.is_sorted(), "{seen:?}");
}

#[tokio::test]
async fn a_folder_takes_several_models_and_a_tag_moves() {
    let (store, folder) = (Memory::default(), tempfile::tempdir().unwrap());
    let (one, two) = (drafted(&store), model(&store, b"other", BTreeMap::new()));
    let path = folder.path().join("layout");
    write_folder(&store, &one, "m:1", &path).await;
    write_folder(&store, &two, "m:2", &path).await;
    write_folder(&store, &two, "m:1", &path).await;
    let layout = Layout::open(&path).unwrap();
    let listed: Vec<_> =
        layout.entries().iter().map(|entry| (entry.reference.as_deref(), entry.manifest.digest)).collect();
    assert_eq!(listed, [(Some("2"), two.digest), (Some("1"), two.digest)]);
}

#[tokio::test]
async fn a_blob_that_was_harmed_is_written_again_and_never_copied() {
    let (store, folder) = (Memory::default(), tempfile::tempdir().unwrap());
    let root = model(&store, b"weights", BTreeMap::new());
    let path = folder.path().join("layout");
    write_folder(&store, &root, "m:1", &path).await;
    let blob = path.join("blobs/sha256").join(Descriptor::of("", b"weights").digest.hex());
    fs::write(&blob, "WEIGHTS").unwrap();
    let target = Memory::default();
    let layout = Layout::open(&path).unwrap();
    let failed = copy(&layout, &target, &root, CopyOptions::default(), &Quiet).await.unwrap_err();
    assert!(failed.to_string().contains("digest mismatch"), "{failed}");
    assert!(!target.exists(&root).await.unwrap());
    fs::write(&blob, "longer than it says").unwrap();
    let failed = copy(&layout, &target, &root, CopyOptions::default(), &Quiet).await.unwrap_err();
    assert!(failed.to_string().contains("size mismatch"), "{failed}");
    write_folder(&store, &root, "m:1", &path).await;
    holds(&path, "1", &store, &root).await;
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "irreplaceable").unwrap();
    let error = LayoutFolder::open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("it holds other files"), "{error}");
    let store = tempfile::tempdir().unwrap();
    drop(mlxctl_store::Store::open(store.path()).unwrap());
    let error = LayoutFolder::open(store.path()).err().unwrap().to_string();
    assert!(error.contains("store of mlxctl"), "{error}");
}

fn member(kind: tar::EntryType, path: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_path(path).unwrap();
    if kind.is_symlink() {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut bytes = [header.as_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn tars_that_are_no_layouts_are_refused_with_their_reason() {
    use tar::EntryType::{Regular, Symlink};
    let version = &br#"{"imageLayoutVersion":"1.0.0"}"#[..];
    let layout = member(Regular, "oci-layout", version);
    let index = member(Regular, "index.json", &Index::of(Vec::new()).to_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    let check = |members: &[&[u8]], reason: &str| {
        fs::write(&path, members.concat()).unwrap();
        let found = Layout::open(&path).err().map_or_else(String::new, |error| error.to_string());
        assert!(found.contains(reason) && found.is_empty() == reason.is_empty(), "expected {reason:?}: {found:?}");
    };
    check(&[&layout, &index], "");
    check(&[&index], "it has no oci-layout");
    check(&[&layout], "it has no index.json");
    check(&[&layout, &index, &index], "\"index.json\" is there twice");
    check(&[&layout, &member(Symlink, "index.json", b"")], "is a link");
    check(&[&layout, &index, &member(Symlink, "blobs", b"")], "is a link");
    check(&[&member(Regular, "oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#), &index], "imageLayoutVersion");
    check(&[&member(Regular, "oci-layout", &[b' '; 5000]), &index], "more than the 4096");
    check(&[&layout, &member(Regular, "index.json", b"[]")], "index cannot be read");
    check(&[b"\x1f\x8b\x08\x00rest"], "compressed");
    check(&[b"GGUF"], "ends inside a header");
    check(&[], "it has no oci-layout");
}
