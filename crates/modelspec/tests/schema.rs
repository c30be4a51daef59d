//! The JSON Schema, and that it says what the parser says.

use std::path::Path;

use mlxctl_modelspec::{json_schema, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

const SOUND: &[&str] = &[
    "{}",
    r#"{"version": 1.0, "labels": {"a": true, "b": 7, "c": ""}, "description": "x\ny"}"#,
    r#"{"name": "org/a__b--c.d", "from": {"hf": "org/M.x_y-1@refs/pr/1"}}"#,
    r#"{"from": {"oci": "localhost:5000/base:1"}, "docs": ["./README.md", "a/b.md"]}"#,
    r#"{"parameters": {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0.5, "max_tokens": 512.0, "stop": ["\n", 7], "context_length": 1, "seed": 9007199254740991, "repetition_penalty": 1.1}}"#,
    r#"{"quantize": {}}"#,
    r#"{"quantize": {"mode": "mxfp4", "bits": 4, "group_size": 32, "overrides": [{"match": "*.gate", "skip": true}, {"match": "a", "mode": "affine", "bits": 8}]}}"#,
    r#"{"quantize": {"recipe": "mixed_3_6", "group_size": 32}, "shard_size": "1.5 GB"}"#,
    r#"{"adapters": [{"name": "a", "path": "x", "merge": true}], "shard_size": "5GiB"}"#,
    r#"{"quantize": {"bits": 3, "group_size": 128, "overrides": [{"match": "a", "bits": 8, "skip": false}]}}"#,
    r#"{"dtype": "f16", "capabilities": ["chat", "vision"], "template": {"inline": "{{ x }}"}, "tokenizer": {"path": ".."}}"#,
    r#"{"adapters": [{"name": "a", "hf": "x"}, {"name": "b", "path": "/abs"}], "draft": {"oci": "m:1"}}"#,
    r#"{"tests": [{"prompt": "x", "expect": {"equals": 42}}, {"prompt": 1, "expect": {"tokens": [0, 4294967295]}}]}"#,
    r#"{"files": {"include": ["*.safetensors", "**/a"], "exclude": []}, "url": "https://example.com", "licenses": ["MIT OR Apache-2.0"]}"#,
];

/// Each is wrong by itself, once `name`, `from` and the heads are there; `null` takes a key away.
const WRONG: &[&str] = &[
    r#"{"apiVersion": "v1"}"#,
    r#"{"apiVersion": null}"#,
    r#"{"kind": "Model"}"#,
    r#"{"kind": null}"#,
    r#"{"name": null}"#,
    r#"{"name": "Upper"}"#,
    r#"{"name": "a//b"}"#,
    r#"{"name": "a:1"}"#,
    r#"{"version": "1.0+x"}"#,
    r#"{"version": ""}"#,
    r#"{"version": ["1"]}"#,
    r#"{"from": null}"#,
    r#"{"from": {}}"#,
    r#"{"from": {"path": "."  , "hf": "a/b"}}"#,
    r#"{"from": {"path": ""}}"#,
    r#"{"from": {"hf": "a/b/c"}}"#,
    r#"{"from": {"hf": "a b"}}"#,
    r#"{"from": {"oci": "a b"}}"#,
    r#"{"from": {"url": "x"}}"#,
    r#"{"unknown": 1}"#,
    r#"{"system": ""}"#,
    r#"{"system": []}"#,
    r#"{"authors": "Ada"}"#,
    r#"{"licenses": [7]}"#,
    r#"{"url": "ftp://x"}"#,
    r#"{"labels": {"a": {}}}"#,
    r#"{"files": {"include": ["/etc"]}}"#,
    r#"{"docs": ["/etc/passwd"]}"#,
    r#"{"docs": ["a", "a"]}"#,
    r#"{"quantize": {"bits": 7}}"#,
    r#"{"quantize": {"bits": 1}}"#,
    r#"{"quantize": {"group_size": 16}}"#,
    r#"{"quantize": {"mode": "mxfp4", "bits": 8}}"#,
    r#"{"quantize": {"mode": "nvfp4", "group_size": 32}}"#,
    r#"{"quantize": {"mode": "gguf"}}"#,
    r#"{"quantize": {"recipe": "mixed_3_6", "bits": 4}}"#,
    r#"{"quantize": {"recipe": "mixed_3_6", "mode": "nvfp4"}}"#,
    r#"{"shard_size": 5}"#,
    r#"{"quantize": {"overrides": [{"bits": 8}]}}"#,
    r#"{"quantize": {"overrides": [{"match": "a"}]}}"#,
    r#"{"quantize": {"overrides": [{"match": "a", "skip": false}]}}"#,
    r#"{"quantize": {"overrides": [{"match": "a", "skip": true, "bits": 8}]}}"#,
    r#"{"quantize": {"overrides": [{"match": "[ab]", "bits": 8}]}}"#,
    r#"{"dtype": "float16"}"#,
    r#"{"tokenizer": "x"}"#,
    r#"{"template": {}}"#,
    r#"{"template": {"file": "a", "inline": "b"}}"#,
    r#"{"template": {"catalog": "nothing"}}"#,
    r#"{"parameters": {"temperature": 2.1}}"#,
    r#"{"parameters": {"temperature": -0.1}}"#,
    r#"{"parameters": {"temperature": "1"}}"#,
    r#"{"parameters": {"top_p": 0}}"#,
    r#"{"parameters": {"top_k": -1}}"#,
    r#"{"parameters": {"min_p": 1.5}}"#,
    r#"{"parameters": {"max_tokens": 0}}"#,
    r#"{"parameters": {"max_tokens": 1.5}}"#,
    r#"{"parameters": {"context_length": 0}}"#,
    r#"{"parameters": {"seed": 9007199254740992}}"#,
    r#"{"parameters": {"stop": ""}}"#,
    r#"{"parameters": {"stop": [""]}}"#,
    r#"{"parameters": {"repetition_penalty": 0}}"#,
    r#"{"capabilities": ["sing"]}"#,
    r#"{"capabilities": ["chat", "chat"]}"#,
    r#"{"adapters": [{"name": "a"}]}"#,
    r#"{"adapters": [{"path": "a"}]}"#,
    r#"{"adapters": [{"name": "a b", "path": "a"}]}"#,
    r#"{"draft": {}}"#,
    r#"{"tests": [{"prompt": "x"}]}"#,
    r#"{"tests": [{"prompt": "x", "expect": {}}]}"#,
    r#"{"tests": [{"prompt": "x", "expect": {"contains": "a", "equals": "b"}}]}"#,
    r#"{"tests": [{"prompt": "x", "expect": {"tokens": [-1]}}]}"#,
];

const SOUND_DRAFTS: &[&str] = &[
    r#"{"name": "m", "base": {"hfRepo": "a/b", "revision": "main"}, "format": "mlx", "quantization": "4bit"}"#,
    r#"{"name": "m", "version": 1.0, "base": {"local_path": "."}, "quantization": {"bits": 8, "group_size": 32}, "license": "MIT", "metadata": {"a": "b"}}"#,
    r#"{"name": "m", "base": {"hf_repo": "a/b"}, "prompt_template": "chatml", "defaults": {"topP": 1, "max_tokens": 5, "stop": [], "systemPrompt": "x"}}"#,
];

const WRONG_DRAFTS: &[&str] = &[
    r#"{"base": {"hfRepo": "a/b"}}"#,
    r#"{"name": "m", "base": {}}"#,
    r#"{"name": "m", "base": {"hfRepo": "a/b", "localPath": "."}}"#,
    r#"{"name": "m", "base": {"localPath": ".", "revision": "x"}}"#,
    r#"{"name": "m", "base": {"localPath": "."}, "format": "gguf"}"#,
    r#"{"name": "m", "base": {"localPath": "."}, "defaults": {"topK": 1}}"#,
    r#"{"name": "m", "base": {"localPath": "."}, "quantization": {"bits": 7}}"#,
    r#"{"name": "m", "base": {"localPath": "."}, "quantization": 4}"#,
];

fn completed(more: &str) -> Value {
    let mut recipe =
        json!({ "apiVersion": "mlxctl.dev/v1alpha1", "kind": "ModelSpec", "name": "m", "from": { "path": "." } });
    for (key, value) in serde_json::from_str::<serde_json::Map<_, _>>(more).expect("a case is JSON") {
        if value.is_null() {
            recipe.as_object_mut().expect("a recipe is an object").remove(&key);
        } else {
            recipe[key] = value;
        }
    }
    recipe
}

/// What the schema and what the parser says.
fn verdicts(schema: &jsonschema::Validator, recipe: &Value) -> (bool, bool) {
    (schema.is_valid(recipe), parse(&recipe.to_string(), "r.json").is_ok())
}

#[test]
fn schema_and_parser_agree() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let drafts = |texts: &[&str]| texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect::<Vec<Value>>();
    let recipes = |texts: &[&str]| texts.iter().map(|text| completed(text)).collect::<Vec<_>>();
    for recipe in recipes(SOUND).into_iter().chain(drafts(SOUND_DRAFTS)) {
        let refused = || parse(&recipe.to_string(), "r.json").map_or_else(|error| error.to_string(), |_| String::new());
        assert_eq!(verdicts(&schema, &recipe), (true, true), "{recipe}\n{}", refused());
    }
    for recipe in recipes(WRONG).into_iter().chain(drafts(WRONG_DRAFTS)) {
        assert_eq!(verdicts(&schema, &recipe), (false, false), "{recipe}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Where a pattern says it all, it says the same.
    #[test]
    fn patterns_are_the_grammars(text in "[aA0._/:-]{0,7}") {
        let schema = jsonschema::validator_for(&json_schema()).unwrap();
        let version = verdicts(&schema, &completed(&json!({ "version": text }).to_string()));
        prop_assert_eq!(version.0, version.1, "version {}", text);
        // A first component with a dot reads as a registry, which a pattern does not tell.
        let name = verdicts(&schema, &completed(&json!({ "name": text }).to_string()));
        let reads_as_registry = text.split_once('/').is_some_and(|(first, _)| first.contains('.'));
        prop_assert!(name.0 == name.1 || reads_as_registry, "name {}", text);
        let hub = verdicts(&schema, &completed(&json!({ "from": { "hf": text } }).to_string()));
        prop_assert!(hub.0 || !hub.1, "hf {}", text);
        let docs = verdicts(&schema, &completed(&json!({ "docs": [text] }).to_string()));
        prop_assert!(docs.0 || !docs.1, "docs {}", text);
    }
}

/// `MLXCTL_UPDATE=1 cargo test -p mlxctl-modelspec` writes the files that are generated here.
fn held(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    if std::env::var_os("MLXCTL_UPDATE").is_some() {
        std::fs::write(&path, expected).expect("the file can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} is out of date: run `MLXCTL_UPDATE=1 cargo test -p mlxctl-modelspec`");
}

#[test]
fn the_schema_file_is_the_schema() {
    held("schemas/modelspec.schema.json", &format!("{:#}\n", json_schema()));
}

#[test]
fn the_reference_page_has_the_table_and_a_sound_example() {
    const START: &str = "<!-- generated from the parser's table -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipe.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (prose, _) = page.split_once(START).expect("the page has the mark behind which the tables stand");
    held("docs/recipe.md", &format!("{prose}{START}\n{}\n", mlxctl_modelspec::reference_tables().trim_end()));
    let examples: Vec<_> = prose.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        parse(example, "docs/recipe.md").unwrap_or_else(|invalid| panic!("{invalid}"));
    }
}
