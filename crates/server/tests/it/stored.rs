//! Models of a store and of checked folders: found by name and digest, their recipes heard, their damage told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::http::StatusCode;
use mlxctl_artifact::{Descriptor, Digest, LayerKind, Manifest, ModelLayer, media_type};
use mlxctl_store::Store;
use mlxserve::{App, Catalogue, Guard, ModelFiles, smoke, start_engine};
use serde_json::json;

use crate::world::{get, options, pebble, post};

const RECIPE: &str = r#"{"apiVersion":"mlxctl.dev/v1alpha1","kind":"ModelSpec","name":"pebble","version":"1.0.0",
    "parameters":{"max_tokens":12,"stop":["Paris"],"temperature":0},"capabilities":["chat"],
    "tests":[{"prompt":"What is the capital of France?","expect":{"contains":"capital of France"}},
             {"prompt":"What is the capital of France?","expect":{"equals":"Rome"}}]}"#;

/// Pebble's files and a recipe as an artifact.
pub(crate) fn artifact(store: &Store) -> (Descriptor, Manifest) {
    let mut layers = Vec::new();
    for (name, kind) in [
        ("config.json", LayerKind::WeightConfig),
        ("generation_config.json", LayerKind::WeightConfig),
        ("model.safetensors", LayerKind::Weight),
        ("tokenizer.json", LayerKind::WeightConfig),
        ("tokenizer_config.json", LayerKind::WeightConfig),
    ] {
        let blob = store.ingest_file(media_type::OCTET_STREAM, &pebble().join(name)).unwrap();
        layers.push(ModelLayer::of_file(kind, name.parse().unwrap(), &blob));
    }
    let recipe = store.ingest_bytes(media_type::OCTET_STREAM, RECIPE.as_bytes()).unwrap();
    layers.push(ModelLayer::of_file(LayerKind::WeightConfig, "modelspec.json".parse().unwrap(), &recipe));
    let config = br#"{"descriptor":{"family":"qwen3","licenses":["MIT"]},"config":{"paramSize":"2.7M"},
        "modelfs":{"type":"layers","diffIds":[]}}"#;
    let config = store.ingest_bytes(media_type::MODEL_CONFIG, config).unwrap();
    let manifest = Manifest::of_model(config, &layers, BTreeMap::new());
    (store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes()).unwrap(), manifest)
}

fn world(home: &Path) -> (Store, Descriptor, Arc<App>) {
    let store = Store::open(&home.join("store")).unwrap();
    let (descriptor, _) = artifact(&store);
    store.tag(&"pebble:1.0.0".parse().unwrap(), &descriptor).unwrap();
    store.tag(&"ghcr.io/org/pebble:latest".parse().unwrap(), &descriptor).unwrap();
    let catalogue = Catalogue::new(Some(store.clone()), Some("ghcr.io/org".to_owned()));
    let app = App::new(catalogue, start_engine().unwrap(), options(), Guard::new("127.0.0.1", &[]));
    (store, descriptor, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_model_is_found_by_every_name_it_has_and_loaded_on_demand() {
    let home = tempfile::tempdir().unwrap();
    let (_store, descriptor, app) = world(home.path());
    let digest = descriptor.digest;
    let names = [
        "pebble:1.0.0".to_owned(),
        "pebble".to_owned(), // completed to ghcr.io/org/pebble:latest
        "ghcr.io/org/pebble".to_owned(),
        format!("pebble@{digest}"),
        format!("anything@{digest}"),
        format!("pebble@sha256:{}", digest.short()),
        digest.to_string(),
    ];
    for name in names {
        let ask = json!({"model": name, "messages": [{"role": "user", "content": "What is the capital of France?"}]});
        let answer = post(&app, "/v1/chat/completions", ask).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        assert_eq!(answer.header("x-model-digest"), digest.to_string());
        let choice = &answer.json()["choices"][0];
        assert_eq!(choice["message"]["content"], "The capital of France is ", "the recipe's stop is heard");
    }
    let tags = get(&app, "/api/tags").await.json();
    let names: Vec<&str> = tags["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pebble:1.0.0", "ghcr.io/org/pebble:latest"]);
    let shown = post(&app, "/api/show", json!({"model": "pebble:1.0.0"})).await.json();
    assert_eq!((&shown["license"], &shown["details"]["parameter_size"]), (&json!("MIT"), &json!("2.7M")));
    assert!(shown["parameters"].as_str().unwrap().contains("num_predict 12"));
    let near = post(&app, "/api/show", json!({"model": "peble:1.0.0"})).await;
    assert!(near.text().contains("pebble:1.0.0"), "{}", near.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_an_error_that_names_it() {
    let home = tempfile::tempdir().unwrap();
    let (store, _, app) = world(home.path());
    store.settle();
    let weights = Digest::sha256_of(&std::fs::read(pebble().join("model.safetensors")).unwrap());
    let blob = store.root().join("blobs/sha256").join(weights.hex());
    let mut bytes = std::fs::read(&blob).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    let answer = post(&app, "/api/generate", json!({"model": "pebble:1.0.0", "prompt": "x"})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.json()["error"].as_str().unwrap().contains(&weights.to_string()), "{}", answer.text());
    assert!(get(&app, "/api/ps").await.json()["models"].as_array().unwrap().is_empty());
}

#[test]
fn a_recipes_tests_are_replayed_greedily() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let (descriptor, _) = artifact(&store);
    store.tag(&"pebble:1".parse().unwrap(), &descriptor).unwrap();
    let catalogue = Catalogue::new(Some(store), None);
    let report = smoke(&catalogue, "pebble:1", &options()).unwrap();
    let verdicts: Vec<bool> = report.tests.iter().map(|test| test.passed).collect();
    assert_eq!((verdicts, report.passed), (vec![true, false], false));
    assert_eq!(report.tests[0].answer, "The capital of France is ");
}

#[test]
fn a_folder_is_checked_against_the_digest_that_is_named() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("store")).unwrap();
    let (descriptor, manifest) = artifact(&store);
    let folder = home.path().join("volume");
    std::fs::create_dir(&folder).unwrap();
    for name in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        std::fs::copy(pebble().join(name), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("modelspec.json"), RECIPE).unwrap();
    let open = |store: Option<&Store>| {
        ModelFiles::folder(&folder, "volume", Some(descriptor.digest), store).map(|files| files.digest)
    };
    // The store knows the manifest; without it, the folder has to.
    assert_eq!(open(Some(&store)).unwrap(), descriptor.digest);
    let unverifiable = open(None).unwrap_err().to_string();
    assert!(unverifiable.contains("manifest.json") && unverifiable.contains(&descriptor.digest.to_string()));
    std::fs::write(folder.join("manifest.json"), manifest.to_bytes()).unwrap();
    assert_eq!(open(None).unwrap(), descriptor.digest);
    // A file more is not served, a byte changed is refused.
    std::fs::write(folder.join("model-2.safetensors"), b"not of the manifest").unwrap();
    open(None).unwrap();
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    std::fs::write(folder.join("config.json"), config.replacen("192", "193", 1)).unwrap();
    let error = open(None).unwrap_err().to_string();
    assert!(error.contains("config.json") && error.contains("expected sha256:"), "{error}");
}
