//! Artifacts as files: packed, read by other tools, taken in again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write as _;

use mlxctl_testkit::programs::{Home, workspace};
use mlxctl_testkit::registry::skopeo;
use mlxctl_tests::{PEBBLE, RECIPE, blobs, copy_folder, create_pebble, pebble_in};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_is_packed_is_read_by_skopeo_and_imported_bit_by_bit() {
    let home = Home::default();
    let digest = create_pebble(&home);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for (path, transport) in [(at("layout"), "oci"), (at("layout.tar"), "oci-archive")] {
        assert_eq!(home.run(&["pack", PEBBLE, "-o", &path]), format!("{PEBBLE}@{digest}"));
        let empty = Home::default();
        assert_eq!(empty.run(&["import", &path]), format!("{PEBBLE}@{digest}"));
        assert_eq!(empty.run(&["import", &path, "--name", "other:2"]), format!("other:2@{digest}"));
        assert_eq!(blobs(&empty.path().join("store")), blobs(&home.path().join("store")));
        empty.run(&["verify"]);
        let copy = at(&format!("copy-{transport}"));
        let (source, target) = (format!("{transport}:{path}:1.0.0"), format!("dir:{copy}"));
        let Some(output) = skopeo(&["copy", "--preserve-digests", &source, &target]) else { continue };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let manifest = fs::read(format!("{copy}/manifest.json")).unwrap();
        assert_eq!(mlxctl_artifact::Digest::sha256_of(&manifest).to_string(), digest);
    }
    home.run(&["pack", "--quiet", PEBBLE, "-o", &at("again.tar")]);
    assert!(fs::read(at("again.tar")).unwrap() == fs::read(at("layout.tar")).unwrap());
}

#[test]
fn archives_that_skopeo_writes_are_imported() {
    let home = Home::default();
    let digest = create_pebble(&home);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    home.run(&["pack", PEBBLE, "-o", &at("layout")]);
    let target = format!("oci-archive:{}:stable", at("theirs.tar"));
    let Some(output) = skopeo(&["copy", "--preserve-digests", &format!("oci:{}:1.0.0", at("layout")), &target]) else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let empty = Home::default();
    // Its index knows a tag and no name, so that the artifact's title names it.
    assert_eq!(empty.run(&["import", &at("theirs.tar")]), format!("pebble:stable@{digest}"));
}

#[test]
fn a_layout_of_several_artifacts_is_taken_in_whole_or_in_part() {
    let home = Home::default();
    let digest = create_pebble(&home);
    let second = home.run(&["create", "--quiet", "second:2", "-f", RECIPE]);
    assert!(second.ends_with(&digest), "{second}");
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout").display().to_string();
    for name in [PEBBLE, "second:2"] {
        home.run(&["pack", "--quiet", name, "-o", &layout]);
    }
    let empty = Home::default();
    assert_eq!(empty.run(&["import", "--quiet", &layout]), format!("pebble:1.0.0@{digest}\nsecond:2@{digest}"));
    let (code, said) = empty.fail(&["import", &layout, "--name", "x"]);
    assert!(code == 2 && said.contains("pebble:1.0.0, second:2") && said.contains("--entry"), "{said}");
    assert_eq!(empty.run(&["import", "--quiet", &layout, "--name", "x:1", "--entry", "2"]), format!("x:1@{digest}"));
    let (code, said) = empty.fail(&["import", &layout, "--entry", "absent"]);
    assert!(code == 2 && said.contains("no such entry"), "{said}");
}

#[test]
fn a_models_folder_is_imported_as_its_recipe_would_build_it() {
    let home = Home::default();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("Tiny_Pebble");
    copy_folder(&workspace().join("modelspecs/pebble/weights"), &model);
    fs::write(model.join("README.md"), "# Tiny").unwrap();
    fs::write(model.join("pytorch_model.bin"), "pickle").unwrap();
    let path = model.display().to_string();
    let listed = json(&home.run(&["import", "--json", &path]));
    assert_eq!(listed[0]["name"], "tiny-pebble:latest");
    let shown = json(&home.run(&["show", "tiny-pebble", "--json"]));
    let paths: Vec<&str> =
        shown["layers"].as_array().unwrap().iter().map(|layer| layer["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"model.safetensors") && paths.contains(&"README.md"), "{paths:?}");
    assert!(!paths.contains(&"pytorch_model.bin"));
    // The same files named one by one are the same model.
    let files: Vec<String> = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "README.md",
    ]
    .iter()
    .map(|name| model.join(name))
    .filter(|path| path.exists())
    .map(|path| path.display().to_string())
    .collect();
    let mut arguments = vec!["import", "--quiet", "--name", "tiny-pebble:files"];
    arguments.extend(files.iter().map(String::as_str));
    let (_, by_files) = home.run(&arguments).split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert_eq!(by_files, listed[0]["digest"].as_str().unwrap());
    let weights = model.join("model.safetensors").display().to_string();
    let single = home.run(&["import", "--quiet", &weights]);
    assert!(single.starts_with("model:latest@sha256:"), "{single}");
}

#[test]
fn what_cannot_be_imported_is_refused_with_its_reason() {
    let home = Home::default();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path.display().to_string()
    };
    let check = |path: &str, reason: &str| {
        let (_, said) = home.fail(&["import", path]);
        assert!(said.contains(reason), "{path}: expected {reason:?}: {said}");
    };
    check(&folder.path().join("nowhere").display().to_string(), "No such file");
    check(&write("weights.bin", b"pickle"), "can run any code");
    check(&write("model.safetensors", &u64::MAX.to_le_bytes()), "model.safetensors");
    check(&write("layout.tar.gz", b"\x1f\x8b\x08\x00"), "compressed");
    check(&write("layout.tar", b"no tar at all"), "ends inside a header");
    fs::create_dir(folder.path().join("empty")).unwrap();
    check(&folder.path().join("empty").display().to_string(), "no *.safetensors file");
    assert!(blobs(&home.path().join("store")).len() <= 2);
}

#[test]
fn packing_leaves_what_is_no_layout_alone() {
    let home = Home::default();
    create_pebble(&home);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), "irreplaceable").unwrap();
    let (_, said) = home.fail(&["pack", PEBBLE, "-o", &folder.path().display().to_string()]);
    assert!(said.contains("holds other files"), "{said}");
    let (code, said) = home.fail(&["pack", "absent:1", "-o", "x.tar"]);
    assert!(code == 1 && said.contains("absent:1"), "{said}");
}

#[test]
fn differences_are_told_from_the_recipe_down_to_the_tensor() {
    let home = Home::default();
    let digest = create_pebble(&home);
    let folder = tempfile::tempdir().unwrap();
    let recipe = pebble_in(folder.path());
    let text = fs::read_to_string(&recipe).unwrap() + "\nlabels: {x: y}\n";
    fs::write(&recipe, text.replace("version: 1.0.0", "version: 1.0.1")).unwrap();
    let weights = folder.path().join("weights/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    home.run(&["create", "--quiet", "-f", &recipe.display().to_string()]);
    let found = json(&home.run(&["diff", "--json", PEBBLE, "pebble:1.0.1"]));
    assert_eq!((&found["same"], &found["a"]["digest"]), (&false.into(), &digest.as_str().into()));
    let recipe: Vec<&str> =
        found["recipe"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(recipe, ["version"]);
    assert_eq!(found["config"][0]["path"], "descriptor.version");
    let layers: Vec<&str> =
        found["layers"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert!(layers.contains(&"model.safetensors") && layers.contains(&"modelspec.json"), "{layers:?}");
    let tensors = found["tensors"].as_array().unwrap();
    assert!(found["equal_tensors"].as_u64().unwrap() > 5);
    assert!(tensors.len() == 1 && tensors[0]["a"] == tensors[0]["b"], "{tensors:?}");
    let said = home.run(&["diff", PEBBLE, "pebble:1.0.1"]);
    assert!(said.contains("other values"), "{said}");
    assert!(home.run(&["diff", PEBBLE, PEBBLE]).contains("are the same"));
}
