//! What `build` makes of a model equals what mlx-lm 0.32.2 makes of it: names, types, shapes, bytes, configuration.
//! mlx-lm runs here, in one Python for all cases, so that models can be as large as the cases need.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mlxctl_artifact::canonical_json;
use mlxctl_builder::{BuildOptions, Unwatched, build};
use mlxctl_store::Store;
use mlxctl_testkit::models::TinyModel;
use mlxctl_testkit::programs::{python, workspace};
use mlxctl_weights::{Checkpoint, Dtype, cast};
use serde_json::{Value, json};

/// A folder with the models, what mlx-lm makes of them, and a store.
struct Bench {
    folder: tempfile::TempDir,
    python: PathBuf,
}

impl Bench {
    /// `None` where there is no Python to compare with.
    fn new() -> Option<Self> {
        Some(Self { python: python()?, folder: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a random Llama of ten layers into the folder, with an untied head and Pebble's tokenizer.
    fn add_llama(&self, name: &str, dtype: Dtype) {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "num_hidden_layers": 10,
            "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "rms_norm_eps": 1e-5, "vocab_size": 100, "rope_theta": 1e4, "max_position_embeddings": 512,
            "tie_word_embeddings": false, "_name_or_path": "somewhere", "eos_token_id": 2,
        });
        let model = TinyModel { files: 2, ..TinyModel::new(config, dtype, 5) };
        fs::create_dir(self.path(name)).unwrap();
        fs::write(self.path(name).join("config.json"), model.config_json()).unwrap();
        fs::write(self.path(name).join("generation_config.json"), r#"{"eos_token_id": [2, 3]}"#).unwrap();
        for (file, bytes) in model.weight_files() {
            fs::write(self.path(name).join(file), bytes).unwrap();
        }
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(pebble().join(file), self.path(name).join(file)).unwrap();
        }
    }

    /// Has mlx-lm do the steps that `mlx_lm/reference.py` knows.
    fn run(&self, steps: &[Value]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlx_lm/reference.py");
        let mut command = Command::new(&self.python);
        command.arg(script).current_dir(self.folder.path()).env("HF_HUB_OFFLINE", "1").env("CUDA_VISIBLE_DEVICES", "");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python can be started");
        child.stdin.take().unwrap().write_all(Value::from(steps).to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Builds a recipe of `source` and gives its weights and config.json.
    fn build(&self, source: &str, more: &str) -> (Checkpoint, Value) {
        let recipe =
            format!("apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: m\nfrom: {{path: {source}}}\n{more}");
        let spec = mlxctl_modelspec::parse(&recipe, "ModelSpec.yaml").unwrap();
        let store = Store::open(&self.path("store")).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let options = BuildOptions { folder: self.folder.path(), threads, progress: &Unwatched };
        let built = build(&spec, &store, &options).unwrap();
        let mut config = Value::Null;
        let mut files = Vec::new();
        for layer in &built.layers {
            let bytes = store.map(&layer.descriptor).unwrap();
            match layer.path.as_str() {
                "config.json" => config = serde_json::from_slice(&bytes).unwrap(),
                path if path.ends_with(".safetensors") => files.push((path.to_owned(), bytes)),
                _ => {}
            }
        }
        (Checkpoint::from_files(files).unwrap(), config)
    }

    /// The weights and config.json of a folder that mlx-lm wrote.
    fn read(&self, name: &str) -> (Checkpoint, Value) {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path(name)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "safetensors") {
                files.push((path.display().to_string(), fs::read(&path).unwrap().into()));
            }
        }
        let config = serde_json::from_slice(&fs::read(self.path(name).join("config.json")).unwrap()).unwrap();
        (Checkpoint::from_files(files).unwrap(), config)
    }
}

fn pebble() -> PathBuf {
    workspace().join("modelspecs/pebble/weights")
}

#[test]
fn converted_models_equal_those_of_mlx_lm() {
    let Some(bench) = Bench::new() else { return };
    bench.add_llama("llama", Dtype::F32);
    bench.add_llama("half", Dtype::F16);
    let pebble = pebble().display().to_string();
    let cases = [
        (&*pebble, "quantize: {bits: 4}", json!({"quantize": true, "q_bits": 4})),
        (&*pebble, "quantize: {bits: 8, group_size: 32}", json!({"quantize": true, "q_bits": 8, "q_group_size": 32})),
        (&*pebble, "quantize: {mode: mxfp4}", json!({"quantize": true, "q_mode": "mxfp4"})),
        (
            &*pebble,
            "quantize: {recipe: mixed_2_6}",
            json!({"quantize": true, "quant_predicate": "mixed_2_6", "q_group_size": 64}),
        ),
        ("llama", "quantize: {mode: nvfp4}", json!({"quantize": true, "q_mode": "nvfp4"})),
        (
            "llama",
            "quantize: {recipe: mixed_4_6, group_size: 32}",
            json!({"quantize": true, "quant_predicate": "mixed_4_6", "q_group_size": 32}),
        ),
        ("llama", "dtype: bf16\nquantize: {bits: 3}", json!({"quantize": true, "q_bits": 3, "dtype": "bfloat16"})),
        ("half", "dtype: bf16", json!({"dtype": "bfloat16"})),
        ("half", "quantize: {mode: mxfp8}", json!({"quantize": true, "q_mode": "mxfp8"})),
        (
            "half",
            "quantize: {recipe: mixed_3_4}",
            json!({"quantize": true, "quant_predicate": "mixed_3_4", "q_group_size": 64}),
        ),
    ];
    let target = |index: usize| format!("mlx-{index}");
    let steps: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(index, (source, _, options))| json!({"convert": source, "to": target(index), "options": options}))
        .collect();
    bench.run(&steps);
    for (index, (source, recipe, _)) in cases.iter().enumerate() {
        let (expected, expected_config) = bench.read(&target(index));
        let (ours, mut config) = bench.build(source, recipe);
        assert_eq!(ours.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>(), "{recipe}");
        for (name, tensor) in expected.iter() {
            let ours = ours.get(name).unwrap();
            assert_eq!((ours.dtype, &ours.shape), (tensor.dtype, &tensor.shape), "{recipe}: {name}");
            assert!(ours.data == tensor.data, "{recipe}: {name}");
        }
        // mlx-lm leaves the type of the source there when it casts.
        let fields = config.as_object_mut().unwrap();
        if recipe.contains("dtype") {
            assert_eq!(fields.remove("torch_dtype"), Some(json!("bfloat16")));
        }
        // Canonical, 10000.0 and 10000 are one number.
        let text = |value: &Value| String::from_utf8(canonical_json(value).unwrap()).unwrap();
        assert_eq!(text(&config), text(&expected_config), "{recipe}");
    }
}

#[test]
fn merged_adapters_equal_those_of_mlx_lm() {
    let Some(bench) = Bench::new() else { return };
    bench.add_llama("llama", Dtype::F32);
    bench.add_llama("half", Dtype::BF16);
    let keys = ["self_attn.q_proj", "mlp.down_proj", "model.embed_tokens"];
    let mut steps = Vec::new();
    for source in ["llama", "half"] {
        let (adapter, target) = (format!("{source}-lora"), format!("{source}-fused"));
        steps.push(json!({"adapter": source, "to": adapter, "keys": keys}));
        steps.push(json!({"fuse": source, "adapter": adapter, "to": target}));
    }
    // What is merged is quantised afterwards.
    steps.push(json!({"convert": "half-fused", "to": "half-quantized", "options": {"quantize": true, "q_bits": 4}}));
    bench.run(&steps);
    for source in ["llama", "half"] {
        let recipe = format!("adapters: [{{name: a, path: ./{source}-lora, merge: true}}]\n");
        let ((ours, _), (before, _), (expected, _)) =
            (bench.build(source, &recipe), bench.read(source), bench.read(&format!("{source}-fused")));
        assert_eq!(ours.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
        let (mut changed, mut count, mut different) = (0, 0, 0);
        for (name, tensor) in expected.iter() {
            let mine = ours.get(name).unwrap();
            assert_eq!((mine.dtype, &mine.shape), (tensor.dtype, &tensor.shape), "{name}");
            let is_touched = keys.iter().any(|key| name.contains(key));
            assert_eq!(mine.data == before.get(name).unwrap().data, !is_touched, "{name}");
            if !is_touched {
                continue;
            }
            changed += 1;
            let wide = |data: &[u8]| cast(tensor.dtype, Dtype::F32, data).unwrap();
            let (mine, theirs) = (wide(&mine.data), wide(&tensor.data));
            for (a, b) in mine.as_chunks::<4>().0.iter().zip(theirs.as_chunks::<4>().0) {
                let (a, b) = (f32::from_le_bytes(*a), f32::from_le_bytes(*b));
                count += 1;
                different += usize::from(a != b);
                // The order of a sum of four products is free: 2^-22 of its terms, then one last digit of the type.
                let digit = if tensor.dtype == Dtype::BF16 { 2.0_f32.powi(-7) } else { 2.0_f32.powi(-22) };
                assert!((a - b).abs() <= digit * a.abs().max(0.5), "{name}: {a} and {b}");
            }
        }
        assert_eq!(changed, 21);
        if source == "half" {
            assert!(different * 1000 < count, "{different} of {count} weights differ in their last digit");
        }
    }
    let recipe = "adapters: [{name: a, path: ./half-lora, merge: true}]\nquantize: {bits: 4}\n";
    let ((ours, _), (expected, _)) = (bench.build("half", recipe), bench.read("half-quantized"));
    let same = expected.iter().filter(|(name, tensor)| ours.get(name).is_some_and(|ours| ours.data == tensor.data));
    let same = same.count();
    assert!(ours.len() == expected.len() && same * 10 >= expected.len() * 9, "{same} of {} are equal", expected.len());
}
