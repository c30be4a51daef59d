//! `modelspec.json`: what travels, and what of a foreign one is believed.

use mlxctl_artifact::{Digest, canonical_json};
use mlxctl_modelspec::{
    Capability, MAX_RESOLVED_BYTES, PinnedAdapter, PinnedDraft, QuantizeMode, ResolvedSpec, UnreadableSpec, parse,
};
use proptest::prelude::*;

fn resolved(more: &str) -> ResolvedSpec {
    let text =
        format!("apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: m\nfrom: {{path: /home/someone/m}}\n{more}\n");
    ResolvedSpec::of(&parse(&text, "r.yaml").expect("the recipe is sound"), None, Vec::new(), None)
}

#[test]
fn the_least_recipe_writes_the_least() {
    let bytes = canonical_json(&resolved("")).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"apiVersion":"mlxctl.dev/v1alpha1","name":"m"}"#);
}

#[test]
fn what_is_written_is_read_back() {
    let more = "version: 1.10\nsystem: Hi\nquantize: {mode: mxfp4, overrides: [{match: a, skip: true}]}\ndtype: f16\nparameters: {temperature: 1.0, seed: 9007199254740991, stop: [x]}\ncapabilities: [chat, tools]\ntests: [{prompt: p, expect: {tokens: [1]}}, {prompt: q, expect: {equals: 42}}]";
    let digest = Digest::sha256_of(b"x");
    let mut spec = resolved(more);
    spec.template = Some("templates/chat.jinja".parse().unwrap());
    spec.adapters = vec![PinnedAdapter { name: "a".into(), digest, reference: None }];
    spec.draft = Some(PinnedDraft { digest, reference: "ghcr.io/org/tiny:1".parse().unwrap() });
    let bytes = canonical_json(&spec).unwrap();
    assert_eq!(ResolvedSpec::read(&bytes).unwrap(), spec);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(r#""parameters":{"seed":9007199254740991,"stop":["x"],"temperature":1}"#), "{text}");
    assert!(
        text.contains(
            r#""quantize":{"bits":4,"group_size":32,"mode":"mxfp4","overrides":[{"match":"a","skip":true}]}"#
        ),
        "{text}"
    );
    assert!(text.contains(&format!(r#""draft":{{"digest":"{digest}","reference":"ghcr.io/org/tiny:1"}}"#)), "{text}");
    assert!(!text.contains("/home"), "{text}");
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let text = r#"{"apiVersion": "mlxctl.dev/v2", "name": "m", "novelty": {"x": [1]}, "capabilities": ["chat", "sing", 7], "parameters": {"top_n": 3, "top_k": 2}, "quantize": {"mode": "affine", "rounding": "up"}}"#;
    let spec = ResolvedSpec::read(text.as_bytes()).unwrap();
    assert_eq!(spec.capabilities, [Capability::Chat]);
    assert_eq!(spec.parameters.top_k, Some(2));
    let quantize = spec.quantize.unwrap();
    assert_eq!((quantize.mode, quantize.bits, quantize.group_size), (QuantizeMode::Affine, 4, 64));
}

#[test]
fn foreign_values_are_held_to_their_ranges() {
    let check = |more: &str, expected: &str| {
        let error = ResolvedSpec::read(format!("{{\"name\": \"m\"{more}}}").as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{more}: {error}");
    };
    check(r#", "parameters": {"temperature": 3}"#, "parameters.temperature must be a number from 0 to 2");
    check(r#", "parameters": {"context_length": 0}"#, "parameters.context_length must be a whole number from 1");
    check(r#", "parameters": {"stop": ["a", ""]}"#, "parameters.stop must be a list of at most 64 texts, none empty");
    check(r#", "parameters": {"max_tokens": 1e99}"#, "cannot be read");
    check(r#", "quantize": {"bits": 7}"#, "quantize.bits is 7, and mode affine takes 2, 3, 4, 5, 6, 8");
    check(r#", "quantize": {"overrides": [{"match": "a", "group_size": 0}]}"#, "quantize.group_size is 0");
    check(r#", "template": "../../etc/passwd""#, "leads out of the model's folder");
    check(r#", "draft": {"digest": "sha256:12", "reference": "m"}"#, "the hash has the wrong length");
    check(r#", "version": "a b""#, "version is `a b`, which cannot be a tag");
    let pin = r#"{"name": "a", "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"}"#;
    check(&format!(r#", "adapters": [{pin}, {pin}]"#), "two adapters are named `a`");
    assert!(ResolvedSpec::read(br#"{"name": "../m"}"#).unwrap_err().to_string().contains("no name for a model"));
    assert!(ResolvedSpec::read(b"{}").unwrap_err().to_string().contains("missing field `name`"));
    let long = vec![b' '; MAX_RESOLVED_BYTES + 1];
    assert!(matches!(ResolvedSpec::read(&long), Err(UnreadableSpec::TooLong { found }) if found == long.len()));
    assert!(ResolvedSpec::read("[".repeat(100_000).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ResolvedSpec::read(&bytes);
    }
}
