//! Stored weights to f32: one row of a matrix at a time, into a scratch buffer that the products read.
//!
//! Layouts, little-endian and at any address: plain rows of f32, f16 or bf16; MLX's affine rows, `columns · bits / 8`
//! bytes of codes packed from the lowest bit up (weight `i` of a 4-bit row is nibble `i % 2` of byte `i / 2`), with one
//! scale and one bias a group. A weight is `code · scale + bias` in f32.

use mlxctl_weights::Dtype;

use crate::instruction_set::{Arithmetic, for_each_instruction_set};
use crate::weight::{Affine, Matrix, Storage};

/// Weights that 16 bytes of 4-bit codes hold; divides every group size.
pub(crate) const UNIT: usize = 32;

for_each_instruction_set! {
    /// Row `row` of the matrix, into `out` of its length: an embedding's row.
    pub(crate) fn widen_one_row(matrix: &Matrix, row: usize, out: &mut [f32]) = widen_one_row_body
}

#[inline(always)]
fn widen_one_row_body<A: Arithmetic>(matrix: &Matrix, row: usize, out: &mut [f32]) {
    widen_row::<A>(matrix, row, out);
    if units(matrix) {
        for unit in out.as_chunks_mut::<UNIT>().0 {
            let ordered = *unit;
            let (even, odd) = ordered.split_at(UNIT / 2);
            for ((pair, even), odd) in unit.as_chunks_mut::<2>().0.iter_mut().zip(even).zip(odd) {
                *pair = [*even, *odd];
            }
        }
    }
}

/// Whether rows of this matrix are widened out of order: within each [`UNIT`], first the weights of even index, then
/// those of odd index. A byte of 4-bit codes holds one of each, and taken apart so they need no shuffling.
pub(crate) fn units(matrix: &Matrix) -> bool {
    matches!(&matrix.storage, Storage::Affine(Affine { bits: 4, .. }))
}

/// Activations in the order of a matrix of [`units`]; rows are whole units.
pub(crate) fn order_activations(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.as_chunks::<UNIT>().0.iter().zip(out.as_chunks_mut::<UNIT>().0) {
        let (even, odd) = out.split_at_mut(UNIT / 2);
        for ((pair, even), odd) in x.as_chunks::<2>().0.iter().zip(even).zip(odd) {
            (*even, *odd) = (pair[0], pair[1]);
        }
    }
}

/// Row `row` of the matrix, into `out` of its length; out of order where it has [`units`].
#[inline(always)]
pub(crate) fn widen_row<A: Arithmetic>(matrix: &Matrix, row: usize, out: &mut [f32]) {
    match &matrix.storage {
        Storage::Dense { data, dtype } => {
            let size = dtype.size();
            let bytes = &data[row * matrix.columns * size..(row + 1) * matrix.columns * size];
            widen(*dtype, bytes, out);
        }
        Storage::Affine(affine) => widen_affine_row::<A>(affine, matrix.columns, row, out),
    }
}

/// Elements of a plain type, exactly.
#[inline(always)]
pub(crate) fn widen(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::BF16 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = bf16_to_f32(u16::from_le_bytes(bytes));
            }
        }
        Dtype::F16 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *out = f16_to_f32(u16::from_le_bytes(bytes));
            }
        }
        _ => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
    }
}

#[inline(always)]
fn widen_affine_row<A: Arithmetic>(affine: &Affine, columns: usize, row: usize, out: &mut [f32]) {
    let groups = columns / affine.group_size;
    let row_bytes = columns * affine.bits / 8;
    let group_bytes = affine.group_size * affine.bits / 8;
    let codes = &affine.codes[row * row_bytes..(row + 1) * row_bytes];
    let size = affine.dtype.size();
    let parameters = row * groups * size..(row + 1) * groups * size;
    let scales = &affine.scales[parameters.clone()];
    let biases = &affine.biases[parameters];
    let groups = out
        .chunks_exact_mut(affine.group_size)
        .zip(codes.chunks_exact(group_bytes))
        .zip(scales.chunks_exact(size).zip(biases.chunks_exact(size)));
    for ((out, codes), (scale, bias)) in groups {
        let scale = widen_one(affine.dtype, scale);
        let bias = widen_one(affine.dtype, bias);
        match affine.bits {
            4 => widen_codes_4::<A>(codes, scale, bias, out),
            8 => widen_codes_8::<A>(codes, scale, bias, out),
            2 => widen_codes::<A, 2>(codes, scale, bias, out),
            3 => widen_codes::<A, 3>(codes, scale, bias, out),
            5 => widen_codes::<A, 5>(codes, scale, bias, out),
            _ => widen_codes::<A, 6>(codes, scale, bias, out),
        }
    }
}

#[inline(always)]
fn widen_one(dtype: Dtype, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (Dtype::BF16, &[a, b]) => bf16_to_f32(u16::from_le_bytes([a, b])),
        (_, &[a, b]) => f16_to_f32(u16::from_le_bytes([a, b])),
        (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    }
}

#[inline(always)]
fn widen_codes_4<A: Arithmetic>(codes: &[u8], scale: f32, bias: f32, out: &mut [f32]) {
    for (codes, out) in codes.as_chunks::<{ UNIT / 2 }>().0.iter().zip(out.as_chunks_mut::<UNIT>().0) {
        let (even, odd) = out.split_at_mut(UNIT / 2);
        // One loop a half, each a load, a conversion and a store of neighbours: what vector units do best.
        for (&code, even) in codes.iter().zip(even) {
            *even = A::multiply_add(f32::from(code & 15), scale, bias);
        }
        for (&code, odd) in codes.iter().zip(odd) {
            *odd = A::multiply_add(f32::from(code >> 4), scale, bias);
        }
    }
}

#[inline(always)]
fn widen_codes_8<A: Arithmetic>(codes: &[u8], scale: f32, bias: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = A::multiply_add(f32::from(code), scale, bias);
    }
}

/// Any width: eight codes fill `BITS` bytes.
#[inline(always)]
fn widen_codes<A: Arithmetic, const BITS: usize>(codes: &[u8], scale: f32, bias: f32, out: &mut [f32]) {
    for (out, packed) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes.as_chunks::<BITS>().0) {
        // By shifts, not through an array: a load that is wider than the store before it waits for that store.
        let word = packed.iter().rev().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
        for (index, out) in out.iter_mut().enumerate() {
            let code = (word >> (BITS * index)) as i32 & ((1 << BITS) - 1);
            *out = A::multiply_add(code as f32, scale, bias);
        }
    }
}

/// The value of bf16 bits.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of f16 bits, without a branch: exponent and fraction move to their places in f32, and a product with
/// 2¹¹² mends the exponent, of subnormals too; infinities and NaN get the highest exponent afterwards.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    const MEND: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7FFF) << 13;
    let finite = (f32::from_bits(magnitude) * MEND).to_bits();
    let value = if bits & 0x7C00 == 0x7C00 { magnitude | 0x7F80_0000 } else { finite };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}
