//! Artifacts of other makers, built by hand as their tools build them, and what becomes of their archives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io::Write as _;

use mlxctl_artifact::{Descriptor, LayerKind, Manifest, ModelConfig, Packaging, media_type};
use mlxctl_layout::{Error, is_packed, unpack, unpacked, unpacked_from};
use mlxctl_store::Store;
use tar::EntryType::{Directory, Regular, Symlink};

fn member(kind: tar::EntryType, path: &str, size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        files.iter().flat_map(|(path, data)| member(Regular, path, data.len() as u64, data)).collect();
    bytes.extend([0; 1024]);
    bytes
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Bench {
    _folder: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self { _folder: folder, store }
    }

    /// A manifest with layers of these media types, paths and bytes.
    fn artifact(&self, config: (&str, &str), layers: &[(&str, Option<&str>, Vec<u8>)]) -> Descriptor {
        let config = self.store.ingest_bytes(config.0, config.1.as_bytes()).unwrap();
        let mut manifest = Manifest::of_model(config, &[], BTreeMap::new());
        for (media_type, path, bytes) in layers {
            let mut layer = self.store.ingest_bytes(media_type, bytes).unwrap();
            if let Some(path) = path {
                layer = layer.with_annotation(media_type::FILEPATH, *path);
            }
            manifest.layers.push(layer);
        }
        self.store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes()).unwrap()
    }

    fn unpack(&self, root: &Descriptor) -> Result<(Manifest, Vec<String>), Error> {
        let notices = std::sync::Mutex::new(Vec::new());
        let made = unpack(&self.store, root, &|notice| notices.lock().unwrap().push(notice.to_owned()))?;
        Ok((self.store.manifest(&made)?.1, notices.into_inner().unwrap()))
    }

    fn files(&self, manifest: &Manifest) -> Vec<(String, LayerKind, Vec<u8>)> {
        let layers = manifest.model_layers().unwrap().into_iter();
        layers
            .map(|layer| {
                let bytes = self.store.read(&layer.descriptor, 1 << 20).unwrap();
                (layer.path.to_string(), layer.role.kind, bytes.to_vec())
            })
            .collect()
    }
}

const KITFILE: &str = r#"{"manifestVersion":"1.0.0","package":{"name":"tiny","version":"2.0.0","authors":["Ada"],
    "license":"Apache-2.0"},"model":{"name":"tiny","path":"./model"},"docs":[{"path":"./README.md"}]}"#;
const KIT_CONFIG: &str = "application/vnd.kitops.modelkit.config.v1+json";

#[test]
fn a_model_kit_of_gzipped_archives_becomes_raw_files() {
    let bench = Bench::new();
    let model = [
        member(Directory, "model/", 0, b""),
        tarred(&[
            ("model/config.json", b"{}"),
            ("model/model.safetensors", b"weights"),
            ("model/pytorch_model.bin", b"pickle"),
        ]),
    ]
    .concat();
    let part = tarred(&[("model/tokenizer.json", b"{\"t\":1}")]);
    let docs = gzipped(&tarred(&[("README.md", b"# Tiny")]));
    let layers = [
        ("application/vnd.kitops.modelkit.model.v1.tar+gzip", None, gzipped(&model)),
        ("application/vnd.kitops.modelkit.modelpart.v1.tar", None, part),
        ("application/vnd.kitops.modelkit.docs.v1.tar+gzip", None, docs.clone()),
    ];
    let root = bench.artifact((KIT_CONFIG, KITFILE), &layers);
    let source = bench.store.manifest(&root).unwrap().1;
    assert!(is_packed(&source).unwrap());
    let (made, notices) = bench.unpack(&root).unwrap();
    let docs_path = format!("{}.tar.gz", Descriptor::of("", &docs).digest.short());
    let expected = [
        ("model.safetensors", LayerKind::Weight, &b"weights"[..]),
        ("config.json", LayerKind::WeightConfig, b"{}"),
        ("tokenizer.json", LayerKind::WeightConfig, b"{\"t\":1}"),
        (docs_path.as_str(), LayerKind::Doc, &docs),
    ];
    let found = bench.files(&made);
    assert_eq!(found, expected.map(|(path, kind, bytes)| (path.to_owned(), kind, bytes.to_vec())));
    assert!(notices.len() == 1 && notices[0].contains("pytorch_model.bin"), "{notices:?}");
    assert!(!is_packed(&made).unwrap());
    assert_eq!(made.artifact_type.as_deref(), Some(media_type::MODEL_MANIFEST));
    assert_eq!((made.subject.as_ref().unwrap().digest, unpacked_from(&made)), (root.digest, Some(root.digest)));
    let config = ModelConfig::parse(&bench.store.read(&made.config, 1 << 20).unwrap()).unwrap();
    assert_eq!(
        (config.descriptor.name.as_deref(), config.descriptor.version.as_deref()),
        (Some("tiny"), Some("2.0.0"))
    );
    assert_eq!((config.descriptor.licenses, config.modelfs.diff_ids.len()), (vec!["Apache-2.0".to_owned()], 4));
}

#[test]
fn model_packs_of_archives_and_raw_layers_become_raw_files_whatever_the_compression() {
    let bench = Bench::new();
    let weights = tarred(&[("model.safetensors", b"weights")]);
    let zstd = ruzstd::encoding::compress_to_vec(&weights[..], ruzstd::encoding::CompressionLevel::Fastest);
    let config = ("application/vnd.cncf.model.weight.config.v1.raw", Some("config.json"), b"{}".to_vec());
    let made =
        [("tar", weights.clone()), ("tar+gzip", gzipped(&weights)), ("tar+zstd", zstd)].map(|(ending, bytes)| {
            let media_type = format!("application/vnd.cncf.model.weight.v1.{ending}");
            let layers = [(media_type.as_str(), Some("model.safetensors"), bytes), config.clone()];
            let root = bench.artifact(
                (media_type::MODEL_CONFIG, r#"{"descriptor":{},"config":{},"modelfs":{"type":"layers","diffIds":[]}}"#),
                &layers,
            );
            bench.files(&bench.unpack(&root).unwrap().0)
        });
    assert_eq!(made[0].len(), 2);
    assert_eq!(made[0][0], ("model.safetensors".to_owned(), LayerKind::Weight, b"weights".to_vec()));
    assert!(made[1] == made[0] && made[2] == made[0]);
}

#[test]
fn dockers_packaging_is_raw_already() {
    let bench = Bench::new();
    let layers = [
        ("application/vnd.docker.ai.safetensors", Some("model.safetensors"), b"weights".to_vec()),
        ("application/vnd.docker.ai.model.file", Some("config.json"), b"{}".to_vec()),
        ("application/vnd.docker.ai.chat.template.jinja", None, b"{{ x }}".to_vec()),
        ("application/vnd.docker.ai.license", None, b"MIT".to_vec()),
    ];
    let root = bench.artifact(("application/vnd.docker.ai.model.config.v0.1+json", "{}"), &layers);
    let manifest = bench.store.manifest(&root).unwrap().1;
    assert!(!is_packed(&manifest).unwrap());
    let found: Vec<_> = bench.files(&manifest).into_iter().map(|(path, kind, _)| (path, kind)).collect();
    let expected = [
        ("model.safetensors", LayerKind::Weight),
        ("config.json", LayerKind::WeightConfig),
        ("chat_template.jinja", LayerKind::WeightConfig),
        ("LICENSE", LayerKind::Doc),
    ];
    assert_eq!(found, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert!(manifest.model_layers().unwrap().iter().all(|layer| layer.role.packaging == Packaging::Raw));
}

#[tokio::test]
async fn a_result_is_the_same_everywhere_is_found_again_and_goes_with_its_source() {
    let layers =
        [("application/vnd.kitops.modelkit.model.v1.tar", None, tarred(&[("a/model.safetensors", b"weights")]))];
    let (one, two) = (Bench::new(), Bench::new());
    let roots = [&one, &two].map(|bench| bench.artifact((KIT_CONFIG, KITFILE), &layers));
    let made = unpack(&one.store, &roots[0], &|_| ()).unwrap();
    assert_eq!(made, unpack(&two.store, &roots[1], &|_| ()).unwrap());
    let Bench { _folder: folder, store } = one;
    store.tag(&"kit:1".parse().unwrap(), &roots[0]).unwrap();
    drop(store);
    let store = Store::open(&folder.path().join("store")).unwrap();
    store.gc(false).unwrap();
    assert_eq!(unpacked(&store, &roots[0]).await.unwrap().map(|found| found.digest), Some(made.digest));
    assert_eq!(unpacked(&store, &made).await.unwrap(), None);
    store.untag(&"kit:1".parse().unwrap()).unwrap();
    store.gc(false).unwrap();
    assert!(!store.contains(&made.digest).unwrap());
}

#[test]
fn hostile_archives_are_refused_with_their_reason() {
    let bench = Bench::new();
    let gzip = "application/vnd.kitops.modelkit.model.v1.tar+gzip";
    let check = |layers: &[(&str, Option<&str>, Vec<u8>)], reason: &str| {
        let root = bench.artifact((KIT_CONFIG, KITFILE), layers);
        let error = bench.unpack(&root).unwrap_err().to_string();
        assert!(error.contains(reason), "expected {reason:?}: {error}");
    };
    let one = |bytes: Vec<u8>| [(gzip, None, gzipped(&bytes))];
    check(&one(member(Symlink, "model.safetensors", 0, b"")), "is a link");
    check(&one(member(Regular, "../../.ssh/authorized_keys", 1, b"x")), "leads out");
    check(&one(member(Regular, "/etc/cron.d/x", 1, b"x")), "absolute");
    check(&one(member(Regular, "model.safetensors", 1 << 40, b"")), "grows to more than 1073741824 bytes");
    check(&one(member(Regular, "model.safetensors", 100, b"short")[..600].to_vec()), "end of file");
    check(&one(tarred(&[("a.json", b"1"), ("a.json", b"1")])), "there twice");
    check(&[(gzip, None, b"not gzip at all".to_vec())], "gzip");
    check(&[("application/vnd.cncf.model.weight.v1.tar+zstd", None, b"not zstd".to_vec())], "zstd");
    check(&[(gzip, None, gzipped(&tarred(&[("model.safetensors", b"x")]))[..40].to_vec())], "");
    let differing = [("a.json", &b"1"[..]), ("a.json", b"2")].map(|file| (gzip, None, gzipped(&tarred(&[file]))));
    check(&differing, "two layers hold a.json");
}
