//! The microscaling quantisers (mxfp4, mxfp8, nvfp4) and their inverse, equal to `mx.quantize` and `mx.dequantize` of
//! MLX 0.32.2 on a CPU, byte for byte. [`quantize`](crate::quantize) and [`dequantize`](crate::dequantize) call them.
//!
//! A weight is a small float, E2M1 (4 bits) or E4M3 (8 bits), times the scale of its group: a power of two (mx modes,
//! one byte of exponent, OCP Microscaling Formats 1.0) or an E4M3 number (nvfp4). Arithmetic is that of the weights'
//! type: each operation is done in F32 and rounded to it. Where a comparison can tell the rounded result from the
//! unrounded one, the rounding is left out.

#![allow(
    clippy::inline_always,
    reason = "what a thread's work calls is compiled for its vectors only where it is inlined"
)]

use crate::matrix::{
    MatrixView, QuantizedTensors, QuantizedView, check_float, check_length, groups_of, load, round, run_all, share_of,
    store,
};
use crate::{Dtype, Error, Mode, Quantization};

/// The numbers of E2M1 by their code, without the sign bit 8.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// Half way between neighbours of [`E2M1`]; the half-way point itself belongs to the smaller one.
const MIDDLES: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];

/// Beyond this, F32 cannot tell the distances to the numbers of E2M1 apart.
const DISTINCT: f32 = 16_777_216.0;

const E2M1_MAX: f32 = 6.0;
const E4M3_MAX: f32 = 448.0;

/// Quantises a matrix to one of the modes without biases, on `threads` threads.
pub(crate) fn quantize_microscaling(
    matrix: MatrixView<'_>,
    format: Quantization,
    threads: usize,
) -> Result<QuantizedTensors, Error> {
    let MatrixView { rows, columns, dtype, data } = matrix;
    let what = "a matrix to quantise";
    let groups = groups_of(format, rows, columns, what)?;
    check_float(what, dtype)?;
    let group = format.group_size() as usize;
    check_length(what, data, groups * group, dtype.size())?;
    let packed = group * format.bits() as usize / 8;
    let mut out = QuantizedTensors { weight: vec![0; groups * packed], scales: vec![0; groups], biases: Vec::new() };
    let share = share_of(groups, threads);
    let shares = data
        .chunks(share * group * dtype.size())
        .zip(out.weight.chunks_mut(share * packed).zip(out.scales.chunks_mut(share)));
    let works = shares.map(|(data, (weight, scales))| Share { mode: format.mode(), dtype, data, weight, scales });
    run_all(works, share == groups);
    Ok(out)
}

/// The plain matrix of a quantised one, in `matrix.dtype`: number and scale are rounded to it, then their product is.
pub(crate) fn dequantize_microscaling(
    matrix: QuantizedView<'_>,
    format: Quantization,
    threads: usize,
) -> Result<Vec<u8>, Error> {
    let QuantizedView { rows, columns, dtype, weight, scales, biases } = matrix;
    let what = "a matrix to dequantise";
    let groups = groups_of(format, rows, columns, what)?;
    check_float(what, dtype)?;
    let group = format.group_size() as usize;
    let packed = group * format.bits() as usize / 8;
    check_length("packed codes", weight, groups, packed)?;
    check_length("scales", scales, groups, 1)?;
    check_length("biases of a mode that has none", biases, groups, 0)?;
    let total = groups.checked_mul(group * dtype.size()).ok_or_else(|| Error::Unfit {
        what,
        expected: "a size that memory can hold".to_owned(),
        found: format!("{rows} rows of {columns}"),
    })?;
    let mut out = vec![0; total];
    let share = share_of(groups, threads);
    let shares =
        out.chunks_mut(share * group * dtype.size()).zip(weight.chunks(share * packed).zip(scales.chunks(share)));
    let works = shares.map(|(out, (weight, scales))| {
        move || {
            let groups = out.chunks_exact_mut(group * dtype.size()).zip(weight.chunks_exact(packed)).zip(scales);
            for ((out, weight), &scale) in groups {
                dequantize_group(format.mode(), dtype, weight, scale, out);
            }
        }
    });
    run_all(works, share == groups);
    Ok(out)
}

/// The groups that one thread quantises; the lengths of the slices agree.
struct Share<'a> {
    mode: Mode,
    dtype: Dtype,
    data: &'a [u8],
    weight: &'a mut [u8],
    scales: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { mode, dtype, data, weight, scales } = self;
        match mode {
            Mode::Mxfp4 => quantize_groups::<Mxfp4, 32, 16>(dtype, data, weight, scales),
            Mode::Mxfp8 => quantize_groups::<Mxfp8, 32, 32>(dtype, data, weight, scales),
            _ => quantize_groups::<Nvfp4, 16, 8>(dtype, data, weight, scales),
        }
    }
}

/// How one mode quantises a group of `G` weights to `P` bytes: the code bytes into `out`, the scale's byte returned.
trait Group<const G: usize, const P: usize> {
    fn quantize(dtype: Dtype, values: &[f32; G], out: &mut [u8; P]) -> u8;
}

/// Quantises consecutive groups; the lengths of the slices agree.
#[inline(always)]
fn quantize_groups<M: Group<G, P>, const G: usize, const P: usize>(
    dtype: Dtype,
    data: &[u8],
    weight: &mut [u8],
    scales: &mut [u8],
) {
    let mut values = [0.0; G];
    let groups = data.chunks_exact(G * dtype.size()).zip(weight.as_chunks_mut::<P>().0).zip(scales);
    for ((data, weight), scale) in groups {
        load(dtype, data, &mut values);
        *scale = M::quantize(dtype, &values, weight);
    }
}

struct Mxfp4;

impl Group<32, 16> for Mxfp4 {
    #[inline(always)]
    fn quantize(dtype: Dtype, values: &[f32; 32], out: &mut [u8; 16]) -> u8 {
        let (byte, scaled) = scale_by_power(dtype, values, E2M1_MAX);
        // The powers of two divide exactly: there is nothing to round.
        pack_e2m1(&e2m1_codes(&scaled, Dtype::F32), out);
        byte
    }
}

struct Mxfp8;

impl Group<32, 32> for Mxfp8 {
    #[inline(always)]
    fn quantize(dtype: Dtype, values: &[f32; 32], out: &mut [u8; 32]) -> u8 {
        let (byte, scaled) = scale_by_power(dtype, values, E4M3_MAX);
        for (code, value) in out.iter_mut().zip(scaled) {
            *code = e4m3_code(value);
        }
        byte
    }
}

struct Nvfp4;

impl Group<16, 8> for Nvfp4 {
    #[inline(always)]
    fn quantize(dtype: Dtype, values: &[f32; 16], out: &mut [u8; 8]) -> u8 {
        let byte = e4m3_code(round(dtype, largest(values) / E2M1_MAX));
        let scale = e4m3_value(byte);
        let mut scaled = *values;
        for value in &mut scaled {
            *value /= scale;
        }
        pack_e2m1(&e2m1_codes(&scaled, dtype), out);
        byte
    }
}

/// The largest magnitude; not-a-number where one of them is.
#[inline(always)]
fn largest<const G: usize>(values: &[f32; G]) -> f32 {
    // Without its sign, a greater float has greater bits, and not-a-number has greater ones than infinity.
    f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7FFF_FFFF)))
}

/// The scale's byte and the weights divided by the scale: the smallest power of two that leaves none above `most`.
///
/// As in MLX, a group of zeros has scale 1, and an exponent below −127 wraps around in its byte. A group with an
/// infinite weight or one that is not a number gets what MLX makes of it on x86-64: a division by zero, and 128 (F32)
/// or 0 as its byte.
#[inline(always)]
fn scale_by_power<const G: usize>(dtype: Dtype, values: &[f32; G], most: f32) -> (u8, [f32; G]) {
    let scale = round(dtype, largest(values) / most);
    if scale == 0.0 {
        return (127, *values);
    }
    if !scale.is_finite() {
        let quotient = |value: f32| if value.is_nan() { value } else { f32::INFINITY.copysign(value) };
        let invalid = if dtype == Dtype::BF16 { f32::NAN } else { -f32::NAN };
        let divided = values.map(|value| if value == 0.0 { invalid } else { quotient(value) });
        return (if dtype == Dtype::F32 { 128 } else { 0 }, divided);
    }
    let exponent = exponent_above(scale);
    let byte = (exponent + 127) as u8;
    if (-126..=126).contains(&exponent) {
        let inverse = f32::from_bits(((127 - exponent) as u32) << 23);
        let mut scaled = *values;
        for value in &mut scaled {
            *value *= inverse;
        }
        return (byte, scaled);
    }
    let power = power_of_two(exponent);
    (byte, values.map(|value| value / power))
}

/// The exponent of the smallest power of two that is not below a positive finite number.
fn exponent_above(value: f32) -> i32 {
    // A subnormal number is a whole multiple of 2^-149.
    let bits = value.to_bits();
    if bits < 1 << 23 {
        return bits.next_power_of_two().trailing_zeros() as i32 - 149;
    }
    (bits >> 23) as i32 - 127 + i32::from(bits & 0x7F_FFFF != 0)
}

/// 2^exponent, for exponents from −149 to 128 (infinity).
fn power_of_two(exponent: i32) -> f32 {
    if exponent < -126 {
        f32::from_bits(1 << (exponent + 149))
    } else {
        f32::from_bits(((exponent + 127) as u32) << 23)
    }
}

/// [`MIDDLES`] for quotients not rounded to `dtype` yet: the greatest F32 that rounds to the middle, whose even last
/// digit wins ties.
const fn rounded_middles(dtype: Dtype) -> [f32; 7] {
    // Half of the last digit of the type, in units of the last digit of F32.
    let half = match dtype {
        Dtype::BF16 => 1 << 15,
        Dtype::F16 => 1 << 12,
        _ => 0,
    };
    let mut middles = MIDDLES;
    let mut index = 0;
    while index < middles.len() {
        middles[index] = f32::from_bits(MIDDLES[index].to_bits() + half);
        index += 1;
    }
    middles
}

/// The codes of the numbers nearest to the values once these are rounded to `dtype`. What becomes zero has no sign;
/// where no number is nearer than the others, as for infinity, the code is 0.
#[inline(always)]
fn e2m1_codes<const G: usize>(values: &[f32; G], dtype: Dtype) -> [u8; G] {
    if !values.iter().fold(true, |all, value| all & (value.abs() < DISTINCT)) {
        return values.map(|value| nearest_of_all(round(dtype, value)));
    }
    let middles = rounded_middles(dtype);
    let mut codes = [0; G];
    for (code, value) in codes.iter_mut().zip(values) {
        let magnitude = value.abs();
        let nearest = middles.iter().fold(0, |code, &middle| code + u32::from(magnitude > middle));
        let sign = value.to_bits() >> 28 & 8;
        *code = (if nearest == 0 { 0 } else { nearest | sign }) as u8;
    }
    codes
}

/// The code whose number is nearest to `value` in F32, the first of several.
fn nearest_of_all(value: f32) -> u8 {
    let number = |code: u8| if code < 8 { E2M1[code as usize] } else { -E2M1[code as usize - 8] };
    let distance = |code: u8| (value - number(code)).abs();
    (1..16).fold(0, |best, code| if distance(code) < distance(best) { code } else { best })
}

#[inline(always)]
fn pack_e2m1(codes: &[u8], out: &mut [u8]) {
    for (byte, &[low, high]) in out.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = low | high << 4;
    }
}

/// The E4M3 number nearest to `value`, ties to even: at most ±448, which not-a-number becomes too.
#[inline(always)]
fn e4m3_code(value: f32) -> u8 {
    const SMALLEST_NORMAL: u32 = 121 << 23;
    // Where this is added, the last digit of F32 is that of E4M3's subnormal numbers, 2^-9.
    const ALIGN: f32 = 16_384.0;
    let bits = value.to_bits() & 0x7FFF_FFFF;
    let subnormal = (f32::from_bits(bits) + ALIGN).to_bits().wrapping_sub(ALIGN.to_bits());
    let normal = ((bits + 0x7_FFFF + (bits >> 20 & 1)) >> 20).wrapping_sub(120 << 3);
    let code = if bits < SMALLEST_NORMAL { subnormal } else { normal };
    let code = if bits >= E4M3_MAX.to_bits() { 0x7E } else { code };
    (code | value.to_bits() >> 24 & 0x80) as u8
}

/// The number of an E4M3 code. MLX knows no not-a-number here: 0x7F is 480.
#[inline(always)]
fn e4m3_value(code: u8) -> f32 {
    let (exponent, digits) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let magnitude =
        if exponent == 0 { digits * power_of_two(-9) } else { (8.0 + digits) * power_of_two(exponent - 10) };
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

#[inline(always)]
fn dequantize_group(mode: Mode, dtype: Dtype, weight: &[u8], scale: u8, out: &mut [u8]) {
    let scale = match mode {
        Mode::Nvfp4 => e4m3_value(scale),
        _ => round(dtype, power_of_two(i32::from(scale) - 127)),
    };
    let mut out = out.chunks_exact_mut(dtype.size());
    let mut put = |number: f32| {
        if let Some(out) = out.next() {
            store(dtype, number * scale, out);
        }
    };
    for &byte in weight {
        if mode == Mode::Mxfp8 {
            put(e4m3_value(byte));
            continue;
        }
        for code in [byte & 15, byte >> 4] {
            let magnitude = E2M1[usize::from(code & 7)];
            put(if code < 8 { magnitude } else { -magnitude });
        }
    }
}
