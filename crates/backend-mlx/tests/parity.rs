//! Whole forward passes of Pebble, a Qwen3 model, on MLX and on the CPU backend: the same logits within a margin, and
//! the same most likely token.
//!
//! Both compute in f32 from the same weights, so what is left between them is the order of additions. The margin says
//! how far apart that may be; a wrong mask, position, scale or packing is off by far more.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use bytes::Bytes;
use mlxctl_backend::{Backend, Batch, BlockId, TokenId};
use mlxctl_backend_cpu::CpuBackend;
use mlxctl_backend_mlx::{Device, Mlx, Options, Precision};
use mlxctl_weights::{
    Affine, Checkpoint, Dtype, Layout, MatrixView, Quantization, QuantizationConfig, SafetensorsWriter, TensorSpec,
    quantize_affine,
};
use serde_json::Value;

/// Largest difference between two logits, which for Pebble lie between -15 and 26, where neighbours in f32 are 2e-6
/// apart. Measured on x86-64: 1.7e-5, of bf16 and of quantised weights; the rest is for other orders of addition.
const MARGIN: f32 = 1e-4;

/// `What is the capital of France?` in Pebble's template, up to where the assistant answers.
const PROMPT: [TokenId; 31] = [
    1, 320, 203, 303, 311, 327, 16, 273, 333, 321, 18, 316, 331, 18, 2, 203, 1, 288, 203, 371, 299, 352, 373, 340,
    1524, 35, 2, 203, 1, 286, 203,
];

struct Weights {
    config: Vec<u8>,
    checkpoint: Checkpoint,
}

fn pebble() -> Weights {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../modelspecs/pebble/weights");
    let file = Bytes::from(std::fs::read(folder.join("model.safetensors")).unwrap());
    let checkpoint = Checkpoint::from_files(vec![("model.safetensors".to_owned(), file)]).unwrap();
    Weights { config: std::fs::read(folder.join("config.json")).unwrap(), checkpoint }
}

/// The same model with every matrix quantised, as `mlxctl create` writes it.
fn quantised(plain: &Weights, bits: u32) -> Weights {
    let affine = Affine::new(bits, 64).unwrap();
    let mut tensors: Vec<(TensorSpec, Vec<u8>)> = Vec::new();
    for (name, tensor) in plain.checkpoint.iter() {
        let [rows, columns] = *tensor.shape else {
            tensors.push((TensorSpec::of(name, tensor), tensor.data.to_vec()));
            continue;
        };
        let matrix = MatrixView { rows, columns, dtype: tensor.dtype, data: &tensor.data };
        let packed = quantize_affine(matrix, affine, 1).unwrap();
        let module = name.strip_suffix(".weight").unwrap();
        let words = Quantization::from(affine).packed_columns(columns).unwrap();
        for (part, dtype, width, data) in [
            ("weight", Dtype::U32, words, packed.weight),
            ("scales", tensor.dtype, columns / 64, packed.scales),
            ("biases", tensor.dtype, columns / 64, packed.biases),
        ] {
            tensors.push((TensorSpec { name: format!("{module}.{part}"), dtype, shape: vec![rows, width] }, data));
        }
    }
    let specs = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let layout = Layout::new(specs, &BTreeMap::new()).unwrap();
    let order: Vec<String> = layout.tensors().iter().map(|spec| spec.name.clone()).collect();
    let mut writer = SafetensorsWriter::new(layout, Vec::new()).unwrap();
    for name in order {
        let (_, data) = tensors.iter().find(|(spec, _)| spec.name == name).unwrap();
        writer.write(&name, data).unwrap();
    }
    let file = Bytes::from(writer.finish().unwrap());
    let mut config: Value = serde_json::from_slice(&plain.config).unwrap();
    config["quantization"] = QuantizationConfig::new(affine.into()).to_json().unwrap();
    Weights {
        config: serde_json::to_vec(&config).unwrap(),
        checkpoint: Checkpoint::from_files(vec![("model.safetensors".to_owned(), file)]).unwrap(),
    }
}

/// Teacher-forced logits of every token of two sequences, in order: the prompt whole, and while it is in the cache, the
/// second sequence in four chunks of `chunk` tokens beside single tokens of the first.
fn logits<B: Backend>(backend: &B, weights: &Weights, chunk: usize) -> (Vec<f32>, usize) {
    let model = mlxctl_models::load(backend, &weights.config, &weights.checkpoint).unwrap();
    let vocabulary = model.vocabulary();
    let layout = model.kv_layout();
    let other: Vec<TokenId> =
        (0..4 * chunk as TokenId).map(|index| (index * 997 + 13) % vocabulary as TokenId).collect();
    let each = layout.blocks_for(128) as u32;
    // The second sequence's blocks lie backwards in the pool.
    let first: Vec<BlockId> = (0..each).map(BlockId).collect();
    let second: Vec<BlockId> = (each..2 * each).rev().map(BlockId).collect();
    let mut kv = backend.kv_pool(&layout, 2 * each as usize).unwrap();

    let (start, rest) = PROMPT.split_at(PROMPT.len() - 4);
    let mut batches = vec![Batch::default()];
    batches[0].push(start, 0, &first, false);
    for (index, token) in rest.iter().enumerate() {
        let mut batch = Batch::default();
        batch.push(&[*token], start.len() + index, &first, false);
        batch.push(&other[index * chunk..][..chunk], index * chunk, &second, false);
        batches.push(batch);
    }
    let mut all = Vec::new();
    for mut batch in batches {
        batch.logits = (0..batch.tokens.len()).collect();
        let logits = model.forward(backend, &batch, &mut kv).unwrap();
        all.extend(backend.to_host(&logits).unwrap());
    }
    (all, vocabulary)
}

fn top(logits: &[f32]) -> usize {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map(|(token, _)| token).unwrap()
}

#[track_caller]
fn assert_same(weights: &Weights, what: &str) {
    let mlx = Mlx::open(Options { device: Some(Device::Cpu), precision: Some(Precision::Float32) }).unwrap();
    let (found, vocabulary) = logits(&mlx, weights, 25);
    let (expected, _) = logits(&CpuBackend::new(NonZeroUsize::MIN), weights, 25);
    assert_eq!(found.len(), (PROMPT.len() + 100) * vocabulary);
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().chain(&expected).all(|logit| logit.is_finite()), "{what}: logits that are not numbers");
    let difference = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let range = expected.iter().fold((0.0_f32, 0.0_f32), |(low, high), &x| (low.min(x), high.max(x)));
    println!("{what}: {} logits in {range:?}, largest difference {difference:e}", found.len());
    assert!(difference <= MARGIN, "{what}: {difference} is more than {MARGIN}");
    for (row, (found, expected)) in found.chunks(vocabulary).zip(expected.chunks(vocabulary)).enumerate() {
        assert_eq!(top(found), top(expected), "{what}: the most likely token of row {row}");
    }
}

/// The precisions of GPUs, on a CPU whose products accumulate in them: the distance of the logits from those in f32,
/// relative to their size. A rounding moves a number by up to 2⁻¹¹ of it in f16 and 2⁻⁸ in bf16; the bound is forty.
#[test]
fn half_precision_stays_near() {
    let plain = pebble();
    let packed = quantised(&plain, 8);
    for (precision, bound) in [(Precision::Float16, 0.02), (Precision::Bfloat16, 0.16)] {
        for (weights, what) in [(&plain, "bf16"), (&packed, "8-bit")] {
            let mlx = Mlx::open(Options { device: Some(Device::Cpu), precision: Some(precision) }).unwrap();
            let (found, _) = logits(&mlx, weights, 1);
            let (expected, _) = logits(&CpuBackend::new(NonZeroUsize::MIN), weights, 1);
            let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
            let apart = squares(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
            let distance = (apart / squares(&mut expected.iter().copied())).sqrt();
            println!("{precision:?} activations, {what} weights: relative distance {distance:.4}");
            assert!(distance < bound, "{precision:?}, {what} weights: {distance}");
        }
    }
}

#[test]
fn pebble_in_bf16_gives_the_same_logits() {
    assert_same(&pebble(), "bf16 weights");
}

#[test]
fn pebble_quantised_gives_the_same_logits() {
    let plain = pebble();
    for bits in [4, 8] {
        assert_same(&quantised(&plain, bits), &format!("affine weights of {bits} bits"));
    }
}
