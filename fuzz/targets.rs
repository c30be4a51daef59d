//! Everything of ours that parses foreign bytes, one function each: shared by the fuzzer's harness and by the short,
//! seeded run among the tests. A panic, a hang or memory beyond measure is a find; a refusal is the right answer.

use std::io::Read as _;

/// A parser under its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them; each has a folder of seeds in `fuzz/corpus`.
pub(crate) const TARGETS: &[Target] = &[
    ("recipe", recipe),
    ("lock", lock),
    ("reference", reference),
    ("manifest", manifest),
    ("config", config),
    ("index", index),
    ("resolved", resolved),
    ("tar", tar),
    ("safetensors", safetensors),
    ("challenge", mlxctl_registry::fuzzing::challenge),
    ("docker_config", mlxctl_registry::fuzzing::docker_config),
];

fn recipe(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = mlxctl_modelspec::parse(text, "ModelSpec.yaml");
    }
}

/// What is read is written the same way again.
fn lock(bytes: &[u8]) {
    if let Ok(lock) = mlxctl_builder::Lock::parse(bytes, "ModelSpec.lock") {
        let again = mlxctl_builder::Lock::parse(lock.to_text().as_bytes(), "ModelSpec.lock");
        assert!(again.is_ok_and(|again| again.drift(&lock).is_none()), "a lock does not read back");
    }
}

fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(found) = text.parse::<mlxctl_artifact::Reference>() {
        assert_eq!(found.to_string().parse().ok(), Some(found), "a reference does not read back");
    }
    let _ = text.parse::<mlxctl_artifact::Digest>();
    let _ = text.parse::<mlxctl_artifact::LayerPath>();
}

fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = mlxctl_artifact::Manifest::parse(bytes) {
        let _ = (manifest.model_layers(), manifest.references());
        let again = mlxctl_artifact::Manifest::parse(&manifest.to_bytes());
        assert_eq!(again.as_ref(), Ok(&manifest), "a manifest does not read back");
    }
}

fn config(bytes: &[u8]) {
    let _ = mlxctl_artifact::ModelConfig::parse(bytes);
}

fn index(bytes: &[u8]) {
    let _ = mlxctl_artifact::Index::parse(bytes);
}

fn resolved(bytes: &[u8]) {
    let _ = mlxctl_artifact::ResolvedSpec::parse(bytes);
}

fn tar(bytes: &[u8]) {
    let mut members = mlxctl_layout::Members::of_stream(bytes, "fuzz");
    while let Ok(Some(member)) = members.next_member() {
        assert!(!member.path.starts_with('/') && member.path.split('/').all(|part| part != ".."));
        let mut start = [0; 64];
        let _ = members.read(&mut start);
    }
}

fn safetensors(bytes: &[u8]) {
    let _ = mlxctl_weights::read_safetensors(&bytes::Bytes::copy_from_slice(bytes), "fuzz.safetensors");
}
