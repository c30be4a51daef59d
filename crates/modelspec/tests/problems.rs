//! Recipes that are refused: every message with its place, and hostile text that must harm nothing.

use std::fmt::Write as _;

use mlxctl_modelspec::{MAX_RECIPE_BYTES, parse};
use proptest::prelude::*;

/// The least there is of a recipe: four lines.
const HEAD: &str = "apiVersion: mlxctl.dev/v1alpha1\nkind: ModelSpec\nname: m\nfrom: {path: .}\n";

fn refusal(text: &str) -> String {
    match parse(text, "r.yaml") {
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            invalid.to_string()
        }
        Ok(spec) => panic!("taken: {spec:?}"),
    }
}

/// `text` is refused with exactly these lines.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(refusal(text).lines().collect::<Vec<_>>(), expected, "\n{text}");
}

/// Whole documents.
#[test]
fn a_document_that_is_no_recipe_is_refused() {
    for empty in ["", "# nothing\n", "---\n", "~", "\u{feff}"] {
        check(empty, &["r.yaml:1:1: the recipe is empty"]);
    }
    check(
        "name: m\n",
        &[
            "r.yaml:1:1: a recipe needs the key `apiVersion`",
            "hint: write `apiVersion: mlxctl.dev/v1alpha1`",
            "r.yaml:1:1: a recipe needs the key `kind`",
            "hint: write `kind: ModelSpec`",
            "r.yaml:1:1: a recipe needs the key `from`",
            "hint: `from` is where the model comes from",
        ],
    );
    assert!(refusal("- a\n").starts_with("r.yaml:1:1: a recipe must be a mapping, found a list\nhint: its keys are "));
    assert!(refusal("just text").starts_with("r.yaml:1:1: a recipe must be a mapping, found the text `just text`\n"));
    check(
        "# A comment first\napiVersion: mlxctl.dev/v1\nkind: Model\nname: m\nfrom:\n  path: .\n  hf: org/m\n",
        &[
            "r.yaml:2:13: `apiVersion` must be `mlxctl.dev/v1alpha1`, found the text `mlxctl.dev/v1`",
            "r.yaml:3:7: `kind` must be `ModelSpec`, found the text `Model`",
            "r.yaml:7:3: `from` has both `path` and `hf`",
            "hint: give exactly one of `path`, `hf`, `oci`",
        ],
    );
}

#[test]
fn names_are_repository_names() {
    let rule = "lower-case letters and digits, separated by `.`, `_`, `-` or `/`, at most 255 of them";
    for (name, hint) in [
        ("Qwen3", format!("a name has {rule}, such as `qwen3`")),
        ("my model", format!("a name has {rule}, such as `my-model`")),
        ("a//b", format!("a name has {rule}")),
        ("-a", format!("a name has {rule}")),
        ("../a", format!("a name has {rule}")),
        ("é", format!("a name has {rule}")),
        ("m:1", "the name stands without registry, tag and digest; the tag comes from `version`".to_owned()),
        ("ghcr.io/org/m", "its first part reads as the host of a registry; a name stands without one".to_owned()),
    ] {
        let text = HEAD.replace("name: m", &format!("name: '{name}'"));
        let message = format!("r.yaml:3:7: `name` is `{name}`, which is no name for a model");
        check(&text, &[&message, &format!("hint: {hint}")]);
    }
    assert!(refusal(&HEAD.replace("name: m", &format!("name: {}", "m".repeat(256)))).contains("is 256 bytes long"));
}

#[test]
fn sources_are_told_apart() {
    let from = |source: &str| HEAD.replace("{path: .}", source);
    let hint = "hint: a hub repository is written owner/name, or owner/name@revision";
    let check_hub = |name: &str, reason: &str| {
        check(&from(&format!("{{hf: '{name}'}}")), &[&format!("r.yaml:4:12: `from.hf` is `{name}`: {reason}"), hint]);
    };
    for name in ["a/b/c", "org/", "/m", "org/..", "o rg/m", "-a/b"] {
        check_hub(name, "the repository is not owner/name in letters, digits, `.`, `_` and `-`");
    }
    for name in ["org/m@", "org/m@a b", "org/m@../x", "org/m@-x", "org/m@x@y"] {
        check_hub(name, "the revision after `@` is no commit, branch or tag");
    }
    check_hub("https://huggingface.co/org/m", "an address, not the name of a hub repository");
    check(&from("{}"), &["r.yaml:4:7: `from` needs exactly one of `path`, `hf`, `oci`"]);
    check(
        &from("{oci: 'ghcr.io/m@sha256:ABC'}"),
        &[
            "r.yaml:4:13: `from.oci` is `ghcr.io/m@sha256:ABC`, no reference: the hash has the wrong length",
            "hint: a reference is [registry/]repository[:tag][@sha256:…]",
        ],
    );
}

#[test]
fn the_draft_is_held_to_its_own_table() {
    check(
        "name: m\nbase: {hfRepo: org/m, hf_repo: org/n, revison: x}\ndefaults: {topP: 2, top_k: 3}\nquantization: {bits: 8, mode: mxfp4}\npromptTemplate: nothing\nformat: gguf\n",
        &[
            "r.yaml:2:23: the key `hfRepo` is given twice, first in line 2",
            "hint: keep one of them",
            "r.yaml:2:39: unknown key `revison` in `base`",
            "hint: did you mean `revision`?",
            "r.yaml:3:18: `defaults.topP` must be a number above 0 up to 1, found the number `2`",
            "r.yaml:3:21: unknown key `top_k` in `defaults`",
            "hint: did you mean `topP`?",
            "r.yaml:4:22: `quantization.bits` is 8, and mode mxfp4 takes 4",
            "r.yaml:5:17: `promptTemplate` is `nothing`, neither in the catalogue nor a Jinja text or file",
            "hint: `mlxctl templates` lists the catalogue; a file ends in .jinja, .j2 or .txt",
            "r.yaml:6:9: `format` must be `mlx`, found the text `gguf`",
        ],
    );
    check(
        "name: m\nbase: {localPath: ., revision: x}\nquantization: tiny\n",
        &[
            "r.yaml:2:32: `base.revision` belongs to `hfRepo`, and this base has a `localPath`",
            "hint: remove `x`",
            "r.yaml:3:15: `quantization` is `tiny`, which names no quantisation",
            "hint: write `none`, `4bit`, `8bit`, `mxfp4`, or a mapping with bits and group size",
        ],
    );
}

#[test]
fn every_problem_carries_its_place_and_path() {
    let invalid =
        parse(&format!("{HEAD}tests:\n  - prompt: é\n    expect: {{contain: x}}\n"), "dir/r.yaml").unwrap_err();
    let places: Vec<_> =
        invalid.problems.iter().map(|p| (p.file.as_str(), p.line, p.column, p.path.as_str())).collect();
    assert_eq!(places, [("dir/r.yaml", 7, 13, "tests[0].expect"), ("dir/r.yaml", 7, 14, "tests[0].expect.contain")]);
}

#[test]
fn text_that_means_harm_is_refused_quickly() {
    let holds = |text: &str, message: &str| {
        let refusal = refusal(text);
        assert!(
            refusal.contains(message) && refusal.len() < 60_000,
            "{}",
            refusal.chars().take(400).collect::<String>()
        );
    };
    holds(&"x".repeat(MAX_RECIPE_BYTES + 1), "at most 1048576 are read");
    holds(&"[".repeat(100_000), "r.yaml:1:");
    holds(&"{a: ".repeat(100_000), "r.yaml:1:");
    holds(&"- ".repeat(100_000), "r.yaml:1:");
    holds(&format!("{HEAD}a: {}{}", "[".repeat(31), "]".repeat(31)), "unknown key `a`");
    holds(&format!("{HEAD}a: {}{}", "[".repeat(32), "]".repeat(32)), "r.yaml:5:");

    // Each line holds the line before it ten times.
    let mut laughs = format!("{HEAD}l0: &l0 lol\n");
    let mut chain = format!("{HEAD}l0: &l0 lol\n");
    for level in 1..60 {
        let items = vec![format!("*l{}", level - 1); 10].join(", ");
        let _ = writeln!(laughs, "l{level}: &l{level} [{items}]");
        let _ = writeln!(chain, "l{level}: &l{level} [*l{}]", level - 1);
    }
    holds(&laughs, "holds more than 200000 values, aliases written out");
    holds(&chain, "more than 32 deep within each other");
    let long = format!("{HEAD}system: &a {}\nparameters: {{stop: [{}]}}\n", "x".repeat(100_000), "*a, ".repeat(1000));
    holds(&long, "aliases stand for more than 4194304 bytes");

    let many: String = (0..50_000).fold(HEAD.to_owned(), |mut text, key| {
        let _ = writeln!(text, "k{key}: 1");
        text
    });
    holds(&many, "49900 more problems from here on are not shown");
    holds(&format!("{HEAD}? {}\n: 1\n", "k".repeat(100_000)), "unknown key `kkk");
    // What a terminal would obey is escaped.
    holds(&format!("{HEAD}\"\\e[2J\": 1\n"), "unknown key `\\u{1b}[2J`");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text, "r.yaml");
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes), "r.yaml");
    }

    /// What is made of the language's own pieces gets deep into the reader.
    #[test]
    fn no_pieces_of_recipes_make_it_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        let text = pieces.concat();
        for text in [&text, &format!("{HEAD}{text}"), &format!("name: m\nbase: {{localPath: .}}\n{text}")] {
            if let Err(invalid) = parse(text, "r.yaml") {
                let places: Vec<_> = invalid.problems.iter().map(|problem| (problem.line, problem.column)).collect();
                prop_assert!(places.is_sorted(), "{:?}", places);
                prop_assert!(!invalid.to_string().contains("fault of mlxctl"), "{}", invalid);
            }
        }
    }
}

const PIECES: &[&str] = &[
    "apiVersion: ",
    "mlxctl.dev/v1alpha1",
    "kind: ModelSpec",
    "\nname: ",
    "\nversion: ",
    "\nfrom: ",
    "\nquantize: ",
    "\nquantization: ",
    "\ntemplate: ",
    "\npromptTemplate: ",
    "\nparameters: ",
    "\ndefaults: ",
    "\nadapters: ",
    "\ntests: ",
    "\nlabels: ",
    "\ntokenizer: ",
    "\ndraft: ",
    "\nfiles: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "\n",
    "\n  ",
    "\n- ",
    "- ",
    "  ",
    "path: ",
    "hf: ",
    "oci: ",
    "mode: ",
    "bits: ",
    "4",
    "group_size: 32",
    "overrides: ",
    "match: ",
    "skip: true",
    "mxfp4",
    "catalog: chatml",
    "inline: ",
    "stop: ",
    "temperature: ",
    "0.5",
    "-1",
    ".inf",
    "1e999",
    "0x",
    "~",
    "null",
    "''",
    "\"",
    "'",
    "|",
    ">",
    "&a ",
    "*a",
    "!!str ",
    "!",
    "# ",
    "---",
    "...",
    "%YAML 1.2",
    "<<: ",
    "? ",
    "é",
    "\u{feff}",
    "\t",
    "\r",
    "prompt: ",
    "expect: ",
    "contains: ",
    "tokens: ",
    "name: ",
    "x",
    "org/m",
    "a@b",
    "revision: ",
    "hfRepo: ",
    "localPath: ",
];
