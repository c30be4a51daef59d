//! RMS norm over runs of a row: `x / sqrt(mean(x²) + ε) · weight`, statistics in f32.

use super::dot::dot;
use crate::instruction_set::{Arithmetic, for_each_instruction_set};

for_each_instruction_set! {
    /// Norms each run of `weight`'s length in `x`, in place.
    pub(crate) fn rms_norm(x: &mut [f32], weight: &[f32], epsilon: f32) = rms_norm_body
}

#[inline(always)]
fn rms_norm_body<A: Arithmetic>(x: &mut [f32], weight: &[f32], epsilon: f32) {
    for run in x.chunks_exact_mut(weight.len().max(1)) {
        let mean = dot::<A>(run, run) / weight.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for (x, weight) in run.iter_mut().zip(weight) {
            *x = *x * factor * weight;
        }
    }
}
