//! Names, ingest, mapping, and what other tools see.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use mlxctl_artifact::{Descriptor, Digest, Index, media_type};
use mlxctl_store::{Error, Store, Verify};

use crate::{Home, blob_path, files_below, ingest_model, name, seal_path};

#[test]
fn what_is_ingested_can_be_mapped_and_is_read_only() {
    let home = Home::new();
    let store = home.open();
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let mut writer = store.ingest_writer("a/b").unwrap();
    for piece in big.chunks(70_001) {
        writer.write_all(piece).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!(written, Descriptor::of("a/b", &big));
    let file = home.folder.path().join("input");
    fs::write(&file, &big).unwrap();
    assert_eq!(store.ingest_file("c/d", &file).unwrap().digest, written.digest);
    let map = store.map(&written).unwrap();
    assert_eq!(map, big);
    assert_eq!(map.as_ptr() as usize % 4096, 0);
    assert_eq!(store.map_with(&written, Verify::Always).unwrap(), big);
    let mode = fs::metadata(blob_path(store.root(), &written.digest)).unwrap().permissions().mode();
    assert_eq!(mode & 0o333, 0, "{mode:o}");
    let empty = store.ingest_bytes("a/b", b"").unwrap();
    assert!(store.map(&empty).unwrap().is_empty());
    assert_eq!(store.read(&empty, 0).unwrap(), "");
    assert!(matches!(store.read(&written, 1000), Err(Error::TooLarge { size: 3_000_000, .. })));
}

#[test]
fn an_unfinished_blob_leaves_nothing() {
    let home = Home::new();
    let store = home.open();
    let mut writer = store.ingest_writer("a/b").unwrap();
    writer.write_all(&vec![1; 3 << 20]).unwrap();
    drop(writer);
    assert!(files_below(&store.root().join("blobs")).is_empty());
    assert!(files_below(&store.root().join("ingest")).is_empty());
}

#[test]
fn seals_come_after_the_sync_and_survive_the_process() {
    let home = Home::new();
    let store = home.open();
    let blob = store.ingest_bytes("a/b", b"content").unwrap();
    store.settle();
    assert!(seal_path(store.root(), &blob.digest).is_file());
    // A later process believes the seal: it does not read the blob. That shows in a seal made for wrong bytes.
    let path = blob_path(store.root(), &blob.digest);
    crate::overwrite(&path, b"c0ntent");
    let stamped = home.open();
    assert!(matches!(stamped.map(&blob), Err(Error::Damaged { .. })), "the stamp changed");
    fs::remove_file(&path).unwrap();
    assert!(matches!(stamped.map(&blob), Err(Error::Missing { .. })));
    stamped.ingest_bytes("a/b", b"content").unwrap();
    stamped.settle();
    assert_eq!(home.open().map(&blob).unwrap(), "content");
}

#[test]
fn names_are_set_replaced_resolved_and_removed() {
    let home = Home::new();
    let store = home.open();
    let one = ingest_model(&store, &[("a", b"A")]).remove(0);
    let two = ingest_model(&store, &[("a", b"B")]).remove(0);
    for (tag, node) in
        [("m:V1", &one), ("m:v1", &two), ("ghcr.io/m:v1", &one), ("localhost:5000/a/m", &two), ("m", &one)]
    {
        store.tag(&name(tag), node).unwrap();
    }
    let names: Vec<String> = store.tags().unwrap().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["m:V1", "m:latest", "m:v1", "ghcr.io/m:v1", "localhost:5000/a/m:latest"]);
    assert_eq!(store.repositories().unwrap(), ["ghcr.io/m", "localhost:5000/a/m", "m"]);
    assert_eq!(store.resolve(&name("m:V1")).unwrap(), one);
    assert_eq!(store.resolve(&name("m:v1")).unwrap(), two);
    assert_eq!(store.resolve(&name("localhost:5000/a/m:latest")).unwrap(), two);
    store.tag(&name("m:V1"), &two).unwrap();
    assert_eq!(store.resolve(&name("m:V1")).unwrap(), two);
    store.untag(&name("m:V1")).unwrap();
    assert!(matches!(store.resolve(&name("m:V1")), Err(Error::NotFound { .. })));
    assert!(matches!(store.untag(&name("m:V1")), Err(Error::NotFound { .. })));
    assert_eq!(store.resolve(&name("m:v1")).unwrap(), two);
    // All or nothing.
    assert!(store.remove(&[name("m:v1"), name("absent")]).is_err());
    assert_eq!(store.resolve(&name("m:v1")).unwrap(), two);
    let (raw, manifest) = store.manifest(&two).unwrap();
    assert_eq!(Digest::sha256_of(&raw), two.digest);
    assert_eq!(manifest.layers.len(), 1);
}

#[test]
fn a_digest_wins_over_the_tag_and_is_found_without_one() {
    let home = Home::new();
    let store = home.open();
    let mut model = ingest_model(&store, &[("a", b"A")]);
    let (one, layer) = (model.remove(0), model.remove(0));
    let two = ingest_model(&store, &[("a", b"B")]).remove(0);
    store.tag(&name("m:v1"), &two).unwrap();
    assert_eq!(store.resolve(&name("m:v1").at(one.digest)).unwrap(), one);
    assert_eq!(store.resolve(&name("other:absent").at(one.digest)).unwrap(), one);
    assert!(matches!(store.resolve(&name("m").at(layer.digest)), Err(Error::Refused { .. })));
    assert!(matches!(store.resolve(&name("m").at(Digest::sha256_of(b"?"))), Err(Error::NotFound { .. })));
    assert!(matches!(store.tag(&name("m").at(two.digest), &one), Err(Error::Refused { .. })));
    // A pin without a tag, and its removal.
    store.tag(&name("m:remark").at(one.digest), &one).unwrap();
    let names: Vec<String> = store.tags().unwrap().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, [format!("m@{}", one.digest), "m:v1".to_owned()]);
    assert!(matches!(store.remove(&[name("other").at(one.digest)]), Err(Error::NotFound { .. })));
    store.remove(&[name("m").at(one.digest)]).unwrap();
    store.remove(&[name("m").at(two.digest)]).unwrap();
    assert!(store.tags().unwrap().is_empty());
}

#[test]
fn a_manifest_that_is_not_here_gets_no_name() {
    let store = Home::new();
    let store = store.open();
    let absent = Descriptor::of(media_type::OCI_MANIFEST, b"absent");
    assert!(matches!(store.tag(&name("m"), &absent), Err(Error::Missing { .. })));
    assert!(store.tags().unwrap().is_empty());
}

#[test]
fn the_index_follows_the_names() {
    let home = Home::new();
    let store = home.open();
    let index = || Index::parse(&fs::read(store.root().join("index.json")).unwrap()).unwrap().manifests;
    assert!(index().is_empty());
    let node = ingest_model(&store, &[("a", b"A")]).remove(0);
    store.tag(&name("ghcr.io/m:1"), &node).unwrap();
    store.tag(&name("m").at(node.digest), &node).unwrap();
    assert_eq!(index(), [node.with_annotation(media_type::REF_NAME, "ghcr.io/m:1")]);
    store.untag(&name("ghcr.io/m:1")).unwrap();
    assert_eq!(index().len(), 1, "the pin stays listed");
}

#[test]
fn skopeo_reads_the_store_in_place() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skipped: skopeo is not installed");
        return;
    }
    let home = Home::new();
    let store = home.open();
    let model = ingest_model(&store, &[("a", b"A")]);
    for reference in ["ghcr.io/org/m:V1", "m:latest", "localhost:5000/m:1"] {
        store.tag(&name(reference), &model[0]).unwrap();
        let target = tempfile::tempdir().unwrap();
        let from = format!("oci:{}:{reference}", store.root().display());
        let to = format!("dir:{}", target.path().display());
        let copied = Command::new("skopeo").args(["--insecure-policy", "copy", &from, &to]).output().unwrap();
        assert!(copied.status.success(), "{reference}: {}", String::from_utf8_lossy(&copied.stderr));
        assert_eq!(fs::read(target.path().join(model[1].digest.hex())).unwrap(), b"A");
    }
}

#[test]
fn a_read_only_store_is_read_and_not_changed() {
    let home = Home::new();
    let node = {
        let store = home.open();
        let node = ingest_model(&store, &[("a", b"A")]).remove(0);
        store.tag(&name("m"), &node).unwrap();
        node
    };
    fs::remove_dir_all(home.path().join("seals")).unwrap();
    let before = files_below(&home.path());
    let store = Store::open_read_only(&home.path()).unwrap();
    assert_eq!(store.resolve(&name("m")).unwrap(), node);
    assert_eq!(store.map(&node).unwrap().len() as u64, node.size);
    let _lease = store.lease(&[node.digest]).unwrap();
    assert!(matches!(store.tag(&name("n"), &node), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.ingest_bytes("a/b", b"x"), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.gc(false), Err(Error::ReadOnly { .. })));
    drop(store);
    assert_eq!(files_below(&home.path()), before);
    assert!(matches!(Store::open_read_only(home.folder.path()), Err(Error::NotAStore { .. })));
}

#[test]
fn folders_of_others_are_refused_and_left_alone() {
    let home = Home::new();
    fs::create_dir(home.path()).unwrap();
    fs::write(home.path().join("thesis.txt"), "years").unwrap();
    let refused = Store::open(&home.path()).map(drop).unwrap_err();
    assert!(refused.to_string().contains("thesis.txt"), "{refused}");
    assert_eq!(files_below(&home.path()), [home.path().join("thesis.txt")]);
    // An image layout of another tool: making our index would destroy theirs.
    let other = home.folder.path().join("layout");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    fs::write(other.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    assert!(matches!(Store::open(&other), Err(Error::NotAStore { .. })));
    assert_eq!(files_below(&other).len(), 2);
    fs::write(other.join("oci-layout"), "{").unwrap();
    assert!(matches!(Store::open(&other), Err(Error::NotAStore { .. })));
    assert!(matches!(Store::open(&other.join("oci-layout")), Err(Error::Io { .. } | Error::NotAStore { .. })));
}
