//! Logits against mlx-lm's, computed in float32 by `tools/parity/reference.py` and committed under `golden/`.
//!
//! Stated margin: no logit differs by more than [`MARGIN`] times the spread of its row, and the first choice is the
//! same unless the reference's first two lie within twice that.

#![allow(clippy::unwrap_used)]

mod harness;

use bytes::Bytes;
use harness::{Runner, backend, family_cases, pebble_checkpoint};
use mlxctl_testkit::models::TinyModel;
use mlxctl_weights::{Checkpoint, Dtype, Tensor};
use serde_json::Value;

/// Largest difference, as a part of the largest logit of the row by magnitude.
const MARGIN: f32 = 2e-5;

fn cases() -> Value {
    serde_json::from_str(include_str!("golden/cases.json")).unwrap()
}

fn golden() -> Checkpoint {
    let file = Bytes::from_static(include_bytes!("golden/logits.safetensors"));
    Checkpoint::from_files(vec![("logits.safetensors".to_owned(), file)]).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn usizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

fn tokens(case: &Value) -> Vec<u32> {
    usizes(&case["tokens"]).into_iter().map(|token| token as u32).collect()
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}

/// Compares rows of logits; gives the largest difference in units of the row's largest logit.
fn compare(name: &str, ours: &[f32], reference: &[f32], width: usize) -> f32 {
    assert_eq!(ours.len(), reference.len(), "{name}");
    let mut worst = 0.0_f32;
    for (row, (ours, reference)) in ours.chunks(width).zip(reference.chunks(width)).enumerate() {
        let unit = reference.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let difference = ours.iter().zip(reference).fold(0.0_f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(difference <= MARGIN * unit, "{name}, row {row}: differs by {difference}, largest logit {unit}");
        let (mine, theirs) = (largest(ours), largest(reference));
        let tie = reference[theirs] - reference[mine] <= 2.0 * MARGIN * unit;
        assert!(mine == theirs || tie, "{name}, row {row}: first choice {mine}, reference {theirs}");
        worst = worst.max(difference / unit);
    }
    worst
}

#[test]
fn tiny_models_of_every_family_give_the_logits_of_mlx_lm() {
    let golden = golden();
    let mut worst = 0.0_f32;
    for case in cases()["tiny"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let dtype = match case["dtype"].as_str().unwrap() {
            "float32" => Dtype::F32,
            "float16" => Dtype::F16,
            _ => Dtype::BF16,
        };
        let mut model = TinyModel::new(case["config"].clone(), dtype, case["seed"].as_u64().unwrap());
        model.files = case["files"].as_u64().unwrap() as usize;
        let backend = backend(2);
        let mut runner = Runner::load(&backend, &model.config_json(), &model.checkpoint());
        let tokens = tokens(case);
        let rows: Vec<usize> = (0..tokens.len()).collect();
        let ours = runner.rows(&tokens, &rows);
        let difference = compare(name, &ours, &numbers(golden.get(name).unwrap()), runner.vocabulary());
        println!("{name}: {difference:.2e}");
        worst = worst.max(difference);
    }
    println!("largest difference, relative to the largest logit of its row: {worst:.2e}");
}

/// The logits of the rows that a golden case keeps.
fn kept(case: &Value) -> Vec<f32> {
    let rows = case["logits"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    rows.map(|logit| logit.as_f64().unwrap() as f32).collect()
}

#[test]
fn every_family_has_a_golden_case_and_gives_the_logits_of_mlx_lm() {
    let mut seen: Vec<String> = cases()["tiny"].as_array().unwrap().iter().map(model_type).collect();
    let mut failures = Vec::new();
    for (file, cases) in family_cases() {
        for case in &cases {
            let name = format!("{file}: {}", case["name"].as_str().unwrap());
            seen.push(model_type(case));
            let model = TinyModel::golden(case);
            let result = std::panic::catch_unwind(|| {
                let backend = backend(2);
                let mut runner = Runner::load(&backend, &model.config_json(), &model.checkpoint());
                let ours = runner.rows(&tokens(case), &usizes(&case["rows"]));
                compare(&name, &ours, &kept(case), runner.vocabulary())
            });
            match result {
                Ok(difference) => println!("{name}: {difference:.2e}"),
                Err(_) => failures.push(name),
            }
        }
    }
    assert!(failures.is_empty(), "differ from the reference: {failures:#?}");
    for family in mlxctl_models::families() {
        assert!(seen.iter().any(|seen| seen == family), "no golden case has `model_type` {family}");
    }
}

fn model_type(case: &Value) -> String {
    case["config"]["model_type"].as_str().unwrap().to_owned()
}

#[test]
fn pebble_gives_the_logits_and_the_text_of_mlx_lm() {
    let golden = golden();
    for case in cases()["pebble"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let backend = backend(2);
        let checkpoint = pebble_checkpoint(&case["config"]);
        let mut runner = Runner::load(&backend, case["config"].to_string().as_bytes(), &checkpoint);
        let tokens = tokens(case);
        let ours = runner.rows(&tokens, &usizes(&case["rows"]));
        let difference = compare(name, &ours, &numbers(golden.get(name).unwrap()), runner.vocabulary());
        println!("{name}: {difference:.2e}");
        let prompt = case["prompt"].as_u64().unwrap() as usize;
        let answer = runner.greedy(&tokens[..prompt], tokens.len() - prompt);
        assert_eq!(answer, tokens[prompt..], "{name}: {}", case["text"]);
        assert!(case["text"].as_str().unwrap().contains("Paris"), "{name}");
    }
}
