//! What recipes are built from: the hub, other artifacts, adapters and drafts; and that what belongs together travels
//! together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use mlxctl_testkit::hub::HubServer;
use mlxctl_testkit::models::TinyModel;
use mlxctl_testkit::programs::Home;
use mlxctl_tests::{PEBBLE, blobs, create_pebble, layer};

const HEAD: &str = "apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: tiny\nversion: 1.0.0\n";

/// A home, a recipe and a hub.
struct Bench {
    home: Home,
    folder: tempfile::TempDir,
    hub: HubServer,
}

impl Bench {
    fn new(rest: &str) -> Self {
        let bench = Self { home: Home::default(), folder: tempfile::tempdir().unwrap(), hub: HubServer::start() };
        fs::write(bench.recipe(), format!("{HEAD}{rest}")).unwrap();
        bench
    }

    fn recipe(&self) -> PathBuf {
        self.folder.path().join("ModelSpec.yaml")
    }

    fn lock(&self) -> PathBuf {
        self.folder.path().join("ModelSpec.lock")
    }

    fn commit(&self, seed: u64) -> String {
        let mut model = TinyModel::qwen3();
        model.seed = seed;
        let (config, weights) = (model.config_json(), model.weight_files().remove(0).1);
        let files: [(&str, &[u8], bool); 5] = [
            ("README.md", b"# Tiny", false),
            ("config.json", &config, false),
            ("model.safetensors", &weights, true),
            ("pytorch_model.bin", b"a pickle, which is never fetched", true),
            ("tokenizer.json", b"{}", false),
        ];
        self.hub.commit("org/tiny", "main", &files)
    }

    fn create(&self, arguments: &[&str]) -> Output {
        let recipe = self.recipe().display().to_string();
        let mut command = self.home.mlxctl(&[&["create", "--quiet", "-f", &recipe], arguments].concat());
        command.env("HF_ENDPOINT", &self.hub.endpoint).env("HF_HOME", self.folder.path().join("hf"));
        command.output().unwrap()
    }

    fn created(&self, arguments: &[&str]) -> String {
        let output = self.create(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        printed.split_once('@').unwrap().1.to_owned()
    }

    fn refused(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.create(arguments);
        assert!(!output.status.success());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_branch_of_the_hub_is_pinned_and_stays_until_it_is_updated() {
    let bench = Bench::new("from: {hf: org/tiny}\ndocs: [README.md]\n");
    let (code, said) = bench.refused(&["--locked"]);
    assert!(code == Some(2) && said.contains("org/tiny is not pinned"), "{said}");
    let first = bench.commit(1);
    let digest = bench.created(&[]);
    let lock: serde_json::Value = serde_json::from_str(&fs::read_to_string(bench.lock()).unwrap()).unwrap();
    let pinned = &lock["repositories"]["org/tiny"];
    assert_eq!(pinned["commit"], first);
    let files: Vec<&String> = pinned["files"].as_object().unwrap().keys().collect();
    assert_eq!(files, ["README.md", "config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(pinned["files"]["model.safetensors"]["sha256"], layer(&bench.home, "tiny:1.0.0", "model.safetensors"));
    assert!(!bench.hub.with(|state| state.seen.iter().any(|line| line.contains("pytorch_model"))));

    let second = bench.commit(2);
    assert_eq!(bench.created(&[]), digest, "the branch moved on, the pin did not");
    assert_eq!(bench.created(&["--locked"]), digest);
    assert_ne!(bench.created(&["--update"]), digest);
    assert!(fs::read_to_string(bench.lock()).unwrap().contains(&second));
}

#[test]
fn a_locked_build_needs_no_hub_once_its_files_are_here_and_refuses_drift() {
    let bench = Bench::new("from: {hf: org/tiny@main}\n");
    bench.commit(1);
    let digest = bench.created(&[]);
    let seen = bench.hub.with(|state| state.seen.len());
    assert_eq!(bench.created(&["--locked"]), digest);
    assert_eq!(bench.hub.with(|state| state.seen.len()), seen, "nothing was asked");

    let lock = fs::read_to_string(bench.lock()).unwrap();
    let weights = layer(&bench.home, "tiny:1.0.0", "model.safetensors");
    let other = format!("sha256:{}", "0".repeat(64));
    fs::write(bench.lock(), lock.replace(&weights, &other)).unwrap();
    let (code, said) = bench.refused(&["--locked"]);
    assert!(
        code == Some(2) && said.contains("model.safetensors of org/tiny@main is") && said.contains(&other),
        "{said}"
    );
    fs::write(bench.lock(), &lock).unwrap();
    fs::write(bench.recipe(), format!("{HEAD}from: {{hf: org/tiny@main}}\nfiles: {{exclude: [tokenizer.json]}}\n"))
        .unwrap();
    let (_, said) = bench.refused(&["--locked"]);
    assert!(said.contains("tokenizer.json of org/tiny@main is pinned"), "{said}");
    fs::write(bench.recipe(), format!("{HEAD}from: {{hf: org/other}}\n")).unwrap();
    let (_, said) = bench.refused(&["--locked"]);
    assert!(said.contains("org/other is not pinned"), "{said}");
    fs::write(bench.lock(), "rubbish").unwrap();
    let (code, said) = bench.refused(&[]);
    assert!(code == Some(2) && said.contains("ModelSpec.lock"), "{said}");
}

#[test]
fn an_artifact_of_a_registry_as_base_shares_its_layers() {
    let maker = Home::default();
    create_pebble(&maker);
    let registry = maker.registry(&[]);
    let base = format!("{}/pebble:1.0.0", registry.address());
    let bench = Bench::new(&format!("from: {{oci: '{base}'}}\nsystem: Be brief.\n"));
    let digest = bench.created(&[]);
    let weights = layer(&bench.home, "tiny:1.0.0", "model.safetensors");
    assert_eq!(weights, layer(&maker, PEBBLE, "model.safetensors"));
    assert!(fs::read_to_string(bench.lock()).unwrap().contains(&base));
    assert_eq!(bench.created(&["--locked"]), digest);
    let spec = bench.home.run(&["show", "tiny:1.0.0", "--spec"]);
    assert!(spec.contains("Be brief."), "{spec}");
    // Four documents of its own: recipe, configuration, manifest; everything else is the base's.
    let own = blobs(&bench.home.path().join("store")).len() - blobs(&maker.path().join("store")).len();
    assert_eq!(own, 3);
}

#[test]
fn a_draft_and_adapters_go_wherever_the_model_goes() {
    let bench =
        Bench::new("from: {hf: org/tiny}\ndraft: {oci: 'pebble:1.0.0'}\nadapters: [{name: sql, path: ./lora}]\n");
    bench.commit(1);
    let lora = bench.folder.path().join("lora");
    fs::create_dir(&lora).unwrap();
    let (_, tensor) = TinyModel::qwen3().tensors().swap_remove(1);
    fs::write(lora.join("adapters.safetensors"), mlxctl_testkit::models::file(&[("x.lora_a".to_owned(), tensor)]))
        .unwrap();
    fs::write(lora.join("adapter_config.json"), "{}").unwrap();
    let (code, said) = bench.refused(&[]);
    assert!(code == Some(2) && said.contains("pebble:1.0.0 is not in the store"), "{said}");
    let draft = create_pebble(&bench.home);
    bench.created(&[]);
    // The draft needs no name of its own.
    bench.home.run(&["rm", PEBBLE]);
    bench.home.run(&["gc"]);
    layer(&bench.home, "tiny:1.0.0", "adapters/sql/adapters.safetensors");
    let has_draft = |home: &Home| blobs(&home.path().join("store")).contains(&draft["sha256:".len()..].to_owned());
    assert!(has_draft(&bench.home));

    let server = Home::default();
    let registry = server.registry(&[]);
    let remote = format!("{}/org/tiny:1.0.0", registry.address());
    bench.home.run(&["push", "tiny:1.0.0", &remote]);
    let puller = Home::default();
    puller.run(&["pull", &remote, "--as", "tiny:1"]);
    assert!(has_draft(&puller));
    puller.run(&["gc"]);
    puller.run(&["verify"]);
    assert!(has_draft(&puller));

    let tar = bench.folder.path().join("tiny.tar").display().to_string();
    puller.run(&["pack", "tiny:1", "-o", &tar]);
    let importer = Home::default();
    importer.run(&["import", &tar]);
    assert_eq!(blobs(&importer.path().join("store")), blobs(&puller.path().join("store")));
    importer.run(&["rm", "tiny:1"]);
    importer.run(&["gc"]);
    assert_eq!(blobs(&importer.path().join("store")), Vec::<String>::new());
}

/// A layout with a KitOps ModelKit, built by hand as `kit` builds it.
fn model_kit(folder: &Path) {
    use mlxctl_artifact::{Descriptor, Index, Manifest};
    let blob = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        let place = folder.join("blobs/sha256");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(descriptor.digest.hex()), bytes).unwrap();
        descriptor
    };
    let model = TinyModel::qwen3();
    let files = [
        ("model/config.json", model.config_json().into()),
        ("model/model.safetensors", model.weight_files().remove(0).1),
    ];
    let mut tar: Vec<u8> = Vec::new();
    for (path, bytes) in files {
        let mut header = [0_u8; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(&bytes);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend([0; 1024]);
    let config = blob("application/vnd.kitops.modelkit.config.v1+json", br#"{"package":{"name":"kit"}}"#);
    let mut manifest = Manifest::of_model(config, &[], [].into());
    manifest.artifact_type = None;
    manifest.layers = vec![blob("application/vnd.kitops.modelkit.model.v1.tar", &tar)];
    let root = blob("application/vnd.oci.image.manifest.v1+json", &manifest.to_bytes());
    let root = root.with_annotation("org.opencontainers.image.ref.name", "latest");
    fs::write(folder.join("index.json"), Index::of(vec![root]).to_bytes()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn a_model_kit_is_taken_in_pulled_converted_and_built_upon() {
    let (home, folder) = (Home::default(), tempfile::tempdir().unwrap());
    model_kit(folder.path());
    let layout = folder.path().display().to_string();
    let (code, said) = home.fail(&["import", &layout]);
    assert!(code == 2 && said.contains("--name"), "{said}");
    let kit = home.run(&["import", "--quiet", &layout, "--name", "kit:1"]);
    let raw = home.run(&["convert", "--quiet", "kit:1", "raw:1"]);
    assert_ne!(kit.split_once('@').unwrap().1, raw.split_once('@').unwrap().1);
    let weights = layer(&home, "raw:1", "model.safetensors");
    // Pushed as it was made, and taken apart where it arrives, to the same bytes.
    let registry = home.registry(&[]);
    let remote = format!("{}/kit:1", registry.address());
    let puller = Home::default();
    assert_eq!(puller.run(&["pull", "--quiet", &remote]), kit.split_once('@').unwrap().1);
    assert!(puller.run(&["convert", "--quiet", &remote]).ends_with(raw.split_once('@').unwrap().1));
    assert!(blobs(&puller.path().join("store")).contains(&weights["sha256:".len()..].to_owned()));
    let bench = Bench::new(&format!("from: {{oci: '{remote}'}}\n"));
    bench.created(&[]);
    assert_eq!(layer(&bench.home, "tiny:1.0.0", "model.safetensors"), weights);
}
