//! Recipes that are taken, and what becomes of them.

use std::fmt::Write as _;

use mlxctl_modelspec::{
    Adapter, Capability, Dtype, Expectation, From, HubReference, MAX_RECIPE_BYTES, MixedRecipe, ModelSpec,
    QuantizeMode, QuantizeScheme, SmokeTest, TemplateSource, parse,
};

const HEAD: &str = "apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\n";

fn taken(text: &str) -> ModelSpec {
    parse(text, "r.yaml").unwrap_or_else(|invalid| panic!("{invalid}\n---\n{text}"))
}

/// A recipe with `rest` added to the least there is.
fn with(rest: &str) -> ModelSpec {
    taken(&format!("{HEAD}name: m\nfrom: {{path: .}}\n{rest}\n"))
}

const FULL: &str = r#"
apiVersion: mlxctl.dev/v1alpha1
kind: ModelSpec
name: qwen3-0.6b
version: 1.0.0
description: A small model.
authors: [Ada, "Grace"]
vendor: Qwen
family: qwen3
licenses: [Apache-2.0]
url: https://example.com/m
labels: {stage: beta, build: 007}
from: {hf: Qwen/Qwen3-0.6B@0123456789abcdef0123456789abcdef01234567}
files: {include: ["*.safetensors"], exclude: [original/**]}
quantize: {mode: affine, bits: 4, group_size: 64, overrides: [{match: "lm_head", bits: 8}, {match: "*.gate", skip: true}]}
dtype: bf16
tokenizer: {path: ./tok}
template: {catalog: chatml}
system: You are helpful.
parameters: {temperature: 0.7, top_p: 0.9, top_k: 40, min_p: 0, max_tokens: 512, stop: ["\n", "</s>"], context_length: 4096, seed: 1, repetition_penalty: 1.0}
capabilities: [chat, tools]
adapters: [{name: sql, path: ./lora}, {name: de, oci: "ghcr.io/org/de:1"}]
draft: {oci: ghcr.io/org/tiny:1}
docs: [./README.md, LICENSE]
tests:
  - {prompt: "Capital of France?", expect: {contains: Paris}}
  - {prompt: "6 * 7", expect: {equals: 42}}
  - {prompt: "Hi", expect: {tokens: [1, 2, 0x3]}}
"#;

#[test]
fn a_recipe_with_every_key_is_taken() {
    let spec = taken(FULL);
    assert_eq!((spec.name.as_str(), spec.version.as_deref()), ("qwen3-0.6b", Some("1.0.0")));
    assert_eq!((spec.api_version.as_str(), spec.kind.as_str()), ("mlxctl.dev/v1alpha1", "ModelSpec"));
    assert_eq!(spec.authors, ["Ada", "Grace"]);
    assert_eq!(spec.labels["build"], "007");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let From::Hf(hub) = &spec.from else { panic!("{:?}", spec.from) };
    assert_eq!(hub, &HubReference { repository: "Qwen/Qwen3-0.6B".into(), revision: Some(commit.into()) });
    assert_eq!(hub.commit(), Some(commit));
    assert_eq!(spec.dtype, Some(Dtype::Bf16));
    assert_eq!(spec.tokenizer.unwrap().path, "./tok");
    assert_eq!(spec.template, Some(TemplateSource::Catalog("chatml".into())));
    assert_eq!(spec.capabilities, [Capability::Chat, Capability::Tools]);
    let parameters = &spec.parameters;
    assert_eq!((parameters.temperature, parameters.top_p, parameters.min_p), (Some(0.7), Some(0.9), Some(0.0)));
    assert_eq!((parameters.top_k, parameters.max_tokens, parameters.seed), (Some(40), Some(512), Some(1)));
    assert_eq!((parameters.context_length, parameters.repetition_penalty), (Some(4096), Some(1.0)));
    assert_eq!(parameters.stop, ["\n", "</s>"]);
    assert_eq!(spec.adapters[0], Adapter { name: "sql".into(), from: From::Path("./lora".into()), merge: false });
    assert_eq!(spec.adapters[1].from, From::Oci("ghcr.io/org/de:1".parse().unwrap()));
    assert_eq!(spec.draft.unwrap().oci.to_string(), "ghcr.io/org/tiny:1");
    assert_eq!(spec.docs, ["README.md", "LICENSE"]);
    assert_eq!(spec.tests[1], SmokeTest { prompt: "6 * 7".into(), expect: Expectation::Equals("42".into()) });
    assert_eq!(spec.tests[2].expect, Expectation::Tokens(vec![1, 2, 3]));
}

#[test]
fn json_is_a_recipe_too() {
    let spec =
        taken(r#"{"apiVersion": "mlxctl.dev/v1alpha1", "kind": "ModelSpec", "name": "m", "from": {"path": "."}}"#);
    assert_eq!(spec.from, From::Path(".".into()));
    assert_eq!(spec.version, None);
}

#[test]
fn texts_stand_as_written() {
    for (written, version) in
        [("1.0", "1.0"), ("1.10", "1.10"), ("\"1.10\"", "1.10"), ("007", "007"), ("2e3", "2e3"), ("!!str 1.0", "1.0")]
    {
        assert_eq!(with(&format!("version: {written}")).version.as_deref(), Some(version), "{written}");
    }
    assert_eq!(with("labels: {a: true, b: 0x10, c: ''}").labels["a"], "true");
    assert_eq!(with("system: |\n  one\n  two").system.as_deref(), Some("one\ntwo\n"));
    assert_eq!(with("parameters: {stop: [\" \", 7]}").parameters.stop, [" ", "7"]);
}

#[test]
fn bounds_belong_to_their_ranges() {
    let parameters = "parameters: {temperature: 2, top_p: 1, min_p: 1, top_k: 0, max_tokens: 1, context_length: 1, seed: 9007199254740991, repetition_penalty: 1e1}";
    assert_eq!(with(parameters).parameters.seed, Some((1 << 53) - 1));
    assert_eq!(with("parameters: {temperature: -0.0}").parameters.temperature.map(f64::is_sign_negative), Some(false));
    assert_eq!(with("parameters: {max_tokens: 4096.0}").parameters.max_tokens, Some(4096));
}

#[test]
fn every_legal_quantisation_is_taken() {
    let check = |text: &str, mode, bits, group_size| {
        let quantize = with(&format!("quantize: {text}")).quantize.unwrap();
        assert_eq!(quantize.for_module("x"), Some(QuantizeScheme { mode, bits, group_size }), "{text}");
    };
    check("{}", QuantizeMode::Affine, 4, 64);
    check("{bits: 8}", QuantizeMode::Affine, 8, 64);
    check("{mode: mxfp4}", QuantizeMode::Mxfp4, 4, 32);
    check("{mode: mxfp8}", QuantizeMode::Mxfp8, 8, 32);
    check("{mode: nvfp4, group_size: 16}", QuantizeMode::Nvfp4, 4, 16);
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            check(&format!("{{bits: {bits}, group_size: {group_size}}}"), QuantizeMode::Affine, bits, group_size);
        }
    }
}

#[test]
fn the_last_override_that_matches_holds() {
    let spec = with(
        "quantize: {bits: 4, overrides: [{match: '*', bits: 8}, {match: '*.gate', skip: true}, {match: '*.0.gate', mode: mxfp4}, {match: a, bits: 6, skip: false}]}",
    );
    let quantize = spec.quantize.unwrap();
    let scheme = |mode, bits, group_size| Some(QuantizeScheme { mode, bits, group_size });
    assert_eq!(quantize.for_module("lm_head"), scheme(QuantizeMode::Affine, 8, 64));
    assert_eq!(quantize.for_module("layers.1.gate"), None);
    assert_eq!(quantize.for_module("layers.0.gate"), scheme(QuantizeMode::Mxfp4, 4, 32));
    assert_eq!(quantize.for_module("a"), scheme(QuantizeMode::Affine, 6, 64));
}

#[test]
fn overrides_hold_over_a_recipe() {
    let spec = with("quantize: {recipe: mixed_2_6, group_size: 32, overrides: [{match: lm_head, bits: 8}]}");
    let quantize = spec.quantize.unwrap();
    assert_eq!(quantize.recipe.map(MixedRecipe::widths), Some((2, 6)));
    let chosen = QuantizeScheme { bits: 2, ..quantize.scheme() };
    assert_eq!(quantize.over(chosen, "a"), Some(chosen));
    assert_eq!(quantize.over(chosen, "lm_head"), Some(QuantizeScheme { bits: 8, ..chosen }));
    assert_eq!((chosen.mode, chosen.group_size), (QuantizeMode::Affine, 32));
}

#[test]
fn sizes_are_read_with_their_unit() {
    for (text, bytes) in [
        ("5GiB", 5 << 30),
        ("500MB", 500_000_000),
        ("1.5 GB", 1_500_000_000),
        ("2000000B", 2_000_000),
        ("2TiB", 2 << 40),
    ] {
        assert_eq!(with(&format!("shard_size: {text}")).shard_size, Some(bytes), "{text}");
    }
    assert_eq!(with("").shard_size, None);
}

#[test]
fn adapters_are_merged_where_the_recipe_says_so() {
    let adapters = with("adapters: [{name: a, path: x, merge: true}, {name: b, path: y}]").adapters;
    assert_eq!((adapters[0].merge, adapters[1].merge), (true, false));
}

#[test]
fn files_are_selected() {
    let files = with("files: {include: ['*.safetensors', '*.json'], exclude: ['original/**']}").files;
    assert!(files.takes("model.safetensors") && files.takes("sub/config.json"));
    assert!(!files.takes("README.md") && !files.takes("original/config.json"));
    assert!(with("").files.takes("anything/at.all"));
}

#[test]
fn anchors_are_understood() {
    let spec = with("system: &text You are kind.\ndescription: *text");
    assert_eq!(spec.description, spec.system);
}

#[test]
fn the_longest_recipe_is_taken() {
    let mut text = format!("{HEAD}name: m\nfrom: {{path: .}}\n#");
    text.extend(std::iter::repeat_n('x', MAX_RECIPE_BYTES - text.len()));
    taken(&text);
    taken(&format!("\u{feff}{HEAD}name: m\nfrom: {{path: .}}\n").replace('\n', "\r\n"));
    let mut tokens = String::new();
    for token in 0..60_000 {
        let _ = write!(tokens, "{token},");
    }
    with(&format!("tests: [{{prompt: x, expect: {{tokens: [{tokens}]}}}}]"));
}

#[test]
fn the_draft_of_the_ancestor_is_taken() {
    let camel = "name: llama\nversion: 0.1\nbase: {hfRepo: org/Llama, revision: main}\nformat: mlx\nquantization: {bits: 4, groupSize: 32}\ntokenizer: ./tok\npromptTemplate: llama3\ndefaults: {temperature: 0.5, topP: 0.9, maxTokens: 64, stop: [x], systemPrompt: Hi}\nlicense: MIT\nmetadata: {a: b}\n";
    let snake = camel
        .replace("hfRepo", "hf_repo")
        .replace("groupSize", "group_size")
        .replace("promptTemplate", "prompt_template")
        .replace("topP", "top_p")
        .replace("maxTokens", "max_tokens")
        .replace("systemPrompt", "system_prompt");
    let today = "name: llama\nversion: '0.1'\nfrom: {hf: org/Llama@main}\nquantize: {bits: 4, group_size: 32}\ntokenizer: {path: ./tok}\ntemplate: {catalog: llama3}\nparameters: {temperature: 0.5, top_p: 0.9, max_tokens: 64, stop: [x]}\nsystem: Hi\nlicenses: [MIT]\nlabels: {a: b}\n";
    let today = taken(&format!("{HEAD}{today}"));
    assert_eq!(taken(camel), today);
    assert_eq!(taken(&snake), today);
}

#[test]
fn the_draft_is_read_in_its_shorter_forms() {
    let draft = |rest: &str| taken(&format!("name: m\nbase: {{localPath: /models/m}}\n{rest}\n"));
    assert_eq!(draft("").from, From::Path("/models/m".into()));
    let bits = |text: &str| draft(&format!("quantization: {text}")).quantize.map(|quantize| quantize.bits);
    for (text, expected) in [
        ("none", None),
        ("fp16", None),
        ("4bit", Some(4)),
        ("8-bit", Some(8)),
        ("q6", Some(6)),
        ("int3", Some(3)),
        ("mxfp8", Some(8)),
    ] {
        assert_eq!(bits(text), expected, "{text}");
    }
    let template = |text: &str| draft(&format!("promptTemplate: {text}")).template.unwrap();
    assert_eq!(template("'{{ prompt }}'"), TemplateSource::Inline("{{ prompt }}".into()));
    assert_eq!(template("./chat.jinja"), TemplateSource::File("./chat.jinja".into()));
    assert_eq!(template("{catalog: mistral}"), TemplateSource::Catalog("mistral".into()));
}
