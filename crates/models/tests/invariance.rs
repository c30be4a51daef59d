//! A sequence's logits are the same to the bit however its tokens are cut into steps, whatever shares them, and on any
//! number of threads.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Runner, backend, blocks, family_cases};
use mlxctl_backend::Batch;
use mlxctl_testkit::models::TinyModel;
use mlxctl_weights::Dtype;
use serde_json::json;

/// A model of each kind of storage, with a window that is shorter than the sequences, and every golden case.
fn models() -> Vec<TinyModel> {
    let with = |key: &str, value: serde_json::Value, dtype| {
        let mut model = TinyModel::qwen3();
        model.config[key] = value;
        model.dtype = dtype;
        model
    };
    let mut sliding = with("model_type", json!("mistral"), Dtype::F16);
    sliding.config["sliding_window"] = json!(9);
    let mut models = vec![
        TinyModel::qwen3(),
        with("quantization", json!({"group_size": 32, "bits": 4}), Dtype::BF16),
        with("quantization", json!({"group_size": 32, "bits": 8}), Dtype::F32),
        sliding,
    ];
    models.extend(family_cases().iter().flat_map(|(_, cases)| cases).map(TinyModel::golden));
    models
}

fn tokens(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|index| (index * index * 5 + index * 11 + seed) % 32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn chunks_of_a_prompt_change_no_bit() {
    for model in models() {
        let backend = backend(2);
        let mut runner = Runner::load(&backend, &model.config_json(), &model.checkpoint());
        let tokens = tokens(1, 75);
        let rows: Vec<usize> = (0..tokens.len()).collect();
        let whole = runner.rows(&tokens, &rows);
        for chunk in [1, 7, 32, 33] {
            let mut parts = Vec::new();
            for (index, part) in tokens.chunks(chunk).enumerate() {
                let mut batch = Batch::default();
                batch.push(part, index * chunk, &blocks(1), false);
                batch.logits = (0..part.len()).collect();
                parts.extend(runner.step(&batch));
            }
            assert_eq!(bits(&parts), bits(&whole), "in chunks of {chunk}: {}", model.config);
        }
    }
}

#[test]
fn other_sequences_and_threads_change_no_bit() {
    for model in models() {
        let lengths = [75, 1, 40];
        let alone: Vec<Vec<f32>> = (0..3)
            .map(|index| {
                let backend = backend(1);
                let mut runner = Runner::load(&backend, &model.config_json(), &model.checkpoint());
                let tokens = tokens(index, lengths[index as usize] + 3);
                let last = tokens.len() - 4;
                runner.rows(&tokens, &[last, last + 1, last + 2, last + 3])
            })
            .collect();
        for threads in [1, 2, 3] {
            let backend = backend(threads);
            let mut runner = Runner::load(&backend, &model.config_json(), &model.checkpoint());
            let vocabulary = runner.vocabulary();
            let mut together = vec![Vec::new(); 3];
            // The prompts, then three decodes, all sequences in one batch.
            for step in 0..4 {
                let mut batch = Batch::default();
                for index in 0..3_u32 {
                    let length = lengths[index as usize];
                    let tokens = tokens(index, length + 3);
                    let range = if step == 0 { 0..length } else { length + step - 1..length + step };
                    batch.push(&tokens[range.clone()], range.start, &blocks(index), true);
                }
                for (index, row) in runner.step(&batch).chunks(vocabulary).enumerate() {
                    together[index].extend_from_slice(row);
                }
            }
            for (index, (together, alone)) in together.iter().zip(&alone).enumerate() {
                assert_eq!(bits(together), bits(alone), "{threads} threads, sequence {index}: {}", model.config);
            }
        }
    }
}

#[test]
fn a_step_that_asks_for_no_logits_stores_its_tokens_all_the_same() {
    let model = TinyModel::qwen3();
    let backend = backend(2);
    let mut runner = Runner::load(&backend, &model.config_json(), &model.checkpoint());
    let tokens = tokens(4, 20);
    let expected = runner.rows(&tokens, &[19]);
    let mut batch = Batch::default();
    batch.push(&tokens[..19], 0, &blocks(2), false);
    assert!(runner.step(&batch).is_empty());
    let mut batch = Batch::default();
    batch.push(&tokens[19..], 19, &blocks(2), true);
    assert_eq!(bits(&runner.step(&batch)), bits(&expected));
}
