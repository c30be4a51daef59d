//! `docs/families.md` is what the list of families and their golden cases say.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fmt::Write;

use harness::family_cases;
use mlxctl_models::families;
use serde_json::Value;

const INTRODUCTION: &str = "\
# Families

The values of `model_type` in config.json that mlxctl runs. Each configuration below is a random tiny model whose logits
are held to those of mlx-lm, computed in float32: no logit differs by more than 2·10⁻⁵ of the largest of its row. The
same models are cut into chunks, batched with others and run on several threads, and change no bit by it. Where mlx-lm
leaves out the window of an architecture (Mixtral, Phi-3, StarCoder2, Gemma 2, Mistral), the reference has it put in.

Rotary embeddings: plain, `linear`, `llama3`, `yarn`, `longrope` (the long factors at every length, as mlx-lm does),
`dynamic` (up to the trained context, where it is plain), over whole heads or a part of them. A family of its own is an
afternoon: [Adding a family](adding-a-family.md). The table is written by
`MLXCTL_UPDATE=1 cargo test -p mlxctl-models --test families_page`.

| `model_type` | configurations held to the reference |
|---|---|
";

#[test]
fn the_page_of_families_is_up_to_date() {
    let first: Value = serde_json::from_str(include_str!("golden/cases.json")).unwrap();
    let mut cases = first["tiny"].as_array().unwrap().clone();
    cases.extend(family_cases().into_iter().flat_map(|(_, cases)| cases));
    let mut page = INTRODUCTION.to_owned();
    for family in families() {
        let own = cases.iter().filter(|case| case["config"]["model_type"] == *family);
        let names: Vec<String> = own
            .map(|case| format!("{} ({})", case["name"].as_str().unwrap(), case["dtype"].as_str().unwrap()))
            .collect();
        writeln!(page, "| `{family}` | {} |", names.join(", ")).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/families.md");
    if std::env::var_os("MLXCTL_UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == page, "docs/families.md is out of date: run `MLXCTL_UPDATE=1 cargo test -p mlxctl-models`");
}
