//! `x · weightᵀ`: the product that a linear layer is.
//!
//! A task computes some outputs for all rows. Weight rows are widened a few at a time into a scratch buffer, then met
//! by all activation rows, [`TILE`] at once, so that a weight is unpacked once a step however many rows there are.

use std::ops::Range;

use super::dot::{TILE, dot, dots};
use super::widen::widen_row;
use crate::instruction_set::{Arithmetic, for_each_instruction_set};
use crate::scatter::Scatter;
use crate::weight::Matrix;

/// Bytes of widened weights at a time, to stay in the second-level cache together with the activations.
const SCRATCH_BYTES: usize = 64 << 10;

/// The part of a product that one task computes.
pub(crate) struct Product<'a> {
    /// `[rows, columns]`, in the order in which rows of the matrix are widened.
    pub(crate) x: &'a [f32],
    pub(crate) matrix: &'a Matrix,
    /// Added to the outputs, `[matrix.rows]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// The outputs of this task; no other task of the operation has any of them.
    pub(crate) outputs: Range<usize>,
    /// `[rows, matrix.rows]`.
    pub(crate) out: &'a Scatter<'a>,
}

for_each_instruction_set! {
    /// Computes a task's outputs for every row.
    pub(crate) fn multiply(product: &Product<'_>) = multiply_body
}

#[inline(always)]
fn multiply_body<A: Arithmetic>(product: &Product<'_>) {
    let columns = product.matrix.columns;
    let rows = product.x.len().checked_div(columns).unwrap_or(0);
    // A single row gains nothing from several widened ones, and the smallest buffer is the fastest.
    let at_once = if rows <= TILE { 1 } else { (SCRATCH_BYTES / 4 / columns.max(1)).clamp(1, 16) };
    let mut scratch = vec![0.0_f32; at_once * columns];
    let mut first = product.outputs.start;
    while first < product.outputs.end {
        let count = at_once.min(product.outputs.end - first);
        for (index, widened) in scratch.chunks_exact_mut(columns.max(1)).take(count).enumerate() {
            widen_row::<A>(product.matrix, first + index, widened);
        }
        let x = |row: usize| &product.x[row * columns..(row + 1) * columns];
        let mut row = 0;
        while row + TILE <= rows {
            let tile = [x(row), x(row + 1), x(row + 2), x(row + 3)];
            for index in 0..count {
                let sums = dots::<A>(&scratch[index * columns..(index + 1) * columns], tile);
                for (r, sum) in sums.into_iter().enumerate() {
                    store(product, row + r, first + index, sum);
                }
            }
            row += TILE;
        }
        for row in row..rows {
            for index in 0..count {
                let sum = dot::<A>(&scratch[index * columns..(index + 1) * columns], x(row));
                store(product, row, first + index, sum);
            }
        }
        first += count;
    }
}

#[inline(always)]
fn store(product: &Product<'_>, row: usize, output: usize, sum: f32) {
    // SAFETY: `output` belongs to this task alone, so this place does.
    #[allow(unsafe_code)]
    let place = unsafe { product.out.part(row * product.matrix.rows + output, 1) };
    place[0] = match product.bias {
        Some(bias) => sum + bias[output],
        None => sum,
    };
}
