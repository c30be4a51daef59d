//! The collector: what it takes and what it must leave.

use std::fs;
use std::time::{Duration, SystemTime};

use mlxctl_artifact::{Descriptor, Digest, Index, Manifest, media_type, references_annotation};
use mlxctl_content::{CopyOptions, Push as _, Quiet, Tag as _, Uploads as _, copy};
use mlxctl_store::{GcOptions, Store};

use crate::{Home, blob_path, files_below, ingest_model, name, overwrite, seal_path};

fn holds(store: &Store, nodes: &[Descriptor]) -> Vec<bool> {
    nodes.iter().map(|node| store.contains(&node.digest).unwrap()).collect()
}

#[test]
fn what_names_and_leases_need_stays() {
    let home = Home::new();
    let store = home.open();
    let named = ingest_model(&store, &[("a", b"named"), ("s", b"shared")]);
    let pinned = ingest_model(&store, &[("a", b"pinned")]);
    let leased = ingest_model(&store, &[("a", b"leased")]);
    let loose = ingest_model(&store, &[("a", b"loose"), ("s", b"shared")]);
    let inner = ingest_model(&store, &[("a", b"in an index")]);
    let index = store.ingest_bytes(media_type::OCI_INDEX, &Index::of(vec![inner[0].clone()]).to_bytes()).unwrap();
    store.tag(&name("m"), &named[0]).unwrap();
    store.tag(&name("m").at(pinned[0].digest), &pinned[0]).unwrap();
    store.tag(&name("i"), &index).unwrap();
    let lease = store.lease(&[leased[0].digest]).unwrap();
    drop(store);
    let store = home.open();
    let trial = store.gc(true).unwrap();
    let mut doomed = vec![loose[0].digest, loose[1].digest];
    doomed.sort();
    assert_eq!(trial.blobs, doomed);
    assert_eq!(trial.bytes, loose[0].size + loose[1].size);
    assert_eq!(holds(&store, &loose), [true; 3], "a trial removes nothing");
    store.settle();
    assert_eq!(store.gc(false).unwrap(), trial);
    assert_eq!(holds(&store, &loose), [false, false, true]);
    assert!(!seal_path(store.root(), &loose[0].digest).exists());
    for kept in [&named[..], &pinned, &leased, &inner, &[index]] {
        assert!(holds(&store, kept).iter().all(|holds| *holds));
    }
    assert_eq!(store.verify(&[], &Quiet).unwrap(), []);
    drop(lease);
    store.remove(&[name("m"), name("i"), name("m").at(pinned[0].digest)]).unwrap();
    store.gc(false).unwrap();
    assert!(files_below(&store.root().join("blobs")).is_empty());
    assert!(files_below(&store.root().join("leases")).is_empty());
}

#[test]
fn a_draft_lives_as_long_as_the_model_that_refers_to_it() {
    let home = Home::new();
    let store = home.open();
    let draft = ingest_model(&store, &[("a", b"draft")]);
    let absent = Descriptor::of(media_type::OCI_MANIFEST, b"left out by a pull");
    let annotation = references_annotation([draft[0].clone(), absent]);
    let config = store.ingest_bytes(media_type::MODEL_CONFIG, b"{}").unwrap();
    let annotations = [(media_type::REFERENCES.to_owned(), annotation)].into();
    let model = Manifest::of_model(config, &[], annotations);
    let model = store.ingest_bytes(media_type::OCI_MANIFEST, &model.to_bytes()).unwrap();
    store.tag(&name("m"), &model).unwrap();
    drop(store);
    let store = home.open();
    assert!(store.gc(false).unwrap().blobs.is_empty());
    assert_eq!(store.verify(&[], &Quiet).unwrap(), []);
    overwrite(&blob_path(store.root(), &draft[1].digest), b"DRAFT");
    assert_eq!(store.verify(&[], &Quiet).unwrap().len(), 1, "a draft that is here is verified");
    store.untag(&name("m")).unwrap();
    store.gc(false).unwrap();
    assert_eq!(holds(&store, &draft), [false; 2]);
}

#[test]
fn what_is_ingested_stays_until_its_name_goes() {
    let home = Home::new();
    let (builder, collector) = (home.open(), home.open());
    let model = ingest_model(&builder, &[("a", b"A")]);
    assert!(collector.gc(false).unwrap().blobs.is_empty(), "nothing names it yet, its builder holds it");
    builder.tag(&name("m"), &model[0]).unwrap();
    collector.remove(&[name("m")]).unwrap();
    // The builder lives on, but the name had taken over.
    assert_eq!(collector.gc(false).unwrap().blobs.len(), 3);
}

#[tokio::test]
async fn a_running_pull_keeps_what_it_pushed_and_what_it_found() {
    let (here, there) = (Home::new(), Home::new());
    let source = here.open();
    let model = ingest_model(&source, &[("a", b"A"), ("b", b"B")]);
    let (from, target) = (source.repository("m").unwrap(), there.open());
    target.ingest_bytes("a/b", b"B").unwrap();
    drop(target);
    let (target, collector) = (there.open(), there.open());
    let to = target.repository("m").unwrap();
    assert!(to.exists(&model[2]).await.unwrap());
    to.push(&model[1], &from, &Quiet).await.unwrap();
    assert!(collector.gc(false).unwrap().blobs.is_empty());
    copy(&from, &to, &model[0], CopyOptions::default(), &Quiet).await.unwrap();
    assert!(collector.gc(false).unwrap().blobs.is_empty());
    to.tag(&model[0], "latest").await.unwrap();
    drop(to);
    assert!(collector.gc(false).unwrap().blobs.is_empty());
    collector.remove(&[name("m")]).unwrap();
    assert_eq!(collector.gc(false).unwrap().blobs.len(), 4);
}

#[test]
fn referrers_live_as_long_as_their_subject() {
    let home = Home::new();
    let store = home.open();
    let model = ingest_model(&store, &[("a", b"A")]).remove(0);
    let refer = |subject: &Descriptor, content: &[u8]| {
        let layer = store.ingest_bytes("a/b", content).unwrap();
        let empty = store.ingest_bytes(media_type::OCI_EMPTY, b"{}").unwrap();
        let mut manifest = Manifest::of_model(empty, &[], std::collections::BTreeMap::new());
        manifest.layers.push(layer.clone());
        manifest.subject = Some(subject.clone());
        [store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes()).unwrap(), layer]
    };
    let signature = refer(&model, b"signature");
    let countersignature = refer(&signature[0], b"countersignature");
    store.tag(&name("m"), &model).unwrap();
    drop(store);
    let store = home.open();
    assert!(store.gc(false).unwrap().blobs.is_empty());
    assert!(holds(&store, &[&signature[..], &countersignature].concat()).iter().all(|holds| *holds));
    store.untag(&name("m")).unwrap();
    store.gc(false).unwrap();
    assert!(files_below(&store.root().join("blobs")).is_empty());
}

#[test]
fn a_damaged_manifest_stops_the_collector_a_missing_one_does_not() {
    let home = Home::new();
    let model = {
        let store = home.open();
        let model = ingest_model(&store, &[("a", b"A")]);
        store.tag(&name("m"), &model[0]).unwrap();
        model
    };
    let store = home.open();
    let path = blob_path(store.root(), &model[0].digest);
    let sound = fs::read(&path).unwrap();
    crate::overwrite(&path, &vec![b'{'; sound.len()]);
    assert!(store.gc(false).is_err());
    assert!(store.contains(&model[1].digest).unwrap());
    fs::remove_file(&path).unwrap();
    store.gc(false).unwrap();
    assert!(!store.contains(&model[1].digest).unwrap());
}

#[tokio::test]
async fn leftovers_go_when_they_are_old_and_nobody_works_on_them() {
    let home = Home::new();
    let store = home.open();
    let repository = store.repository("m").unwrap();
    let root = store.root().to_owned();
    let partial = root.join(format!("ingest/sha256-{}", Digest::sha256_of(b"x").hex()));
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("data"), "half").unwrap();
    // A partial whose blob arrived by another way is of no use.
    let done = store.ingest_bytes("a/b", b"done").unwrap();
    let useless = root.join(format!("ingest/sha256-{}", done.digest.hex()));
    fs::create_dir(&useless).unwrap();
    fs::write(root.join("ingest/new-dead"), "dead").unwrap();
    let living = store.ingest_writer("a/b").unwrap();
    fs::write(root.join("scratch/dead"), "").unwrap();
    fs::write(root.join("leases/dead"), "+garbage").unwrap();
    let session = repository.begin().await.unwrap();
    let report = store.gc(false).unwrap();
    assert_eq!(report.leftovers, [root.join("ingest/new-dead"), useless]);
    let later = GcOptions { now: SystemTime::now() + Duration::from_hours(25), ..GcOptions::default() };
    let report = store.gc_with(&later).unwrap();
    let expected = [partial, root.join("uploads").join(session), root.join("scratch/dead")];
    assert_eq!(report.leftovers, expected);
    assert_eq!(report.bytes, 5, "'half', and the name of the upload's repository");
    assert!(expected.iter().all(|path| !path.exists()));
    living.finish().unwrap();
    // The dead lease held nothing back, and its garbage stopped nobody.
    assert!(!root.join("leases/dead").exists());
}
