//! Push and pull through registries that we did not write, and through our own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::process::Stdio;

use mlxctl_testkit::counting::CountingProxy;
use mlxctl_testkit::programs::Home;
use mlxctl_testkit::registry::{Access, DockerRegistry, skopeo};
use mlxctl_tests::{PEBBLE, blob, blobs, create_pebble};

#[test]
fn what_is_pushed_is_read_by_skopeo_and_pulled_bit_by_bit() {
    let Some(registry) = DockerRegistry::start(Access::Open) else { return };
    let home = Home::default();
    let digest = create_pebble(&home);
    let remote = format!("{}/demo/pebble:1.0.0", registry.address());
    assert_eq!(home.run(&["push", PEBBLE, &remote]), format!("{remote}@{digest}"));

    let folder = tempfile::tempdir().unwrap();
    let target = format!("dir:{}", folder.path().join("copy").display());
    let source = format!("docker://{remote}");
    let Some(output) = skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &source, &target]) else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifest = fs::read(folder.path().join("copy/manifest.json")).unwrap();
    assert_eq!(mlxctl_artifact::Digest::sha256_of(&manifest).to_string(), digest);
    let mut copied = 0;
    for entry in fs::read_dir(folder.path().join("copy")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.len() == 64 {
            assert_eq!(fs::read(&path).unwrap(), fs::read(blob(&home, &name)).unwrap(), "{name}");
            copied += 1;
        }
    }
    assert_eq!(copied + 1, blobs(&home.path().join("store")).len(), "every blob and the manifest");

    let empty = Home::default();
    let pinned = format!("{}/demo/pebble@{digest}", registry.address());
    assert_eq!(empty.run(&["pull", &pinned, "--as", "mine:1"]), digest);
    assert_eq!(blobs(&empty.path().join("store")), blobs(&home.path().join("store")));
    empty.run(&["verify", "mine:1"]);
}

#[test]
fn a_second_push_and_a_second_pull_move_nothing() {
    let Some(registry) = DockerRegistry::start(Access::Open) else { return };
    let home = Home::default();
    create_pebble(&home);
    let remote = format!("{}/demo/pebble:1.0.0", registry.address());
    home.run(&["push", PEBBLE, &remote]);
    for arguments in [&["push", PEBBLE, &remote][..], &["pull", &remote]] {
        let output = home.mlxctl(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("  done") && said.contains("already there"), "{said}");
    }
}

#[test]
fn two_pulls_at_once_are_one_download() {
    let maker = Home::default();
    create_pebble(&maker);
    let registry = maker.registry(&[]);
    let proxy = CountingProxy::to(registry.address());
    let home = Home::default();
    let remote = format!("{}/pebble:1.0.0", proxy.address());
    let pulls: Vec<_> =
        (0..2).map(|_| home.mlxctl(&["pull", "--quiet", &remote]).stdout(Stdio::piped()).spawn().unwrap()).collect();
    for pull in pulls {
        assert!(pull.wait_with_output().unwrap().status.success());
    }
    home.run(&["verify"]);
    let listed: serde_json::Value = serde_json::from_str(&home.run(&["list", "--json"])).unwrap();
    let size = listed[0]["size"].as_u64().unwrap();
    let moved = proxy.answered();
    assert!(moved >= size && moved < size + size / 10, "{moved} bytes came for an artifact of {size}");
}

#[test]
fn a_registry_that_asks_for_a_password_gets_the_one_of_dockers_configuration() {
    use mlxctl_testkit::registry::{PASSWORD, USER};
    let Some(registry) = DockerRegistry::start(Access::Password) else { return };
    let home = Home::default();
    create_pebble(&home);
    let remote = format!("{}/pebble:1.0.0", registry.address());
    let (code, said) = home.fail(&["push", PEBBLE, &remote]);
    assert!(code == 1 && said.contains("401") && said.contains("hint:"), "{said}");
    let config = serde_json::json!({"auths": {registry.address(): {"username": USER, "password": PASSWORD}}});
    fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    home.run(&["push", PEBBLE, &remote]);
    let wrong = serde_json::json!({"auths": {registry.address(): {"username": USER, "password": "not-it-4711"}}});
    fs::write(home.path().join("config.json"), wrong.to_string()).unwrap();
    let (_, said) = home.fail(&["push", PEBBLE, &remote]);
    assert!(said.contains("401") && !said.contains("not-it-4711"), "{said}");
}

#[test]
fn short_names_are_completed_and_a_missing_registry_is_the_callers_fault() {
    let home = Home::default();
    create_pebble(&home);
    let (code, said) = home.fail(&["push", PEBBLE]);
    assert!(code == 2 && said.contains("MLXCTL_REGISTRY"), "{said}");
    let server = Home::default();
    let registry = server.registry(&[]);
    let prefix = format!("{}/org", registry.address());
    let output = home.mlxctl(&["push", PEBBLE]).env("MLXCTL_REGISTRY", &prefix).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(server.run(&["list"]).contains("org/pebble:1.0.0"));
}
