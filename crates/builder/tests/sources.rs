//! Where a build takes its parts from: another artifact, a folder of the hub, adapters, a draft.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::num::NonZeroUsize;

use mlxctl_artifact::{Descriptor, ModelConfig, ModelLayer, Reference, ResolvedSpec};
use mlxctl_builder::{BuildOptions, Built, Error, HubFolder, Materials, Needs, Unwatched, build_with, takes_hub_file};
use mlxctl_store::Store;
use mlxctl_testkit::models::{TinyModel, file};

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
}

const HEAD: &str = "apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: tiny\n";

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let model = folder.path().join("model");
        fs::create_dir(&model).unwrap();
        let tiny = TinyModel::qwen3();
        fs::write(model.join("config.json"), tiny.config_json()).unwrap();
        fs::write(model.join("tokenizer.json"), "{}").unwrap();
        for (name, bytes) in tiny.weight_files() {
            fs::write(model.join(name), bytes).unwrap();
        }
        Self { folder, store }
    }

    fn build(&self, rest: &str, materials: &Materials) -> Result<Built, Error> {
        let spec = mlxctl_modelspec::parse(&format!("{HEAD}{rest}"), "ModelSpec.yaml").unwrap();
        let options = BuildOptions { folder: self.folder.path(), threads: NonZeroUsize::MIN, progress: &Unwatched };
        build_with(&spec, materials, &self.store, &options)
    }

    fn base(&self) -> Built {
        let recipe = "from: {path: ./model}\nsystem: Be brief.\nlicenses: [MIT]\nparameters: {top_k: 3, temperature: 0.5}\n\
                      template: {catalog: chatml}\ncapabilities: [chat]\nadapters: [{name: sql, path: ./lora}]\n";
        self.adapter("lora");
        self.build(recipe, &Materials::default()).unwrap()
    }

    fn adapter(&self, name: &str) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let (_, tensor) = TinyModel::qwen3().tensors().swap_remove(1);
        fs::write(folder.join("adapters.safetensors"), file(&[(format!("{name}.lora_a"), tensor)])).unwrap();
        fs::write(folder.join("adapter_config.json"), "{}").unwrap();
        fs::write(folder.join("0000100_adapters.safetensors"), "an earlier step").unwrap();
    }

    fn spec(&self, built: &Built) -> ResolvedSpec {
        let layer = layer(built, "modelspec.json");
        ResolvedSpec::parse(&self.store.read(&layer.descriptor, 1 << 20).unwrap()).unwrap()
    }
}

fn layer<'a>(built: &'a Built, path: &str) -> &'a ModelLayer {
    built.layers.iter().find(|layer| layer.path.as_str() == path).unwrap_or_else(|| panic!("no {path}: {built:?}"))
}

fn artifacts(pairs: &[(&str, &Descriptor)]) -> Materials {
    let artifacts = pairs.iter().map(|(name, node)| (name.parse::<Reference>().unwrap(), (*node).clone()));
    Materials { artifacts: artifacts.collect(), ..Materials::default() }
}

#[test]
fn an_artifact_as_base_gives_its_layers_by_digest_and_what_the_recipe_leaves_unsaid() {
    let bench = Bench::new();
    let base = bench.base();
    let materials = artifacts(&[("base:1", &base.manifest)]);
    let recipe = "from: {oci: 'base:1'}\nparameters: {top_k: 9}\ntemplate: {inline: '{{ messages }}'}\n";
    let built = bench.build(recipe, &materials).unwrap();
    for path in ["model.safetensors", "config.json", "tokenizer.json", "adapters/sql/adapters.safetensors"] {
        assert_eq!(layer(&built, path), layer(&base, path));
    }
    for path in ["chat_template.jinja", "modelspec.json"] {
        assert_ne!(layer(&built, path).descriptor.digest, layer(&base, path).descriptor.digest, "{path}");
    }
    let spec = bench.spec(&built);
    assert_eq!(spec.system.as_deref(), Some("Be brief."));
    assert_eq!((spec.parameters.top_k, spec.parameters.temperature), (Some(9), Some(0.5)));
    assert_eq!((spec.capabilities, spec.adapters.len()), (vec!["chat".to_owned()], 1));
    let (_, manifest) = bench.store.manifest(&built.manifest).unwrap();
    let config = ModelConfig::parse(&bench.store.read(&manifest.config, 1 << 20).unwrap()).unwrap();
    assert_eq!(config.descriptor.licenses, ["MIT"]);
}

#[test]
fn a_base_can_be_quantised() {
    let bench = Bench::new();
    let materials = artifacts(&[("base:1", &bench.base().manifest)]);
    let built = bench.build("from: {oci: 'base:1'}\nquantize: {bits: 4, group_size: 32}\n", &materials).unwrap();
    let direct = bench.build("from: {path: ./model}\nquantize: {bits: 4, group_size: 32}\n", &Materials::default());
    let direct = direct.unwrap();
    for path in ["model.safetensors", "config.json"] {
        assert_eq!(layer(&built, path), layer(&direct, path));
    }
}

#[test]
fn adapters_are_packed_and_pinned_by_their_weights() {
    let bench = Bench::new();
    let built = bench.base();
    let weights = layer(&built, "adapters/sql/adapters.safetensors");
    layer(&built, "adapters/sql/adapter_config.json");
    assert!(!built.layers.iter().any(|layer| layer.path.as_str().contains("0000100")));
    let pinned = bench.spec(&built).adapters;
    assert_eq!((pinned[0].name.as_str(), pinned[0].digest), ("sql", weights.descriptor.digest));
    assert_eq!(layer(&built, "model.safetensors").descriptor.size, {
        let plain = bench.build("from: {path: ./model}\n", &Materials::default()).unwrap();
        layer(&plain, "model.safetensors").descriptor.size
    });
    let (damaged, pickled) = (bench.folder.path().join("damaged"), bench.folder.path().join("pickled"));
    for folder in [&damaged, &pickled] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(damaged.join("adapters.safetensors"), "rubbish").unwrap();
    fs::write(pickled.join("adapter_model.bin"), "pickle").unwrap();
    for (name, reason) in [("damaged", "adapters/a/adapters.safetensors"), ("pickled", "can run any code")] {
        let recipe = format!("from: {{path: ./model}}\nadapters: [{{name: a, path: ./{name}}}]\n");
        let error = bench.build(&recipe, &Materials::default()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn drafts_and_adapters_of_other_artifacts_are_pinned_and_referred_to() {
    let bench = Bench::new();
    let base = bench.base();
    let draft = bench.build("from: {path: ./model}\nversion: '2'\n", &Materials::default()).unwrap();
    let materials = artifacts(&[("ghcr.io/org/draft:1", &draft.manifest), ("lora:1", &base.manifest)]);
    let recipe = "from: {path: ./model}\ndraft: {oci: 'ghcr.io/org/draft:1'}\nadapters: [{name: a, oci: 'lora:1'}]\n";
    let built = bench.build(recipe, &materials).unwrap();
    let spec = bench.spec(&built);
    let pinned = spec.draft.unwrap();
    assert_eq!(pinned.digest, draft.manifest.digest);
    assert_eq!(pinned.reference.to_string(), format!("ghcr.io/org/draft:1@{}", draft.manifest.digest));
    assert_eq!(spec.adapters[0].digest, base.manifest.digest);
    let (_, manifest) = bench.store.manifest(&built.manifest).unwrap();
    let mut referred: Vec<_> = manifest.references().unwrap().into_iter().map(|node| node.digest).collect();
    let mut expected = vec![draft.manifest.digest, base.manifest.digest];
    referred.sort();
    expected.sort();
    assert_eq!(referred, expected);
    // What is built upon it keeps both.
    let upon = bench.build("from: {oci: 'm:1'}\n", &artifacts(&[("m:1", &built.manifest)])).unwrap();
    assert_eq!(bench.store.manifest(&upon.manifest).unwrap().1.references().unwrap().len(), 2);
    assert_eq!(bench.spec(&upon).draft.unwrap().digest, draft.manifest.digest);
}

#[test]
fn a_hub_repository_gives_the_files_that_were_fetched_and_no_others() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("model/pytorch_model.bin"), "pickle").unwrap();
    fs::write(bench.folder.path().join("model/stray.json"), "{}").unwrap();
    let files = ["config.json", "model.safetensors", "pytorch_model.bin"].map(str::to_owned).to_vec();
    let brought = HubFolder { folder: bench.folder.path().join("model"), files, commit: "c".repeat(40) };
    let materials = Materials { repositories: [("org/tiny@main".to_owned(), brought)].into(), ..Materials::default() };
    let built = bench.build("from: {hf: org/tiny@main}\n", &materials).unwrap();
    let paths: Vec<_> = built.layers.iter().map(|layer| layer.path.as_str()).collect();
    assert_eq!(paths, ["model.safetensors", "config.json", "modelspec.json"]);
    let spec =
        mlxctl_modelspec::parse(&format!("{HEAD}from: {{hf: org/tiny@main}}\ndocs: [README.md]\n"), "x").unwrap();
    let repository = Needs::of(&spec).repositories.remove(0);
    for (path, takes) in [
        ("model.safetensors", true),
        ("config.json", true),
        ("README.md", true),
        ("pytorch_model.bin", false),
        ("onnx/model.onnx", false),
    ] {
        assert_eq!(takes_hub_file(&spec, &repository, path), takes, "{path}");
    }
}

#[test]
fn what_was_not_brought_is_named() {
    let bench = Bench::new();
    for (recipe, named) in [
        ("from: {hf: org/tiny@main}\n", "from.hf: org/tiny@main"),
        ("from: {oci: 'ghcr.io/org/base:1'}\n", "from.oci: ghcr.io/org/base:1"),
        ("from: {path: ./model}\ndraft: {oci: 'd:1'}\n", "draft: d:1"),
    ] {
        let error = bench.build(recipe, &Materials::default()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}
