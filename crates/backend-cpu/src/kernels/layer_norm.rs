//! Layer norm over rows: `(x − mean) / sqrt(variance + ε) · weight + bias`, statistics in f32.

use super::dot::dot;
use crate::instruction_set::{Arithmetic, for_each_instruction_set};

for_each_instruction_set! {
    /// Norms each run of `weight`'s length in `x`, in place. A `bias` has the same length.
    pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) = layer_norm_body
}

#[inline(always)]
fn layer_norm_body<A: Arithmetic>(x: &mut [f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32) {
    let length = weight.len() as f32;
    for run in x.chunks_exact_mut(weight.len().max(1)) {
        let mean = run.iter().sum::<f32>() / length;
        // Centred first: the mean of squares less the square of the mean would cancel where the mean is large.
        for x in &mut *run {
            *x -= mean;
        }
        let factor = 1.0 / (dot::<A>(run, run) / length + epsilon).sqrt();
        for (x, weight) in run.iter_mut().zip(weight) {
            *x = *x * factor * weight;
        }
        if let Some(bias) = bias {
            for (x, bias) in run.iter_mut().zip(bias) {
                *x += bias;
            }
        }
    }
}
