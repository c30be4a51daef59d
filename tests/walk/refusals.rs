//! Damaged and hostile files: each is refused with its place, and nothing else is harmed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mlxctl_testkit::programs::{Home, programs};
use mlxctl_tests::{PEBBLE, RECIPE, blob, create_pebble, layer, pebble_in};

/// Runs `mlxserve` where it must fail to start; gives the exit code and what it said.
fn refused(home: &Home, arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(programs().join("mlxserve"));
    command.arg("--home").arg(home.path()).args(["--port", "0"]).args(arguments);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap_or(-1), said)
}

/// Changes a blob behind the store's back.
fn tamper(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_blob_is_found_and_named_and_the_rest_serves_on() {
    type Change = fn(&mut Vec<u8>);
    let flipped: Change = |bytes| *bytes.last_mut().unwrap() ^= 1;
    let truncated: Change = |bytes| bytes.truncate(bytes.len() / 2);
    for change in [flipped, truncated] {
        let home = Home::default();
        create_pebble(&home);
        // Another artifact that shares all but the weights.
        let folder = tempfile::tempdir().unwrap();
        let recipe = pebble_in(&folder.path().join("plain"));
        let text = fs::read_to_string(&recipe).unwrap();
        let plain: Vec<_> = text.lines().filter(|line| !line.starts_with("quantize:")).collect();
        fs::write(&recipe, plain.join("\n")).unwrap();
        home.run(&["create", "plain:1", "-f", recipe.to_str().unwrap()]);

        let weights = layer(&home, PEBBLE, "model.safetensors");
        tamper(&blob(&home, &weights), change);
        let (code, said) = home.fail(&["verify"]);
        assert!(code == 1 && said.contains(&weights), "{said}");
        let (code, said) = refused(&home, &[PEBBLE]);
        assert!(code == 1 && said.contains(&weights), "{said}");
        home.run(&["verify", "plain:1"]);
        let server = home.serve(&["plain:1"]);
        assert!(home.run(&["run", "plain:1", "Capital of France?"]).contains("Paris"), "{}", server.address());
    }
}

#[test]
fn hostile_weights_are_refused_when_they_are_packed_and_when_they_are_served() {
    let header = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(&[0; 64]);
        bytes
    };
    let cases = [
        ("a header of 2^60 bytes", [&(1_u64 << 60).to_le_bytes()[..], &[0; 64]].concat(), "1152921504606846976"),
        (
            "overlapping tensors",
            header(
                r#"{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]},"b":{"dtype":"U8","shape":[32],"data_offsets":[32,64]}}"#,
            ),
            "`b`",
        ),
        ("no safetensors", b"GGUF\0\0\0\0\0\0\0\0".to_vec(), "model.safetensors"),
        ("an empty file", Vec::new(), "model.safetensors"),
    ];
    for (what, bytes, named) in cases {
        let home = Home::default();
        let folder = tempfile::tempdir().unwrap();
        let recipe = pebble_in(&folder.path().join("hostile"));
        let model = recipe.parent().unwrap().join("weights");
        fs::write(model.join("model.safetensors"), bytes).unwrap();
        let (code, said) = home.fail(&["create", "-f", recipe.to_str().unwrap()]);
        assert!(code == 1 && said.contains(named), "{what}: {said}");
        let (code, said) = refused(&home, &[&format!("dir:{}", model.display())]);
        assert!(code == 1 && said.contains(named), "{what}: {said}");
        assert_eq!(home.run(&["list", "--json"]), "[]", "{what}");
    }
}

#[test]
fn a_manifest_whose_layer_leaves_its_folder_is_refused_before_anything_is_written() {
    let maker = Home::default();
    create_pebble(&maker);
    let registry = maker.registry(&[]);
    let manifest = maker.run(&["show", PEBBLE, "--manifest"]);
    let evil = manifest.replace("\"tokenizer.json\"", "\"../../x\"");
    assert_ne!(evil, manifest);
    put_manifest(registry.address(), "/v2/pebble/manifests/evil", &evil);
    let home = Home::default();
    let (code, said) = home.fail(&["pull", &format!("{}/pebble:evil", registry.address())]);
    assert!(code == 1 && said.contains("../../x"), "{said}");
    let (code, said) = refused(&home, &[&format!("{}/pebble:evil", registry.address())]);
    assert!(code == 1 && said.contains("../../x"), "{said}");
    assert!(!home.path().join("x").exists() && !home.path().join("store/x").exists());
    maker.run(&["verify", PEBBLE]);
}

/// Puts a manifest as no tool of ours would.
fn put_manifest(address: &str, path: &str, body: &str) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let length = body.len();
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn a_mistyped_recipe_names_line_and_column_and_the_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = pebble_in(&folder.path().join("typo"));
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("parameters:", "paramters:")).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("parameters:")).unwrap();
    let home = Home::default();
    for command in [&["validate", "-f"][..], &["create", "-f"]] {
        let (code, said) = home.fail(&[command, &[recipe.to_str().unwrap()]].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(&format!("ModelSpec.yaml:{line}:1: ")) && said.contains("`parameters`"), "{said}");
    }
    assert_eq!(home.run(&["list", "--json"]), "[]");
}

#[test]
fn a_template_that_never_ends_fails_its_request_alone() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = pebble_in(&folder.path().join("endless"));
    let text = fs::read_to_string(&recipe).unwrap();
    let text = text.replace("name: pebble", "name: endless");
    let endless =
        "template: {inline: \"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}\"}";
    fs::write(&recipe, format!("{text}\n{endless}\n")).unwrap();
    let home = Home::default();
    create_pebble(&home);
    home.run(&["create", "endless:1", "-f", recipe.to_str().unwrap()]);
    let server = home.serve(&["endless:1", PEBBLE]);
    let (code, said) = home.fail(&["run", "endless:1", "Hello!"]);
    assert!(code == 1 && said.contains("template"), "{said}");
    assert!(home.run(&["run", PEBBLE, "Capital of France?"]).contains("Paris"), "{}", server.address());
}

#[test]
fn wrong_calls_are_told_apart_from_failures() {
    let home = Home::default();
    for (arguments, code) in [
        (&["show", "absent"][..], 1),
        (&["rm", "absent"], 1),
        (&["verify", "absent"], 1),
        (&["show", "Not A Name"], 2),
        (&["create", "-f", "absent.yaml"], 2),
        (&["no-such-command"], 2),
        (&["pull", "absent"], 2),
        (&["create", "name@sha256:0", "-f", RECIPE], 2),
    ] {
        let (found, said) = home.fail(arguments);
        assert_eq!(found, code, "{arguments:?}: {said}");
        assert!(said.contains("error:"), "{said}");
    }
}
