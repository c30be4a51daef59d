//! Attention of one query head over one sequence's stored keys and values, with an online softmax: the maximum, the
//! sum and the weighted values are carried from block to block of the pool.
//!
//! Blocks are met in order and counted from the start of the sequence, so the order of all sums depends on the query's
//! position and the window, never on how the sequence was cut into steps.

use super::dot::dot;
use super::exp::exp;
use crate::instruction_set::{Arithmetic, for_each_instruction_set};

/// A block of keys or values of one head, f32 `[tokens, features]`, with what the query sees of it.
pub(crate) struct SeenBlock<'a> {
    /// Keys of the block's tokens from its start.
    pub(crate) keys: &'a [f32],
    /// Values of the same.
    pub(crate) values: &'a [f32],
    /// First token of the block that is seen.
    pub(crate) first: usize,
    /// The token after the last that is seen.
    pub(crate) end: usize,
}

/// The softmax so far of one query head.
pub(crate) struct Softmax {
    largest: f32,
    sum: f32,
}

impl Softmax {
    pub(crate) fn new() -> Self {
        Self { largest: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// What the values gathered so far are divided by in the end.
    pub(crate) fn sum(&self) -> f32 {
        self.sum
    }
}

/// How scores are made of products.
#[derive(Clone, Copy)]
pub(crate) struct Scores {
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
}

for_each_instruction_set! {
    /// Takes one more block: updates `softmax` and the weighted sum of values in `out`, `[value_dim]`. `scratch` has
    /// room for a score a token of a block.
    pub(crate) fn attend_block(
        query: &[f32],
        block: &SeenBlock<'_>,
        scores: Scores,
        softmax: &mut Softmax,
        scratch: &mut [f32],
        out: &mut [f32],
    ) = attend_block_body
}

#[inline(always)]
fn attend_block_body<A: Arithmetic>(
    query: &[f32],
    block: &SeenBlock<'_>,
    scores: Scores,
    softmax: &mut Softmax,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let scratch = &mut scratch[..block.end - block.first];
    let keys = block.keys.chunks_exact(query.len()).skip(block.first);
    for (score, key) in scratch.iter_mut().zip(keys) {
        *score = dot::<A>(key, query) * scores.scale;
    }
    if let Some(cap) = scores.soft_cap {
        for score in &mut *scratch {
            *score = cap * libm::tanhf(*score / cap);
        }
    }
    let largest = scratch.iter().fold(softmax.largest, |a, &b| if b > a { b } else { a });
    if largest > softmax.largest {
        let factor = exp::<A>(softmax.largest - largest);
        softmax.sum *= factor;
        for out in &mut *out {
            *out *= factor;
        }
        softmax.largest = largest;
    }
    for score in &mut *scratch {
        *score = exp::<A>(*score - largest);
    }
    for score in &*scratch {
        softmax.sum += score;
    }
    let values = block.values.chunks_exact(out.len()).skip(block.first);
    for (&weight, value) in scratch.iter().zip(values) {
        for (out, value) in out.iter_mut().zip(value) {
            *out = A::multiply_add(weight, *value, *out);
        }
    }
}
