//! What `build` promises: digests that depend on the recipe and the bytes alone, and refusals that name their reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use mlxctl_artifact::Digest;
use mlxctl_builder::{BuildOptions, Built, Error, Unwatched, build};
use mlxctl_store::Store;
use mlxctl_weights::{
    Checkpoint, Dtype, Layout, MatrixView, Mode, Quantization, SafetensorsWriter, TensorSpec, cast_tensor, quantize,
};

/// A folder with a small model of two shards and one odd tensor, its recipe, and a store.
struct Bench {
    folder: tempfile::TempDir,
}

const RECIPE: &str = "apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: tiny\nfrom: {path: ./model}\n";

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        fs::create_dir(&model).unwrap();
        fs::write(model.join("config.json"), r#"{"model_type":"llama","hidden_size":64,"tie_word_embeddings":true}"#)
            .unwrap();
        fs::write(model.join("tokenizer.json"), "{}").unwrap();
        fs::write(model.join("notes.txt"), "not part of the model").unwrap();
        fs::write(model.join(".hidden.json"), "{}").unwrap();
        write_weights(&model.join("model-00001-of-00002.safetensors"), &[("a.weight", &[4, 64]), ("n.weight", &[64])]);
        write_weights(
            &model.join("model-00002-of-00002.safetensors"),
            &[("b.weight", &[3, 96]), ("lm_head.weight", &[2, 64])],
        );
        Self { folder }
    }

    fn model(&self) -> std::path::PathBuf {
        self.folder.path().join("model")
    }

    fn build(&self, recipe: &str) -> Result<Built, Error> {
        let store = Store::open(&self.folder.path().join("store")).unwrap();
        self.build_into(&store, recipe)
    }

    fn build_into(&self, store: &Store, recipe: &str) -> Result<Built, Error> {
        let spec = mlxctl_modelspec::parse(recipe, "ModelSpec.yaml").unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        build(&spec, store, &BuildOptions { folder: self.folder.path(), threads, progress: &Unwatched })
    }

    fn digest(&self, recipe: &str) -> Digest {
        self.build(recipe).unwrap().manifest.digest
    }
}

/// Writes bf16 tensors whose values grow with their index.
fn write_weights(path: &Path, tensors: &[(&str, &[usize])]) {
    let specs = tensors.iter().map(|(name, shape)| TensorSpec {
        name: (*name).to_owned(),
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
    });
    let layout = Layout::new(specs.collect(), &BTreeMap::new()).unwrap();
    let order = layout.tensors().to_vec();
    let mut writer = SafetensorsWriter::new(layout, Vec::new()).unwrap();
    for tensor in order {
        let count: usize = tensor.shape.iter().product();
        let bytes: Vec<u8> = (0..count).flat_map(|i| (0x3C00 + (i * 7 % 512) as u16).to_le_bytes()).collect();
        writer.write(&tensor.name, &bytes).unwrap();
    }
    fs::write(path, writer.finish().unwrap()).unwrap();
}

fn paths(built: &Built) -> Vec<&str> {
    built.layers.iter().map(|layer| layer.path.as_str()).collect()
}

#[test]
fn the_digest_depends_on_recipe_and_bytes_alone() {
    let (one, two) = (Bench::new(), Bench::new());
    for entry in fs::read_dir(two.model()).unwrap() {
        let path = entry.unwrap().path();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).unwrap();
    }
    let quantized = format!("{RECIPE}quantize: {{bits: 4}}\n");
    for recipe in [RECIPE, &quantized] {
        assert_eq!(one.digest(recipe), two.digest(recipe));
        assert_eq!(one.digest(recipe), one.digest(recipe));
    }
    assert_ne!(one.digest(RECIPE), one.digest(&quantized));
}

#[test]
fn one_byte_of_a_weight_changes_the_digest() {
    let bench = Bench::new();
    let before = bench.digest(RECIPE);
    let path = bench.model().join("model-00002-of-00002.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_ne!(bench.digest(RECIPE), before);
}

#[test]
fn kept_weights_travel_as_they_are_with_what_belongs_to_them() {
    let bench = Bench::new();
    let built = bench.build(RECIPE).unwrap();
    assert_eq!(
        paths(&built),
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "config.json",
            "modelspec.json",
            "tokenizer.json"
        ]
    );
    let bytes = fs::read(bench.model().join("model-00001-of-00002.safetensors")).unwrap();
    assert_eq!(built.layers[0].descriptor.digest, Digest::sha256_of(&bytes));
}

#[test]
fn quantising_keeps_what_it_cannot_quantise_and_says_so_in_the_configuration() {
    let bench = Bench::new();
    let store = Store::open(&bench.folder.path().join("store")).unwrap();
    let recipe = format!(
        "{RECIPE}dtype: f32\nquantize: {{bits: 4, overrides: [{{match: a, bits: 8}}]}}\ntemplate: {{catalog: chatml}}\ndocs: [GUIDE.md]\n"
    );
    fs::write(bench.folder.path().join("GUIDE.md"), "# Guide").unwrap();
    let built = bench.build_into(&store, &recipe).unwrap();
    assert_eq!(
        paths(&built),
        ["model.safetensors", "chat_template.jinja", "config.json", "modelspec.json", "tokenizer.json", "GUIDE.md"]
    );
    let weights = store.map(&built.layers[0].descriptor).unwrap();
    let checkpoint = Checkpoint::from_files(vec![("model.safetensors".to_owned(), weights)]).unwrap();
    // Rows of 96 do not divide by 64; the tied head is left out; vectors stay.
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.biases", "a.scales", "a.weight", "b.weight", "n.weight"]);
    assert_eq!(checkpoint.get("a.weight").unwrap().shape, [4, 16]);
    assert_eq!(checkpoint.get("a.scales").unwrap().dtype, Dtype::F32);
    assert_eq!(checkpoint.get("n.weight").unwrap().dtype, Dtype::F32);
    let config: serde_json::Value =
        serde_json::from_slice(&store.read(&built.layers[2].descriptor, 1 << 20).unwrap()).unwrap();
    assert_eq!(config["quantization"]["bits"], 4);
    assert_eq!(config["quantization"]["a"]["bits"], 8);
    assert_eq!(config["quantization_config"], config["quantization"]);
    assert_eq!(config["torch_dtype"], "float32");
    let quantized = bench.folder.path().join("again");
    fs::create_dir(&quantized).unwrap();
    for layer in &built.layers[..3] {
        let bytes = store.read(&layer.descriptor, 1 << 20).unwrap();
        fs::write(quantized.join(layer.path.as_str()), bytes).unwrap();
    }
    let recipe = recipe.replace("./model", "./again");
    let refused = bench.build_into(&store, &recipe).unwrap_err();
    assert!(refused.is_recipes_fault() && refused.to_string().contains("quantised already"), "{refused}");
}

/// The weights of an artifact, by the paths of their files.
fn checkpoint(store: &Store, built: &Built) -> (Vec<String>, Checkpoint) {
    let weights = built.layers.iter().filter(|layer| layer.path.as_str().ends_with(".safetensors"));
    let files: Vec<_> = weights.map(|layer| (layer.path.to_string(), store.map(&layer.descriptor).unwrap())).collect();
    (files.iter().map(|(path, _)| path.clone()).collect(), Checkpoint::from_files(files).unwrap())
}

#[test]
fn the_number_of_threads_and_the_size_of_pieces_leave_no_trace() {
    // Several pieces of an embedding whose scales are no whole cache lines, so that they lie apart from its codes.
    let bench = Bench::new();
    let shapes: &[(&str, &[usize])] =
        &[("embed.weight", &[12_345, 192]), ("n.weight", &[64]), ("z.weight", &[640, 64])];
    write_weights(&bench.model().join("model-00002-of-00002.safetensors"), shapes);
    let store = Store::open(&bench.folder.path().join("store")).unwrap();
    fs::remove_file(bench.model().join("model-00001-of-00002.safetensors")).unwrap();
    for mode in ["affine", "mxfp8", "nvfp4"] {
        let recipe = format!("{RECIPE}dtype: f16\nquantize: {{mode: {mode}}}\n");
        let spec = mlxctl_modelspec::parse(&recipe, "ModelSpec.yaml").unwrap();
        let built = [1, 2, 7].map(|threads| {
            let threads = NonZeroUsize::new(threads).unwrap();
            build(&spec, &store, &BuildOptions { folder: bench.folder.path(), threads, progress: &Unwatched }).unwrap()
        });
        assert_eq!(built[0].manifest, built[1].manifest);
        assert_eq!(built[0].manifest, built[2].manifest);
        let (_, made) = checkpoint(&store, &built[0]);
        let bytes = fs::read(bench.model().join("model-00002-of-00002.safetensors")).unwrap();
        let source = Checkpoint::from_files(vec![("source".to_owned(), bytes.into())]).unwrap();
        for (name, rows, columns) in [("embed", 12_345, 192), ("z", 640, 64)] {
            let plain = cast_tensor(source.get(&format!("{name}.weight")).unwrap(), Dtype::F16).unwrap();
            let format = spec.quantize.as_ref().unwrap().scheme();
            let mode = Mode::from_name(format.mode.name()).unwrap();
            let format = Quantization::new(mode, format.bits.into(), format.group_size).unwrap();
            let matrix = MatrixView { rows, columns, dtype: Dtype::F16, data: &plain.data };
            let whole = quantize(matrix, format, 1).unwrap();
            for (part, bytes) in [("weight", whole.weight), ("scales", whole.scales), ("biases", whole.biases)] {
                let ours = made.get(&format!("{name}.{part}"));
                assert!(ours.map_or(&[][..], |tensor| &tensor.data) == bytes, "{name}.{part}");
            }
        }
    }
}

#[test]
fn weights_are_cut_into_files_of_a_chosen_size() {
    let bench = Bench::new();
    let shapes: &[(&str, &[usize])] =
        &[("b.weight", &[4000, 64]), ("c.weight", &[4000, 64]), ("d.weight", &[9000, 64])];
    write_weights(&bench.model().join("model-00002-of-00002.safetensors"), shapes);
    let store = Store::open(&bench.folder.path().join("store")).unwrap();
    let built = bench.build_into(&store, &format!("{RECIPE}shard_size: 1.2MB\n")).unwrap();
    let (files, made) = checkpoint(&store, &built);
    assert_eq!(files, (1..=2).map(|n| format!("model-0000{n}-of-00002.safetensors")).collect::<Vec<_>>());
    assert_eq!(made.names().collect::<Vec<_>>(), ["a.weight", "b.weight", "c.weight", "d.weight", "n.weight"]);
    let (_, before) = checkpoint(&store, &bench.build_into(&store, RECIPE).unwrap());
    for (name, tensor) in made.iter() {
        assert_eq!(Some(&tensor.data), before.get(name).map(|tensor| &tensor.data), "{name}");
    }
    let index = built.layers.iter().find(|layer| layer.path.as_str() == "model.safetensors.index.json").unwrap();
    let index: serde_json::Value = serde_json::from_slice(&store.read(&index.descriptor, 1 << 20).unwrap()).unwrap();
    assert_eq!(index["weight_map"]["d.weight"], "model-00002-of-00002.safetensors");
}

#[test]
fn a_source_that_cannot_be_packed_names_its_reason() {
    let bench = Bench::new();
    let check = |recipe: &str, text: &str, is_recipes_fault: bool| {
        let error = bench.build(recipe).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.is_recipes_fault(), is_recipes_fault, "{error}");
    };
    check(&RECIPE.replace("./model", "./nowhere"), "nowhere", true);
    check(&format!("{RECIPE}docs: [absent.md]\n"), "absent.md", true);
    check(&format!("{RECIPE}quantize: {{recipe: mixed_4_6}}\n"), "the model has none", true);
    check(&format!("{RECIPE}adapters: [{{name: a, path: ./lora}}]\n"), "lora", true);
    check(&RECIPE.replace("{path: ./model}", "{hf: org/model}"), "from.hf", true);
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        fs::rename(bench.model().join(shard), bench.folder.path().join(shard)).unwrap();
    }
    check(RECIPE, "no *.safetensors file", false);
    fs::write(bench.model().join("pytorch_model.bin"), "pickled").unwrap();
    check(RECIPE, "pickled", false);
    fs::write(bench.model().join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap();
    check(RECIPE, "model.safetensors", false);
}

#[test]
fn adapters_that_cannot_be_merged_name_their_reason() {
    let bench = Bench::new();
    let adapter = bench.folder.path().join("lora");
    fs::create_dir(&adapter).unwrap();
    let recipe = format!("{RECIPE}adapters: [{{name: sql, path: ./lora, merge: true}}]\n");
    let check = |config: &str, tensors: &[(&str, &[usize])], text: &str, is_recipes_fault: bool| {
        fs::write(adapter.join("adapter_config.json"), config).unwrap();
        write_weights(&adapter.join("adapters.safetensors"), tensors);
        let error = bench.build(&recipe).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.is_recipes_fault(), is_recipes_fault, "{error}");
    };
    let lora = r#"{"fine_tune_type":"lora","lora_parameters":{"rank":2,"scale":2.0}}"#;
    check(r#"{"fine_tune_type":"dora","lora_parameters":{"scale":2.0}}"#, &[], "fine_tune_type \"dora\"", true);
    check(r#"{"fine_tune_type":"full"}"#, &[], "fine_tune_type \"full\"", true);
    check(r#"{"lora_parameters":{"alpha":2.0}}"#, &[], "expected a number at lora_parameters.scale", false);
    check("[", &[], "adapter_config.json", false);
    check(lora, &[], "no tensors", false);
    check(lora, &[("a.m", &[4])], "`a.m` is neither a lora_a nor a lora_b", false);
    check(lora, &[("a.lora_a", &[64, 2])], "`a` has lora_a and no lora_b", false);
    check(lora, &[("q.lora_a", &[64, 2]), ("q.lora_b", &[2, 4])], "changes `q`, and the model has no", false);
    check(lora, &[("a.lora_a", &[64, 2]), ("a.lora_b", &[3, 4])], "do not fit a weight [4, 64]", false);
    check(lora, &[("a.lora_a", &[64, 2]), ("a.lora_b", &[2, 5])], "do not fit a weight [4, 64]", false);
    fs::rename(adapter.join("adapters.safetensors"), adapter.join("adapter_model.safetensors")).unwrap();
    assert!(bench.build(&recipe).unwrap_err().to_string().contains("PEFT"));
    let elsewhere = recipe.replace("path: ./lora", "hf: org/lora");
    assert!(bench.build(&elsewhere).unwrap_err().to_string().contains("no directory is not supported yet"));
}
