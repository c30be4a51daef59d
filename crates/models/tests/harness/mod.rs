//! A model with a pool of its own and the shortest way from tokens to logits.

// Each test binary uses its part.
#![allow(dead_code)]

use std::num::NonZeroUsize;

use bytes::Bytes;
use mlxctl_backend::{Backend, Batch, BlockId};
use mlxctl_backend_cpu::{CpuBackend, KvPool};
use mlxctl_models::{Model, load};
use mlxctl_testkit::models::{file, quantize};
use mlxctl_weights::{Checkpoint, Tensor};
use serde_json::Value;

pub(crate) fn backend(threads: usize) -> CpuBackend {
    CpuBackend::new(NonZeroUsize::new(threads).unwrap())
}

/// Pebble's weights, quantised as `config` says.
pub(crate) fn pebble_checkpoint(config: &Value) -> Checkpoint {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../modelspecs/pebble/weights/model.safetensors");
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let plain = Checkpoint::from_files(vec![("model.safetensors".to_owned(), bytes)]).unwrap();
    let tensors: Vec<(String, Tensor)> = plain.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    Checkpoint::from_files(vec![("model.safetensors".to_owned(), file(&quantize(config, tensors)))]).unwrap()
}

/// A model and a pool of 24 blocks.
pub(crate) struct Runner<'a> {
    backend: &'a CpuBackend,
    model: Box<dyn Model<CpuBackend>>,
    kv: KvPool,
}

/// Blocks of sequence `index`, out of order, so that a table that is read as if it were not there shows.
pub(crate) fn blocks(index: u32) -> Vec<BlockId> {
    (0..6).map(|block| BlockId(index * 6 + (block * 5 + 3) % 6)).collect()
}

impl<'a> Runner<'a> {
    pub(crate) fn load(backend: &'a CpuBackend, config: &[u8], checkpoint: &Checkpoint) -> Self {
        let model = load(backend, config, checkpoint).unwrap();
        let kv = backend.kv_pool(&model.kv_layout(), 24).unwrap();
        Self { backend, model, kv }
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    /// The logits a batch asks for.
    pub(crate) fn step(&mut self, batch: &Batch) -> Vec<f32> {
        let logits = self.model.forward(self.backend, batch, &mut self.kv).unwrap();
        self.backend.to_host(&logits).unwrap()
    }

    /// The logits of some rows of one sequence, in one step.
    pub(crate) fn rows(&mut self, tokens: &[u32], rows: &[usize]) -> Vec<f32> {
        let mut batch = Batch::default();
        batch.push(tokens, 0, &blocks(0), false);
        batch.logits = rows.to_vec();
        self.step(&batch)
    }

    /// `count` tokens after the prompt, each the first among the largest.
    pub(crate) fn greedy(&mut self, prompt: &[u32], count: usize) -> Vec<u32> {
        let mut tokens = prompt.to_vec();
        let mut stored = 0;
        while tokens.len() < prompt.len() + count {
            let mut batch = Batch::default();
            batch.push(&tokens[stored..], stored, &blocks(0), true);
            stored = tokens.len();
            let logits = self.step(&batch);
            let best = (0..logits.len()).fold(0, |best, index| if logits[index] > logits[best] { index } else { best });
            tokens.push(best as u32);
        }
        tokens.split_off(prompt.len())
    }
}

/// The golden cases of `golden/families/`, file by file: the name of the file without its ending, and its cases.
pub(crate) fn family_cases() -> Vec<(String, Vec<Value>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/families");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: std::path::PathBuf| {
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), cases)
    };
    files.into_iter().map(read).collect()
}
