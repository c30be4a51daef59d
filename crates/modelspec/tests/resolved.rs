//! What of a recipe travels in the artifact.

use mlxctl_artifact::{Digest, PinnedAdapter, PinnedDraft, ResolvedSpec, canonical_json};
use mlxctl_modelspec::parse;

fn resolved(more: &str) -> ResolvedSpec {
    let text = format!("apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: m\nfrom: {{path: ./weights}}\n{more}");
    parse(&text, "r.yaml").expect("the recipe is sound").resolved(Vec::new(), None)
}

#[test]
fn what_is_not_set_is_not_written() {
    let bytes = canonical_json(&resolved("")).unwrap();
    let least = r#"{"apiVersion":"mlxctl.dev/v1alpha1","kind":"ModelSpec","name":"m"}"#;
    assert_eq!(String::from_utf8(bytes).unwrap(), least);
}

#[test]
fn what_is_set_comes_back_as_it_was_without_the_machines_paths() {
    let mut spec = resolved(
        "version: 1.10\nsystem: Be brief.\ndtype: bf16\ncapabilities: [chat, tools]\n\
         quantize: {bits: 4, overrides: [{match: lm_head, bits: 8}, {match: '*.gate', skip: true}]}\n\
         parameters: {temperature: 0.7, stop: [x], seed: 1}\n\
         tests: [{prompt: p, expect: {tokens: [1, 2]}}, {prompt: q, expect: {contains: r}}]\n",
    );
    let digest = Digest::sha256_of(b"adapter");
    spec.adapters = vec![PinnedAdapter { name: "a".into(), digest, reference: None }];
    spec.draft = Some(PinnedDraft { digest, reference: "ghcr.io/org/tiny:1".parse().unwrap() });
    let bytes = canonical_json(&spec).unwrap();
    assert_eq!(ResolvedSpec::parse(&bytes).unwrap(), spec);
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("./weights") && text.contains("\"version\":\"1.10\""), "{text}");
    assert!(
        text.contains("\"overrides\":[{\"bits\":8,\"match\":\"lm_head\"},{\"match\":\"*.gate\",\"skip\":true}]"),
        "{text}"
    );
}
