//! The table of mistakes: one value or key of a sound recipe is wrong, and exactly this is said, in exactly this place.

use mlxctl_modelspec::parse;

/// Lines 1 to 4; what a case adds starts in line 5.
const HEAD: &str = "apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: m\nfrom: {path: .}\n";

#[test]
fn every_mistake_is_told_with_its_place() {
    for (more, expected) in CASES {
        let text = format!("{HEAD}{more}\n");
        let invalid = parse(&text, "r.yaml").expect_err(more).to_string();
        let told: Vec<_> = invalid.lines().map(|line| line.strip_prefix("r.yaml:").unwrap_or(line)).collect();
        assert_eq!(told, *expected, "\n{text}");
    }
}

/// What is added in line 5 to a sound recipe, and what is said against it.
const CASES: &[(&str, &[&str])] = &[
    ("temprature: 1", &["5:1: unknown key `temprature`", "hint: did you mean `parameters.temperature`?"]),
    ("Licence: MIT", &["5:1: unknown key `Licence`", "hint: did you mean `licenses`?"]),
    ("promptTemplate: chatml", &["5:1: unknown key `promptTemplate`", "hint: did you mean `template`?"]),
    (
        "zzz: 1",
        &[
            "5:1: unknown key `zzz`",
            "hint: the keys here are `apiVersion`, `kind`, `name`, `version`, `description`, `authors`, `vendor`, `family`, `licenses`, `url`, `labels`, `from`, `files`, `quantize`, `dtype`, `shard_size`, `tokenizer`, `template`, `system`, `parameters`, `capabilities`, `adapters`, `draft`, `docs`, `tests`",
        ],
    ),
    ("parameters: {topP: 0.5}", &["5:14: unknown key `topP` in `parameters`", "hint: did you mean `top_p`?"]),
    (
        "parameters: {num_ctx: 1}",
        &["5:14: unknown key `num_ctx` in `parameters`", "hint: did you mean `context_length`?"],
    ),
    ("<<: {a: b}", &["5:1: unknown key `<<`", "hint: merge keys are not part of YAML 1.2: write the keys out"]),
    (
        "parameters: {temperature: 2.5}",
        &["5:27: `parameters.temperature` must be a number from 0 to 2, found the number `2.5`"],
    ),
    (
        "parameters: {temperature: .nan, top_p: 0, min_p: 1.1, top_k: -1, max_tokens: 0, context_length: 1.5, seed: 9007199254740992, repetition_penalty: 0}",
        &[
            "5:27: `parameters.temperature` must be a number from 0 to 2, found the number `.nan`",
            "5:40: `parameters.top_p` must be a number above 0 up to 1, found the number `0`",
            "5:50: `parameters.min_p` must be a number from 0 to 1, found the number `1.1`",
            "5:62: `parameters.top_k` must be a whole number from 0 to 4294967295, found the number `-1`",
            "5:78: `parameters.max_tokens` must be a whole number from 1 to 4294967295, found the number `0`",
            "5:97: `parameters.context_length` must be a whole number from 1 to 4294967295, found the number `1.5`",
            "5:108: `parameters.seed` must be a whole number from 0 to 9007199254740991, found the number `9007199254740992`",
            "5:146: `parameters.repetition_penalty` must be a number above 0 up to 10, found the number `0`",
        ],
    ),
    (
        "parameters: {temperature: \"0.7\"}",
        &[
            "5:27: `parameters.temperature` must be a number from 0 to 2, found the text `0.7`",
            "hint: remove the quotes: 0.7",
        ],
    ),
    (
        "parameters: {temperature: warm}",
        &["5:27: `parameters.temperature` must be a number from 0 to 2, found the text `warm`"],
    ),
    (
        "parameters: {stop: END}",
        &["5:20: `parameters.stop` must be a list, found the text `END`", "hint: put it in brackets: [\"END\"]"],
    ),
    ("parameters: {stop: [\"\"]}", &["5:21: `parameters.stop[0]` must be a text, found an empty text"]),
    (
        "parameters: {max_tokens: 99999999999999999999999999999999999999999999}",
        &[
            "5:26: `parameters.max_tokens` must be a whole number from 1 to 4294967295, found the number `99999999999999999999999999999999999999999999`",
        ],
    ),
    (
        "parameters: 7",
        &[
            "5:13: `parameters` must be a mapping, found the number `7`",
            "hint: its keys are `temperature`, `top_p`, `top_k`, `min_p`, `max_tokens`, `stop`, `context_length`, `seed`, `repetition_penalty`",
        ],
    ),
    (
        "parameters:",
        &[
            "5:11: `parameters` must be a mapping, found nothing",
            "hint: its keys are `temperature`, `top_p`, `top_k`, `min_p`, `max_tokens`, `stop`, `context_length`, `seed`, `repetition_penalty`",
        ],
    ),
    (
        "version: 1.0+cpu",
        &[
            "5:10: `version` is `1.0+cpu`, which cannot be a tag",
            "hint: a tag has at most 128 letters, digits, `.`, `_` and `-`, and starts with none of `.-`",
        ],
    ),
    (
        "version: -1",
        &[
            "5:10: `version` is `-1`, which cannot be a tag",
            "hint: a tag has at most 128 letters, digits, `.`, `_` and `-`, and starts with none of `.-`",
        ],
    ),
    ("version: [1]", &["5:10: `version` must be a version, found a list"]),
    ("version: ", &["5:8: `version` must be a version, found nothing", "hint: give it a value, or leave the key out"]),
    ("description: [a]", &["5:14: `description` must be a text, found a list"]),
    ("system: ''", &["5:9: `system` must be a text, found an empty text"]),
    ("vendor: \"a\\nb\"", &["5:9: `vendor` is `a\\nb`, and takes a single line"]),
    ("authors: Ada", &["5:10: `authors` must be a list, found the text `Ada`", "hint: put it in brackets: [\"Ada\"]"]),
    (
        "licenses: [7]",
        &["5:12: `licenses[0]` must be a licence, found the number `7`", "hint: put it in quotes: \"7\""],
    ),
    (
        "url: example.com",
        &["5:6: `url` is `example.com`, no address", "hint: an address starts with https:// or http://"],
    ),
    ("labels: [a]", &["5:9: `labels` must be a mapping of keys to texts, found a list"]),
    ("labels: {a: [b]}", &["5:13: `labels.a` must be a text, found a list"]),
    ("labels: {\"\": b}", &["5:10: `labels` holds the key ``: a key has 1 to 128 bytes"]),
    (
        "files: {include: [/etc/passwd, ../x, 'a[b]', a/../b]}",
        &[
            "5:19: `files.include[0]` is `/etc/passwd`: it is absolute",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
            "5:32: `files.include[1]` is `../x`: it leads out of the model's folder",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
            "5:38: `files.include[2]` is `a[b]`, and patterns know `*`, `**` and `?` alone",
            "hint: write one pattern for each case",
            "5:46: `files.include[3]` is `a/../b`: it leads out of the model's folder",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
        ],
    ),
    (
        "docs: [../secret, /etc/passwd, 'C:\\x', a//b]",
        &[
            "5:8: `docs[0]` is `../secret`: it leads out of the model's folder",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
            "5:19: `docs[1]` is `/etc/passwd`: it is absolute",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
            "5:32: `docs[2]` is `C:\\\\x`: it holds a backslash, a colon or a control character",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
            "5:40: `docs[3]` is `a//b`: it has an empty component",
            "hint: write a path that stays in its folder, such as README.md or docs/card.md",
        ],
    ),
    ("docs: [a, a]", &["5:11: `docs[1]` repeats item 0"]),
    ("quantize: {bits: 7}", &["5:18: `quantize.bits` is 7, and mode affine takes 2, 3, 4, 5, 6, 8"]),
    ("quantize: {bits: 9}", &["5:18: `quantize.bits` must be a whole number from 2 to 8, found the number `9`"]),
    ("quantize: {group_size: 48}", &["5:24: `quantize.group_size` is 48, and mode affine takes 32, 64, 128"]),
    (
        "quantize: {mode: mxfp4, bits: 8, group_size: 64}",
        &[
            "5:31: `quantize.bits` is 8, and mode mxfp4 takes 4",
            "5:46: `quantize.group_size` is 64, and mode mxfp4 takes 32",
        ],
    ),
    (
        "quantize: {mode: afine}",
        &[
            "5:18: `quantize.mode` must be one of `affine`, `mxfp4`, `mxfp8`, `nvfp4`, found the text `afine`",
            "hint: did you mean `affine`?",
        ],
    ),
    (
        "quantize: {mode: awq}",
        &["5:18: `quantize.mode` must be one of `affine`, `mxfp4`, `mxfp8`, `nvfp4`, found the text `awq`"],
    ),
    (
        "quantize: {overrides: [{bits: 8}, {match: a}, {match: b, skip: true, bits: 8}, {match: c, bits: 7}, {match: d, mode: nvfp4, group_size: 64}, {match: e.weight, skip: yes}, 7]}",
        &[
            "5:24: `quantize.overrides[0]` needs the key `match`",
            "hint: `match` is a pattern over the dotted name of a module, as in `*.mlp.gate`; `*` crosses dots",
            "5:35: `quantize.overrides[1]` changes nothing",
            "hint: give it `bits`, `group_size`, `mode` or `skip: true`",
            "5:76: `quantize.overrides[2]` has both `skip` and `bits`",
            "hint: give one of them",
            "5:97: `quantize.overrides[3].bits` is 7, and mode affine takes 2, 3, 4, 5, 6, 8",
            "5:137: `quantize.overrides[4].group_size` is 64, and mode nvfp4 takes 16",
            "5:150: `quantize.overrides[5].match` is `e.weight`: it matches modules, not their tensors",
            "hint: leave `.weight` away: `e`",
            "5:166: `quantize.overrides[5].skip` must be true or false, found the text `yes`",
            "hint: write true, without quotes",
            "5:172: `quantize.overrides[6]` must be a mapping, found the number `7`",
            "hint: its keys are `match`, `mode`, `bits`, `group_size`, `skip`",
        ],
    ),
    (
        "quantize: {mode: mxfp4, overrides: [{match: a, bits: 8}]}",
        &["5:54: `quantize.overrides[0].bits` is 8, and mode mxfp4 takes 4"],
    ),
    (
        "quantize: {recipe: mixed_4_6, bits: 4}",
        &[
            "5:37: `quantize` has both `recipe` and `bits`, and mixed_4_6 chooses the bits",
            "hint: overrides hold over a recipe: give them the modules that should differ",
        ],
    ),
    (
        "quantize: {recipe: mixed_4_6, mode: mxfp4}",
        &["5:37: `quantize.mode` is mxfp4, and mixed_4_6 is of mode affine"],
    ),
    (
        "quantize: {recipe: mixed_4_5}",
        &[
            "5:20: `quantize.recipe` must be one of `mixed_2_6`, `mixed_3_4`, `mixed_3_6`, `mixed_4_6`, found the text `mixed_4_5`",
            "hint: did you mean `mixed_4_6`?",
        ],
    ),
    (
        "shard_size: 5G",
        &["5:13: `shard_size` is `5G`, which is no size", "hint: write a number and a unit, such as `500MB` or `2GiB`"],
    ),
    ("shard_size: 5KB", &["5:13: `shard_size` is `5KB`, and a size is from 1MB to 1000TB"]),
    ("dtype: float16", &["5:8: `dtype` must be one of `bf16`, `f16`, `f32`, found the text `float16`"]),
    (
        "dtype: bf15",
        &["5:8: `dtype` must be one of `bf16`, `f16`, `f32`, found the text `bf15`", "hint: did you mean `bf16`?"],
    ),
    ("tokenizer: ./tok", &["5:12: `tokenizer` must be a mapping, found the text `./tok`", "hint: its keys are `path`"]),
    (
        "tokenizer: {}",
        &["5:12: `tokenizer` needs the key `path`", "hint: `path` is a directory with the tokenizer's files"],
    ),
    ("template: {}", &["5:11: `template` needs exactly one of `catalog`, `file`, `inline`"]),
    (
        "template: {catalog: chatml, inline: x}",
        &["5:29: `template` has both `catalog` and `inline`", "hint: give exactly one of `catalog`, `file`, `inline`"],
    ),
    (
        "template: {catalog: chatlm}",
        &[
            "5:21: `template.catalog` must be one of `chatml`, `llama3`, `mistral`, found the text `chatlm`",
            "hint: did you mean `chatml`?",
        ],
    ),
    (
        "template: chatml",
        &[
            "5:11: `template` must be a mapping, found the text `chatml`",
            "hint: its keys are `catalog`, `file`, `inline`",
        ],
    ),
    ("template: {file: ''}", &["5:18: `template.file` must be a path, found an empty text"]),
    (
        "capabilities: [chat, chats]",
        &[
            "5:22: `capabilities[1]` must be one of `chat`, `completion`, `embed`, `rerank`, `vision`, `tools`, `reasoning`, found the text `chats`",
            "hint: did you mean `chat`?",
        ],
    ),
    ("capabilities: [chat, chat]", &["5:22: `capabilities[1]` repeats item 0"]),
    (
        "adapters: [{name: a}, {name: a, path: x}, {path: x, oci: y}, {name: 'a b', hf: org/x}]",
        &[
            "5:12: `adapters[0]` needs exactly one of `path`, `hf`, `oci`",
            "5:30: `adapters[1].name` is `a`, the name of another adapter",
            "5:43: `adapters[2]` needs the key `name`",
            "hint: `name` is how requests name it; no two adapters share one",
            "5:53: `adapters[2]` has both `path` and `oci`",
            "hint: give exactly one of `path`, `hf`, `oci`",
            "5:69: `adapters[3].name` is `a b`, which is no name for an adapter",
            "hint: a name has letters, digits, `.`, `_` and `-`, and starts with none of `.-`",
        ],
    ),
    (
        "draft: {path: x}",
        &[
            "5:8: `draft` needs the key `oci`",
            "hint: `oci` is the artifact it is in; pinned by digest when the model is created",
            "5:9: unknown key `path` in `draft`",
            "hint: the keys here are `oci`",
        ],
    ),
    (
        "draft: {oci: Bad}",
        &[
            "5:14: `draft.oci` is `Bad`, no reference: a repository is lower-case letters and digits, separated by '.', '_', '-' or '/'",
            "hint: a reference is [registry/]repository[:tag][@sha256:…]",
        ],
    ),
    (
        "draft: {oci: 'https://ghcr.io/a/b'}",
        &[
            "5:14: `draft.oci` is `https://ghcr.io/a/b`, an address rather than a reference",
            "hint: leave the scheme away: `ghcr.io/a/b`",
        ],
    ),
    (
        "draft: {oci: 'a@sha256:12'}",
        &[
            "5:14: `draft.oci` is `a@sha256:12`, no reference: the hash has the wrong length",
            "hint: a reference is [registry/]repository[:tag][@sha256:…]",
        ],
    ),
    (
        "tests: [{prompt: x}, {expect: {contains: y}}, {prompt: x, expect: {}}, {prompt: x, expect: {equals: a, tokens: [1]}}, {prompt: x, expect: {tokens: [-1, 1.5, a]}}]",
        &[
            "5:9: `tests[0]` needs the key `expect`",
            "hint: `expect` is what must come",
            "5:22: `tests[1]` needs the key `prompt`",
            "hint: `prompt` is what is asked",
            "5:67: `tests[2].expect` needs exactly one of `contains`, `equals`, `tokens`",
            "5:104: `tests[3].expect` has both `equals` and `tokens`",
            "hint: give exactly one of `contains`, `equals`, `tokens`",
            "5:149: `tests[4].expect.tokens[0]` must be a whole number from 0 to 4294967295, found the number `-1`",
            "5:153: `tests[4].expect.tokens[1]` must be a whole number from 0 to 4294967295, found the number `1.5`",
            "5:158: `tests[4].expect.tokens[2]` must be a whole number from 0 to 4294967295, found the text `a`",
        ],
    ),
    ("top_k: 1", &["5:1: unknown key `top_k`", "hint: did you mean `parameters.top_k`?"]),
    ("system: a\nsystem: b", &["6:1: the key `system` is given twice, first in line 5", "hint: keep one of them"]),
    ("labels: {a: 1, a: 2}", &["5:16: the key `a` is given twice, first in line 5", "hint: keep one of them"]),
    ("[a]: b", &["5:1: a key must be text, found a list"]),
    ("system: !secret a", &["5:17: the tag `!secret` has no meaning in a recipe", "hint: remove the tag"]),
    ("system: *nowhere", &["5:9: the YAML cannot be read: while parsing node, found unknown anchor"]),
    ("system: &a [*a]", &["5:13: an alias stands within the value it names"]),
    ("  bad: indent", &["5:3: the YAML cannot be read: while parsing a block mapping, did not find expected key"]),
    ("system: \"unclosed", &["6:1: the YAML cannot be read: invalid indentation in multiline quoted scalar"]),
    ("---\nb: 1", &["5:1: a recipe file holds one document, and here a second one starts"]),
    ("system: \"\\u0000\"", &["5:9: `system` holds a NUL character"]),
];
