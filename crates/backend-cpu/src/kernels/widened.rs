//! The product in plain Rust: the path of every target without kernels of its own, and the scalar twin that the others
//! are held against, bit by bit.
//!
//! Weight rows are widened a few at a time into a scratch buffer, then met by all activation rows, [`TILE`] at once,
//! so that a weight is unpacked once a step however many rows there are.

use super::dot::{TILE, dot, dots};
use super::product::Product;
use super::widen::widen_row;
use crate::aligned::Scratch;
use crate::instruction_set::{Arithmetic, for_each_instruction_set};

/// Bytes of widened weights at a time, to stay in the second-level cache together with the activations.
const SCRATCH_BYTES: usize = 64 << 10;

for_each_instruction_set! {
    /// Computes a task's outputs for every row.
    pub(crate) fn multiply_widened(product: &Product<'_>) = multiply_body
}

#[inline(always)]
fn multiply_body<A: Arithmetic>(product: &Product<'_>) {
    let columns = product.matrix.columns;
    let rows = product.rows();
    // A single row gains nothing from several widened ones, and the smallest buffer is the fastest.
    let at_once = if rows <= TILE { 1 } else { (SCRATCH_BYTES / 4 / columns.max(1)).clamp(1, 16) };
    let mut buffer = Scratch::take();
    let scratch = buffer.numbers(at_once * columns);
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
                    product.store(row + r, first + index, sum);
                }
            }
            row += TILE;
        }
        for row in row..rows {
            for index in 0..count {
                let sum = dot::<A>(&scratch[index * columns..(index + 1) * columns], x(row));
                product.store(row, first + index, sum);
            }
        }
        first += count;
    }
}
