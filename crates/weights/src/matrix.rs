//! The one way in to every quantiser, [`quantize`] and [`dequantize`], and what the codecs behind it share: views of
//! matrices, checks of their sizes, sharing groups among threads, reading and writing floats.

#![allow(
    clippy::inline_always,
    reason = "what a thread's work calls is compiled for its vectors only where it is inlined"
)]

use std::thread;

use crate::affine::{dequantize_affine, quantize_affine};
use crate::cast::{bf16_bits, bf16_to_f32, f16_bits, f16_to_f32};
use crate::microscaling::{dequantize_microscaling, quantize_microscaling};
use crate::{Affine, Dtype, Error, Mode, Quantization};

/// A row-major matrix of weights, little-endian, at any alignment. Stacked matrices are one matrix of all their rows.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub columns: usize,
    /// F32, F16 or BF16.
    pub dtype: Dtype,
    /// `rows · columns` elements.
    pub data: &'a [u8],
}

/// What the quantiser makes of a matrix `[rows, columns]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizedTensors {
    /// `[rows, columns · bits / 32]` of U32, little-endian: along a row, codes packed from the lowest bit up.
    pub weight: Vec<u8>,
    /// `[rows, columns / group_size]` in [`Quantization::scale_dtype`].
    pub scales: Vec<u8>,
    /// As `scales`; empty where the mode has no biases.
    pub biases: Vec<u8>,
}

/// A quantised matrix to read: the buffers of [`QuantizedTensors`] with the shape and type of the plain matrix.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedView<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Length of a row, in weights.
    pub columns: usize,
    /// Type of the result, and of scales and biases in mode affine: F32, F16 or BF16.
    pub dtype: Dtype,
    /// Packed codes.
    pub weight: &'a [u8],
    /// One scale a group.
    pub scales: &'a [u8],
    /// One bias a group; empty where the mode has none.
    pub biases: &'a [u8],
}

/// Quantises a matrix to any format on `threads` threads (at least one). The result is independent of their number.
///
/// Groups are independent of each other and lie in their order in all three results, so that a long matrix can be
/// handed over in pieces of whole groups and the results be joined.
pub fn quantize(matrix: MatrixView<'_>, format: Quantization, threads: usize) -> Result<QuantizedTensors, Error> {
    match format.mode() {
        Mode::Affine => quantize_affine(matrix, Affine::try_from(format)?, threads),
        _ => quantize_microscaling(matrix, format, threads),
    }
}

/// The matrix `[rows, columns]` of a quantised one, as `mx.dequantize` computes it in `matrix.dtype` on a CPU.
pub fn dequantize(matrix: QuantizedView<'_>, format: Quantization, threads: usize) -> Result<Vec<u8>, Error> {
    match format.mode() {
        Mode::Affine => dequantize_affine(matrix, Affine::try_from(format)?, threads),
        _ => dequantize_microscaling(matrix, format, threads),
    }
}

/// Number of groups of a matrix, or why it has none.
pub(crate) fn groups_of(format: Quantization, rows: usize, columns: usize, what: &'static str) -> Result<usize, Error> {
    let size = format.group_size() as usize;
    let groups = rows.checked_mul(columns).filter(|_| columns.is_multiple_of(size)).map(|weights| weights / size);
    groups.ok_or_else(|| Error::Unfit {
        what,
        expected: format!("rows of a multiple of {size} columns"),
        found: format!("{rows} rows of {columns}"),
    })
}

pub(crate) fn check_float(what: &'static str, dtype: Dtype) -> Result<(), Error> {
    if dtype.is_weight_float() {
        return Ok(());
    }
    Err(Error::Unfit { what, expected: "F32, F16 or BF16".to_owned(), found: dtype.to_string() })
}

pub(crate) fn check_length(what: &'static str, data: &[u8], count: usize, size: usize) -> Result<(), Error> {
    if count.checked_mul(size) == Some(data.len()) {
        return Ok(());
    }
    Err(Error::Unfit { what, expected: format!("{count} times {size} bytes"), found: format!("{} bytes", data.len()) })
}

/// Groups that each of `threads` threads takes, at least one.
pub(crate) fn share_of(groups: usize, threads: usize) -> usize {
    groups.div_ceil(threads.clamp(1, 1024)).max(1)
}

/// Runs each piece of work, on threads of their own where there are several, with the widest vectors that the processor
/// has. For that, all that a work calls has to be inlined into it: the functions of inner loops are marked so. Vectors
/// change no result, as each number is computed by the same operations.
pub(crate) fn run_all<W: pulp::NullaryFnOnce + Send>(works: impl Iterator<Item = W>, is_one: bool) {
    let processor = pulp::Arch::new();
    if is_one {
        works.for_each(|work| drop(processor.dispatch(work)));
    } else {
        thread::scope(|scope| works.for_each(|work| drop(scope.spawn(move || drop(processor.dispatch(work))))));
    }
}

/// Reads little-endian elements of `dtype`, exactly.
#[inline(always)]
pub(crate) fn load(dtype: Dtype, data: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F16 => widen(data, values, |bytes| f16_to_f32(u16::from_le_bytes(bytes))),
        Dtype::BF16 => widen(data, values, |bytes| bf16_to_f32(u16::from_le_bytes(bytes))),
        _ => widen(data, values, f32::from_le_bytes),
    }
}

#[inline(always)]
fn widen<const SIZE: usize>(data: &[u8], values: &mut [f32], one: impl Fn([u8; SIZE]) -> f32) {
    for (value, &bytes) in values.iter_mut().zip(data.as_chunks::<SIZE>().0) {
        *value = one(bytes);
    }
}

/// Writes one value, rounded to `dtype`, little-endian.
#[inline(always)]
pub(crate) fn store(dtype: Dtype, value: f32, out: &mut [u8]) {
    match dtype {
        Dtype::F16 => out.copy_from_slice(&f16_bits(value).to_le_bytes()),
        Dtype::BF16 => out.copy_from_slice(&bf16_bits(value).to_le_bytes()),
        _ => out.copy_from_slice(&value.to_le_bytes()),
    }
}

/// The value rounded to `dtype`.
#[inline(always)]
pub(crate) fn round(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::F16 => f16_to_f32(f16_bits(value)),
        Dtype::BF16 => bf16_to_f32(bf16_bits(value)),
        _ => value,
    }
}
