//! The affine quantiser and its inverse, equal to `mx.quantize` and `mx.dequantize` of MLX 0.32.2 on a CPU, byte for
//! byte. The builder quantises with it; tests and backends without a kernel dequantise with it.
//!
//! A group of weights has one scale and one bias: weight ≈ code · scale + bias. The value of the group that is largest
//! by magnitude is met exactly (up to the rounding of scale and bias), and zero is a code. All arithmetic is F32; the
//! codes come from the unrounded scale and bias, which are rounded to the type of the weights only when stored.
//! MLX's kernels for GPUs round differently: the CPU's result is the definition, so that a recipe gives one digest.

#![allow(
    clippy::inline_always,
    reason = "what a thread's work calls is compiled for its vectors only where it is inlined"
)]

use crate::matrix::{
    MatrixView, QuantizedTensors, QuantizedView, check_float, check_length, groups_of, load, round, run_all, share_of,
    store,
};
use crate::{Dtype, Error, Mode, Quantization};

/// Affine quantisation with this many bits and this group size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Affine {
    bits: u32,
    group_size: u32,
}

impl Affine {
    /// 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128.
    pub fn new(bits: u32, group_size: u32) -> Result<Self, Error> {
        Quantization::new(Mode::Affine, bits, group_size).map(|_| Self { bits, group_size })
    }

    /// Bits a weight.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Weights a scale.
    pub const fn group_size(self) -> u32 {
        self.group_size
    }

    /// Bytes of the codes of one group.
    const fn group_bytes(self) -> usize {
        (self.group_size * self.bits / 8) as usize
    }
}

impl From<Affine> for Quantization {
    fn from(affine: Affine) -> Self {
        Quantization::new(Mode::Affine, affine.bits, affine.group_size).expect("Affine::new has checked the format")
    }
}

impl TryFrom<Quantization> for Affine {
    type Error = Error;

    fn try_from(quantization: Quantization) -> Result<Self, Error> {
        if quantization.mode() == Mode::Affine {
            return Self::new(quantization.bits(), quantization.group_size());
        }
        Err(Error::Unfit {
            what: "a quantisation of mode affine",
            expected: Mode::Affine.name().to_owned(),
            found: quantization.mode().name().to_owned(),
        })
    }
}

/// Quantises a matrix on `threads` threads (at least one). The result is independent of their number, and rows are
/// independent of each other, so that a long matrix can be handed over in slabs of rows.
///
/// Not-a-number weights are passed over when a group's range is found and get code 0; an infinite one makes the
/// group's scale not-a-number and its codes 0. That is what MLX does on x86-64, down to the sign of the NaN, which
/// hardware disagrees on and which is therefore fixed here.
pub fn quantize_affine(matrix: MatrixView<'_>, affine: Affine, threads: usize) -> Result<QuantizedTensors, Error> {
    let MatrixView { rows, columns, dtype, data } = matrix;
    let what = "a matrix to quantise";
    let groups = groups_of(affine.into(), rows, columns, what)?;
    check_float(what, dtype)?;
    check_length(what, data, groups * affine.group_size as usize, dtype.size())?;
    let mut out = QuantizedTensors {
        weight: vec![0; groups * affine.group_bytes()],
        scales: vec![0; groups * dtype.size()],
        biases: vec![0; groups * dtype.size()],
    };
    let share = share_of(groups, threads);
    let weight_bytes = affine.group_size as usize * dtype.size();
    let shares = data
        .chunks(share * weight_bytes)
        .zip(out.weight.chunks_mut(share * affine.group_bytes()))
        .zip(out.scales.chunks_mut(share * dtype.size()).zip(out.biases.chunks_mut(share * dtype.size())));
    let works = shares.map(|((data, weight), (scales, biases))| Share { dtype, affine, data, weight, scales, biases });
    run_all(works, share == groups);
    Ok(out)
}

/// The matrix `[rows, columns]` of a quantised one, in the type of its scales: code · scale is rounded to that type,
/// then the sum with the bias is.
pub fn dequantize_affine(matrix: QuantizedView<'_>, affine: Affine, threads: usize) -> Result<Vec<u8>, Error> {
    let QuantizedView { rows, columns, dtype, weight, scales, biases } = matrix;
    let what = "a matrix to dequantise";
    let groups = groups_of(affine.into(), rows, columns, what)?;
    check_float(what, dtype)?;
    check_length("packed codes", weight, groups, affine.group_bytes())?;
    check_length("scales", scales, groups, dtype.size())?;
    check_length("biases", biases, groups, dtype.size())?;
    let weight_bytes = affine.group_size as usize * dtype.size();
    let total = groups.checked_mul(weight_bytes).ok_or_else(|| Error::Unfit {
        what,
        expected: "a size that memory can hold".to_owned(),
        found: format!("{rows} rows of {columns}"),
    })?;
    let mut out = vec![0; total];
    let share = share_of(groups, threads);
    let shares = out
        .chunks_mut(share * weight_bytes)
        .zip(weight.chunks(share * affine.group_bytes()))
        .zip(scales.chunks(share * dtype.size()).zip(biases.chunks(share * dtype.size())));
    let works = shares
        .map(|((out, weight), (scales, biases))| move || dequantize_groups(dtype, affine, weight, scales, biases, out));
    run_all(works, share == groups);
    Ok(out)
}

/// The groups that one thread quantises; the lengths of the slices agree.
struct Share<'a> {
    dtype: Dtype,
    affine: Affine,
    data: &'a [u8],
    weight: &'a mut [u8],
    scales: &'a mut [u8],
    biases: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { dtype, affine, data, weight, scales, biases } = self;
        match affine.group_size {
            32 => quantize_groups::<32>(dtype, affine.bits, data, weight, scales, biases),
            64 => quantize_groups::<64>(dtype, affine.bits, data, weight, scales, biases),
            _ => quantize_groups::<128>(dtype, affine.bits, data, weight, scales, biases),
        }
    }
}

/// Quantises consecutive groups of `G` weights; the lengths of the slices agree.
#[inline(always)]
fn quantize_groups<const G: usize>(
    dtype: Dtype,
    bits: u32,
    data: &[u8],
    weight: &mut [u8],
    scales: &mut [u8],
    biases: &mut [u8],
) {
    let size = dtype.size();
    let mut values = [0.0; G];
    let groups = data
        .chunks_exact(G * size)
        .zip(weight.chunks_exact_mut(G * bits as usize / 8))
        .zip(scales.chunks_exact_mut(size).zip(biases.chunks_exact_mut(size)));
    for ((data, weight), (scale, bias)) in groups {
        load(dtype, data, &mut values);
        let (codes, group_scale, group_bias) = quantize_group(&values, ((1_u32 << bits) - 1) as f32);
        pack(bits, &codes, weight);
        store(dtype, group_scale, scale);
        store(dtype, group_bias, bias);
    }
}

/// Codes, scale and bias of one group; `highest` is the largest code.
#[inline(always)]
fn quantize_group<const G: usize>(values: &[f32; G], highest: f32) -> ([u8; G], f32, f32) {
    let (min, max) = range(values);
    let min_is_edge = min.abs() > max.abs();
    let step = (max - min) / highest;
    // A comparison, not `f32::max`: a not-a-number step stays one.
    let step = if step < 1e-7 { 1e-7 } else { step };
    let (edge, mut scale) = if min_is_edge { (min, step) } else { (max, -step) };
    let mut bias = 0.0;
    let edge_code = (edge / scale).round_ties_even();
    if edge_code != 0.0 {
        scale = edge / edge_code;
        bias = edge;
    }
    if scale.is_nan() {
        // x86-64 gives an invalid operation the negative NaN, and the negation above flips it where the range itself
        // was invalid: a group of one infinity alone.
        scale = f32::from_bits(if min == max { 0x7FC0_0000 } else { 0xFFC0_0000 });
    }
    let mut codes = [0; G];
    for (code, &value) in codes.iter_mut().zip(values) {
        let position = (value - bias) / scale;
        // Clamping to whole numbers before rounding gives what clamping afterwards does; not-a-number becomes 0.
        let position = if position > 0.0 { position } else { 0.0 };
        let position = if position < highest { position } else { highest };
        // Above 2^23 an F32 has no fraction, so this sum rounds half to even and leaves the code in the low bits.
        *code = (position + 8_388_608.0).to_bits() as u8;
    }
    (codes, scale, bias)
}

/// Smallest and largest value, not-a-numbers passed over: (+∞, −∞) where there is nothing else.
#[inline(always)]
fn range<const G: usize>(values: &[f32; G]) -> (f32, f32) {
    const LANES: usize = 16;
    let mut smallest = [f32::INFINITY; LANES];
    let mut largest = [f32::NEG_INFINITY; LANES];
    for lanes in values.as_chunks::<LANES>().0 {
        for ((value, low), high) in lanes.iter().zip(&mut smallest).zip(&mut largest) {
            *low = if *value < *low { *value } else { *low };
            *high = if *value > *high { *value } else { *high };
        }
    }
    // Halving keeps the lanes in vectors down to the last few.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let (low, high) = (smallest[lane + width], largest[lane + width]);
            smallest[lane] = if low < smallest[lane] { low } else { smallest[lane] };
            largest[lane] = if high > largest[lane] { high } else { largest[lane] };
        }
        width /= 2;
    }
    (smallest[0], largest[0])
}

/// Packs codes from the lowest bit up: eight codes fill `bits` bytes.
#[inline(always)]
fn pack(bits: u32, codes: &[u8], out: &mut [u8]) {
    match bits {
        2 => pack_width::<2>(codes, out),
        3 => pack_width::<3>(codes, out),
        4 => pack_width::<4>(codes, out),
        5 => pack_width::<5>(codes, out),
        6 => pack_width::<6>(codes, out),
        _ => out.copy_from_slice(codes),
    }
}

#[inline(always)]
fn pack_width<const BITS: usize>(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<BITS>().0) {
        // Neighbours move together: eight codes in bytes, four pairs, two fours, one word.
        let bytes = u64::from_le_bytes(*codes);
        let pairs = bytes & 0x00FF_00FF_00FF_00FF | (bytes >> 8 & 0x00FF_00FF_00FF_00FF) << BITS;
        let fours = pairs & 0x0000_FFFF_0000_FFFF | (pairs >> 16 & 0x0000_FFFF_0000_FFFF) << (2 * BITS);
        let word = fours & 0xFFFF_FFFF | (fours >> 32) << (4 * BITS);
        out.copy_from_slice(&word.to_le_bytes()[..BITS]);
    }
}

#[inline(always)]
fn dequantize_groups(dtype: Dtype, affine: Affine, weight: &[u8], scales: &[u8], biases: &[u8], out: &mut [u8]) {
    let size = dtype.size();
    let bits = affine.bits as usize;
    let mask = (1_u64 << bits) - 1;
    let groups = out
        .chunks_exact_mut(affine.group_size as usize * size)
        .zip(weight.chunks_exact(affine.group_bytes()))
        .zip(scales.chunks_exact(size).zip(biases.chunks_exact(size)));
    for ((out, weight), (scale, bias)) in groups {
        let mut parameters = [0.0; 2];
        load(dtype, scale, &mut parameters[..1]);
        load(dtype, bias, &mut parameters[1..]);
        let [scale, bias] = parameters;
        for (out, packed) in out.chunks_exact_mut(8 * size).zip(weight.chunks_exact(bits)) {
            let mut word = [0; 8];
            word[..bits].copy_from_slice(packed);
            let word = u64::from_le_bytes(word);
            for (index, out) in out.chunks_exact_mut(size).enumerate() {
                let code = (word >> (index * bits) & mask) as f32;
                let product = round(dtype, code * scale);
                store(dtype, product + bias, out);
            }
        }
    }
}
