//! Products in tiles of `W` weight rows and `R` activation rows, over [`Lanes`].
//!
//! Up to eight rows read the stored weights directly and unpack them in registers. More rows read weights that are
//! unpacked once into a scratch buffer, a block of outputs at a time:
//!
//! ```text
//!            ┌ R rows of x ┐   for a block of outputs:    widen its weights            (second-level cache)
//! W weights  │  W·R sums   │     for R rows of x:         these stay in the first-level cache
//!   of the   │ in registers│       for a run of columns:
//!   block    └─────────────┘         for W weights of the block:  go on with their sums
//! ```

#![allow(unsafe_code)]

use std::marker::PhantomData;

use mlxctl_weights::Dtype;

use super::lanes::Lanes;
use super::product::Product;
use super::stored::{Bf16, Bits4, Bits8, CodedRow, CodedTile, F16, F32, Plain, PlainTile};
use super::widen::widen_row;
use crate::aligned::Scratch;
use crate::instruction_set::Fused;
use crate::weight::{Affine, Matrix, Storage};

/// Bytes of widened weights at a time: a part of the second-level cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Weight rows of a tile of many rows.
const WEIGHTS: usize = 4;

/// Activation rows of the largest tile.
const LARGEST: usize = 6;

/// Chunks of a run of columns: six rows of them fit the first-level cache.
const RUN: usize = 64;

/// Whether these kernels take a matrix: rows are whole chunks.
pub(crate) fn suits(matrix: &Matrix) -> bool {
    matrix.columns > 0 && matrix.columns.is_multiple_of(16)
}

/// Computes a task's outputs for every row.
///
/// # Safety
/// The processor has the instructions of `L`; the matrix suits.
#[inline(always)]
pub(crate) unsafe fn multiply<L: Lanes>(product: &Product<'_>) {
    let direct = match &product.matrix.storage {
        Storage::Dense { .. } => true,
        Storage::Affine(affine) => matches!(affine.bits, 4 | 8),
    };
    // SAFETY: the caller's word.
    unsafe {
        match (product.rows(), L::WIDE) {
            (1, _) if direct => few::<L, 4, 1>(product),
            (2, true) if direct => few::<L, 4, 2>(product),
            (2, false) if direct => few::<L, 2, 2>(product),
            (3 | 4, true) if direct => few::<L, 4, 4>(product),
            (5..=8, true) if direct => few::<L, 2, 8>(product),
            _ => many::<L>(product),
        }
    }
}

/// At most `R` rows. The last of rows and outputs fill what a tile has too many of, and are not kept.
#[inline(always)]
unsafe fn few<L: Lanes, const W: usize, const R: usize>(product: &Product<'_>) {
    let Product { x, matrix, outputs, .. } = product;
    let rows = product.rows().min(R);
    let columns = matrix.columns;
    let mut pointers = [x.as_ptr(); R];
    for (row, pointer) in pointers.iter_mut().enumerate() {
        *pointer = x[row.min(rows - 1) * columns..].as_ptr();
    }
    for first in outputs.clone().step_by(W) {
        let mut indices = [first; W];
        for (index, place) in indices.iter_mut().enumerate() {
            *place = (first + index).min(outputs.end - 1);
        }
        let mut totals = [[0.0; R]; W];
        // SAFETY: rows of the matrix and of `x` have `columns` numbers; the instructions are the caller's word.
        unsafe {
            match &matrix.storage {
                Storage::Dense { data, dtype } => {
                    let size = dtype.size();
                    let mut w = [data.as_ptr(); W];
                    for (w, index) in w.iter_mut().zip(indices) {
                        *w = data[index * columns * size..(index + 1) * columns * size].as_ptr();
                    }
                    match dtype {
                        Dtype::BF16 => plain::<L, Bf16, W, R>(w, pointers, columns / 16, &mut totals),
                        Dtype::F16 => plain::<L, F16, W, R>(w, pointers, columns / 16, &mut totals),
                        _ => plain::<L, F32, W, R>(w, pointers, columns / 16, &mut totals),
                    }
                }
                Storage::Affine(affine) => {
                    let mut rows = [coded_row(affine, columns, first); W];
                    for (row, index) in rows.iter_mut().zip(indices) {
                        *row = coded_row(affine, columns, index);
                    }
                    let totals = &mut totals;
                    if affine.bits == 4 {
                        L::run(CodedTile { rows, x: pointers, totals, format: PhantomData::<Bits4<L>> });
                    } else {
                        L::run(CodedTile { rows, x: pointers, totals, format: PhantomData::<Bits8<L>> });
                    }
                }
            }
        }
        for (index, totals) in totals.iter().enumerate().take(outputs.end - first) {
            for (row, sum) in totals.iter().enumerate().take(rows) {
                product.store(row, first + index, *sum);
            }
        }
    }
}

/// Whole rows of plain weights.
///
/// # Safety
/// As for [`PlainTile`] and [`Lanes`].
#[inline(always)]
unsafe fn plain<L: Lanes, P: Plain<L>, const W: usize, const R: usize>(
    w: [*const u8; W],
    x: [*const f32; R],
    chunks: usize,
    totals: &mut [[f32; R]; W],
) {
    let kept = std::ptr::null_mut();
    // SAFETY: the caller's word; `kept` is used neither in a first nor in a last run.
    unsafe {
        L::run(PlainTile { w, x, chunks, kept, is_first: true, totals: Some(totals), format: PhantomData::<P> });
    }
}

#[inline(always)]
fn coded_row(affine: &Affine, columns: usize, row: usize) -> CodedRow<'_> {
    let Affine { dtype, bits, group_size, .. } = *affine;
    let bytes = columns * bits / 8;
    let parameters = columns / group_size * dtype.size();
    let parameters = row * parameters..(row + 1) * parameters;
    CodedRow {
        codes: &affine.codes[row * bytes..(row + 1) * bytes],
        scales: &affine.scales[parameters.clone()],
        biases: &affine.biases[parameters],
        dtype,
        group_size,
    }
}

/// Any number of rows.
#[inline(always)]
unsafe fn many<L: Lanes>(product: &Product<'_>) {
    let Product { matrix, outputs, .. } = product;
    let columns = matrix.columns;
    let at_once = (BLOCK_BYTES / 4 / columns / WEIGHTS * WEIGHTS).clamp(WEIGHTS, 64);
    let mut scratch = Scratch::take();
    let buffer = scratch.numbers(at_once * columns + at_once * LARGEST * 16);
    let (weights, sums) = buffer.split_at_mut(at_once * columns);
    for first in outputs.clone().step_by(at_once) {
        let count = at_once.min(outputs.end - first);
        for (index, widened) in weights.chunks_exact_mut(columns).take(count).enumerate() {
            widen_row::<Fused>(matrix, first + index, widened);
        }
        let block = Block { product, weights, first, count };
        let rows = product.rows();
        let mut row = 0;
        // SAFETY: the caller's word.
        unsafe {
            if L::WIDE {
                while row + LARGEST <= rows {
                    block.tile::<L, WEIGHTS, LARGEST>(row, sums);
                    row += LARGEST;
                }
                while row + 3 <= rows {
                    block.tile::<L, WEIGHTS, 3>(row, sums);
                    row += 3;
                }
            }
            while row + 2 <= rows {
                block.tile::<L, 2, 2>(row, sums);
                row += 2;
            }
            if row < rows {
                block.tile::<L, WEIGHTS, 1>(row, sums);
            }
        }
    }
}

/// A block of outputs whose weights are widened.
struct Block<'a> {
    product: &'a Product<'a>,
    /// `[count, columns]`, and room behind.
    weights: &'a [f32],
    first: usize,
    count: usize,
}

impl Block<'_> {
    /// The block's outputs for `R` rows from `row` on. `sums` has room for sixteen numbers a sum.
    #[inline(always)]
    unsafe fn tile<L: Lanes, const W: usize, const R: usize>(&self, row: usize, sums: &mut [f32]) {
        let columns = self.product.matrix.columns;
        let chunks = columns / 16;
        for run in (0..chunks).step_by(RUN) {
            let length = RUN.min(chunks - run);
            let is_last = run + length == chunks;
            let mut x = [self.product.x.as_ptr(); R];
            for (r, x) in x.iter_mut().enumerate() {
                *x = self.product.x[(row + r) * columns + run * 16..(row + r + 1) * columns].as_ptr();
            }
            for (tile, kept) in sums.chunks_exact_mut(W * R * 16).enumerate().take(self.count.div_ceil(W)) {
                let mut w = [self.weights.as_ptr().cast::<u8>(); W];
                for (index, w) in w.iter_mut().enumerate() {
                    let index = (tile * W + index).min(self.count - 1);
                    *w = self.weights[index * columns + run * 16..(index + 1) * columns].as_ptr().cast();
                }
                let mut totals = [[0.0; R]; W];
                // SAFETY: rows of `x` and of the weights have `columns` numbers, of which `length` chunks are left;
                // a tile keeps as many sums as `kept` has room for. The instructions are the caller's word.
                unsafe {
                    L::run(PlainTile {
                        w,
                        x,
                        chunks: length,
                        kept: kept.as_mut_ptr(),
                        is_first: run == 0,
                        totals: is_last.then_some(&mut totals),
                        format: PhantomData::<F32>,
                    });
                }
                if is_last {
                    let outputs = self.first + tile * W..(self.first + self.count).min(self.first + tile * W + W);
                    for (output, totals) in outputs.zip(&totals) {
                        for (r, sum) in totals.iter().enumerate() {
                            self.product.store(row + r, output, *sum);
                        }
                    }
                }
            }
        }
    }
}
