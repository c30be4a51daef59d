//! A store whose files were harmed: each harm is told with its path, and nothing else suffers.

use std::fs;
use std::os::unix::fs::symlink;

use mlxctl_artifact::{Index, Reference};
use mlxctl_content::{Fetch as _, Push as _, Quiet};
use mlxctl_store::{Error, Fault, Verify};

use crate::{Home, blob_path, ingest_model, name, overwrite, seal_path};

#[test]
fn verify_names_digest_path_and_bytes_and_a_push_heals() {
    let home = Home::new();
    let store = home.open();
    let files: [(&str, &[u8]); 4] = [("a", b"flipped"), ("b", b"cut off"), ("c", b"gone"), ("d", b"sound")];
    let model = ingest_model(&store, &files);
    store.tag(&name("m"), &model[0]).unwrap();
    let other = ingest_model(&store, &[("e", b"other")]);
    store.tag(&name("other"), &other[0]).unwrap();
    store.settle();
    assert_eq!(store.verify(&[], &Quiet).unwrap(), []);
    let path = |at: usize| blob_path(store.root(), &model[at].digest);
    overwrite(&path(1), b"fl1pped");
    overwrite(&path(2), b"cut");
    fs::remove_file(path(3)).unwrap();
    for names in [vec![], vec![name("m")], vec![name("absent").at(model[0].digest)]] {
        let findings = store.verify(&names, &Quiet).unwrap();
        assert_eq!(findings.len(), 3, "{findings:?}");
        for (finding, at) in findings.iter().zip(1..) {
            assert_eq!((finding.digest, &finding.path), (Some(model[at].digest), &path(at)));
            let text = finding.to_string();
            assert!(
                text.contains(&model[at].digest.to_string()) && text.contains(path(at).to_str().unwrap()),
                "{text}"
            );
            assert!(finding.hint().contains("pull"));
        }
        assert!(matches!(findings[0].fault, Fault::Damaged { expected: 7, found: 7, .. }));
        assert!(matches!(findings[1].fault, Fault::Damaged { expected: 7, found: 3, .. }));
        assert_eq!(findings[2].fault, Fault::Missing { expected: 4 });
    }
    assert_eq!(store.verify(&[name("other")], &Quiet).unwrap(), []);
    assert!(matches!(store.verify(&[name("absent")], &Quiet), Err(Error::NotFound { .. })));
    // Pulling again replaces what is damaged.
    let source = mlxctl_content::Memory::default();
    for (_, content) in files {
        source.insert("", content);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = store.repository("m").unwrap();
        for layer in &model[1..4] {
            assert!(!target.exists(layer).await.unwrap());
            target.push(layer, &source, &Quiet).await.unwrap();
        }
        assert!(target.exists(&model[4]).await.unwrap());
    });
    assert_eq!(store.verify(&[], &Quiet).unwrap(), []);
}

#[test]
fn damage_is_found_at_the_first_use_even_under_an_old_seal() {
    let home = Home::new();
    let blob = {
        let store = home.open();
        let blob = store.ingest_bytes("a/b", b"content").unwrap();
        store.settle();
        blob
    };
    let store = home.open();
    // Rot under the file system leaves the stamp as it was: `Always` finds it, and takes the seal away.
    let path = blob_path(store.root(), &blob.digest);
    overwrite(&path, b"c0ntent");
    assert!(matches!(store.map_with(&blob, Verify::Always), Err(Error::Damaged { bytes: 7, .. })));
    assert!(!seal_path(store.root(), &blob.digest).exists());
    let error = store.map(&blob).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.hint().unwrap().contains("pull"));
    overwrite(&path, b"c");
    assert!(matches!(store.map(&blob), Err(Error::Damaged { bytes: 1, .. })));
    overwrite(&path, b"content");
    assert_eq!(store.map(&blob).unwrap(), "content");
    let mut liar = blob.clone();
    liar.size = 1 << 60;
    assert!(matches!(store.map(&liar), Err(Error::WrongSize { expected: 0x1000_0000_0000_0000, found: 7, .. })));
    assert!(matches!(store.read(&liar, u64::MAX), Err(Error::WrongSize { .. })));
}

#[test]
fn seals_that_are_garbage_or_of_another_file_are_not_believed() {
    let home = Home::new();
    let store = home.open();
    let [good, bad] = [b"good", b"evil"].map(|content| store.ingest_bytes("a/b", content).unwrap());
    store.settle();
    drop(store);
    let seal = |digest| seal_path(&home.path(), digest);
    let borrowed = fs::read(seal(&bad.digest)).unwrap();
    overwrite(&blob_path(&home.path(), &good.digest), b"evil");
    for content in [&b"{"[..], b"", b"null", &borrowed] {
        fs::write(seal(&good.digest), content).unwrap();
        assert!(matches!(home.open().map(&good), Err(Error::Damaged { .. })));
    }
}

#[test]
fn a_broken_name_file_harms_no_other_name() {
    let home = Home::new();
    let store = home.open();
    let node = ingest_model(&store, &[("a", b"A")]).remove(0);
    for tag in ["m:1", "m:2"] {
        store.tag(&name(tag), &node).unwrap();
    }
    let file = store.root().join("manifests/_local/m/_tags/1.json");
    let whole = fs::read_to_string(&file).unwrap();
    let moved = whole.replace("m:1", "m:9");
    for garbage in ["", &whole[..whole.len() / 2], "[]", "\u{0}", &moved] {
        fs::write(&file, garbage).unwrap();
        let error = store.resolve(&name("m:1")).unwrap_err();
        assert!(error.to_string().contains("_tags/1.json"), "{error}");
        assert_eq!(store.resolve(&name("m:2")).unwrap(), node);
        let listing = store.list().unwrap();
        assert_eq!((listing.names.len(), listing.problems.len()), (1, 1));
        let findings = store.verify(&[], &Quiet).unwrap();
        assert_eq!(findings[0].path, file, "{findings:?}");
        // What it needs is unknown, so the collector takes nothing away.
        assert!(store.gc(false).unwrap_err().to_string().contains("_tags/1.json"));
        store.tag(&name("m:3"), &node).unwrap();
        store.untag(&name("m:3")).unwrap();
    }
    fs::remove_file(&file).unwrap();
    symlink("/etc/passwd", &file).unwrap();
    assert!(matches!(store.resolve(&name("m:1")), Err(Error::NotAFile { .. })));
    store.tag(&name("m:1"), &node).unwrap();
    assert_eq!(store.resolve(&name("m:1")).unwrap(), node);
    assert!(store.list().unwrap().problems.is_empty());
}

#[test]
fn the_index_is_made_again_from_the_names() {
    let home = Home::new();
    let store = home.open();
    let node = ingest_model(&store, &[("a", b"A")]).remove(0);
    store.tag(&name("m:1"), &node).unwrap();
    let index = store.root().join("index.json");
    let sound = fs::read(&index).unwrap();
    for garbage in [&b""[..], b"{", b"\xff\xfe"] {
        fs::write(&index, garbage).unwrap();
        assert_eq!(home.open().resolve(&name("m:1")).unwrap(), node);
        assert_eq!(fs::read(&index).unwrap(), sound);
    }
    // A kill between a name and the index leaves the marker.
    fs::write(&index, Index::of(Vec::new()).to_bytes()).unwrap();
    fs::write(store.root().join("index.stale"), "").unwrap();
    home.open();
    assert_eq!(fs::read(&index).unwrap(), sound);
    assert!(!store.root().join("index.stale").exists());
}

#[tokio::test]
async fn folders_and_links_in_the_place_of_blobs_are_refused_by_path() {
    let home = Home::new();
    let store = home.open();
    let target = store.repository("m").unwrap();
    for (content, make) in [
        (&b"one"[..], (|path| fs::create_dir(path).unwrap()) as fn(&std::path::Path)),
        (b"two", |path| symlink("/dev/zero", path).unwrap()),
        (b"three", |path| symlink("absent", path).unwrap()),
    ] {
        let source = mlxctl_content::Memory::default();
        let blob = source.insert("a/b", content);
        let path = blob_path(store.root(), &blob.digest);
        make(&path);
        let place = path.to_str().unwrap();
        for error in [
            store.map(&blob).unwrap_err().to_string(),
            store.read(&blob, 9).unwrap_err().to_string(),
            store.ingest_bytes("a/b", content).unwrap_err().to_string(),
            target.exists(&blob).await.unwrap_err().to_string(),
            target.push(&blob, &source, &Quiet).await.unwrap_err().to_string(),
            target.fetch(&blob, 0..1).await.err().unwrap().to_string(),
        ] {
            assert!(error.contains(place), "{error}");
        }
        store.gc(false).unwrap();
        assert!(fs::symlink_metadata(&path).is_ok(), "the collector leaves strangers alone");
    }
    let names: Vec<Reference> = Vec::new();
    assert_eq!(store.verify(&names, &Quiet).unwrap(), []);
}
