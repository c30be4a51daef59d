//! The artifact that `create` makes: the same on every machine, and what the specifications ask for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mlxctl_testkit::programs::Home;
use mlxctl_tests::{RECIPE, create_pebble, layer, pebble_in};

#[test]
fn two_folders_with_other_clocks_modes_and_names_give_one_digest() {
    let first = create_pebble(&Home::default());
    let folder = tempfile::tempdir().unwrap();
    let recipe = pebble_in(&folder.path().join("elsewhere/deep"));
    for entry in fs::read_dir(recipe.parent().unwrap().join("weights")).unwrap() {
        let path = entry.unwrap().path();
        fs::File::options().append(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    }
    let home = Home::default();
    // Another umask, clock zone and language, one thread, another folder and another name.
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(mlxctl_testkit::programs::programs().join("mlxctl"));
    shell.args(["create", "other/name:tag", "-f"]).arg(&recipe).env("MLXCTL_HOME", home.path());
    shell.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "C").env("MLXCTL_THREADS", "1");
    let output = shell.current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("other/name:tag@{first}"));
}

#[test]
fn one_changed_byte_of_a_weight_changes_the_digest() {
    let home = Home::default();
    let before = create_pebble(&home);
    let folder = tempfile::tempdir().unwrap();
    let recipe = pebble_in(&folder.path().join("changed"));
    let weights = recipe.parent().unwrap().join("weights/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    fs::write(&weights, bytes).unwrap();
    let printed = home.run(&["create", "changed:1", "-f", recipe.to_str().unwrap()]);
    assert!(!printed.ends_with(&before), "{printed}");
}

#[test]
fn manifest_and_configuration_follow_the_specifications() {
    let Some(schemas) = std::env::var_os("MLXCTL_TEST_SCHEMAS").map(PathBuf::from) else {
        let reason = "MLXCTL_TEST_SCHEMAS names no folder with the OCI and ModelPack schemas";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}; `cargo xtask test` fetches them");
        return;
    };
    let home = Home::default();
    create_pebble(&home);
    let schema =
        |path: &str| -> serde_json::Value { serde_json::from_slice(&fs::read(schemas.join(path)).unwrap()).unwrap() };
    let model = jsonschema::validator_for(&schema("model-spec/config-schema.json")).unwrap();
    let config = serde_json::from_str(&home.run(&["show", "pebble:1.0.0", "--config"])).unwrap();
    let problems: Vec<_> = model.iter_errors(&config).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?}");

    // The documents name each other by file, relative to whichever identifier the naming one has.
    let mut registry = jsonschema::Registry::new();
    for name in ["content-descriptor.json", "defs.json", "defs-descriptor.json"] {
        for base in ["https://opencontainers.org/schema/image", "https://opencontainers.org/schema"] {
            let resource = jsonschema::Resource::from_contents(schema(&format!("image-spec/{name}")));
            registry = registry.add(format!("{base}/{name}"), resource).unwrap();
        }
    }
    let registry = registry.prepare().unwrap();
    let manifest_schema = schema("image-spec/image-manifest-schema.json");
    let oci = jsonschema::options().with_registry(&registry).build(&manifest_schema).unwrap();
    let manifest = serde_json::from_str(&home.run(&["show", "pebble:1.0.0", "--manifest"])).unwrap();
    let problems: Vec<_> = oci.iter_errors(&manifest).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn quantised_weights_are_those_of_mlx() {
    let Some(python) = mlxctl_testkit::programs::python() else { return };
    let home = Home::default();
    create_pebble(&home);
    let weights = mlxctl_tests::blob(&home, &layer(&home, "pebble:1.0.0", "model.safetensors"));
    let script = "
import sys, mlx.core as mx
mx.set_default_device(mx.cpu)
ours, source = mx.load(sys.argv[1], format='safetensors'), mx.load(sys.argv[2])
compared = 0
for name, weight in source.items():
    module = name.removesuffix('.weight')
    if weight.ndim != 2:
        assert mx.array_equal(ours[name], weight), name
        continue
    for part, wanted in zip(('weight', 'scales', 'biases'), mx.quantize(weight, group_size=64, bits=8)):
        found = ours[f'{module}.{part}']
        assert found.dtype == wanted.dtype and mx.array_equal(found.view(mx.uint8), wanted.view(mx.uint8)), (name, part)
        compared += 1
assert compared > 100, compared
print(compared)
";
    let source = mlxctl_testkit::programs::workspace().join("modelspecs/pebble/weights/model.safetensors");
    let output = Command::new(python).args(["-c", script]).arg(weights).arg(source).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_recipe_is_valid_and_the_artifact_verifies() {
    let home = Home::default();
    home.run(&["validate", "-f", RECIPE]);
    let digest = create_pebble(&home);
    home.run(&["verify"]);
    let listed: serde_json::Value = serde_json::from_str(&home.run(&["list", "--json"])).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["digest"]), (&"pebble:1.0.0".into(), &digest.as_str().into()));
    home.run(&["tag", "pebble:1.0.0", "mine"]);
    home.run(&["rm", "pebble:1.0.0"]);
    home.run(&["gc"]);
    home.run(&["verify", "mine"]);
    assert!(home.run(&["show", "mine"]).contains(&digest));
    assert!(home.run(&["show", "mine", "--template"]).contains("im_start"));
}
