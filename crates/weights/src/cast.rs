//! Casts between F32, F16 and BF16, to the bit as MLX's `astype` does them on a CPU: round half to even, overflow to
//! infinity, subnormals kept. A NaN becomes what MLX on x86-64 makes of it, on every machine.
//!
//! The builder casts whole tensors; the quantiser casts scales and reads weights through the same few functions.

#![allow(
    clippy::inline_always,
    reason = "what a thread's work calls is compiled for its vectors only where it is inlined"
)]

use bytes::Bytes;
use half::{bf16, f16};

use crate::{Dtype, Error, Tensor};

/// Casts little-endian `data` of type `from` into a new buffer of type `to`. Both must be F32, F16 or BF16.
pub fn cast(from: Dtype, to: Dtype, data: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(data.len() / from.size().max(1) * to.size());
    cast_into(from, to, data, &mut out)?;
    Ok(out)
}

/// As [`cast`], appending to `out`, so that a long tensor can be cast piece by piece.
pub fn cast_into(from: Dtype, to: Dtype, data: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    for dtype in [from, to] {
        if !dtype.is_weight_float() {
            return Err(Error::Unfit {
                what: "a cast between types of weights",
                expected: "F32, F16 or BF16".to_owned(),
                found: dtype.to_string(),
            });
        }
    }
    if !data.len().is_multiple_of(from.size()) {
        return Err(Error::Unfit {
            what: "data to cast",
            expected: format!("a multiple of {} bytes", from.size()),
            found: format!("{} bytes", data.len()),
        });
    }
    if from == to {
        out.extend_from_slice(data);
        return Ok(());
    }
    match (from, to) {
        (Dtype::F32, Dtype::BF16) => convert(data, out, |b| bf16_bits(f32::from_le_bytes(b)).to_le_bytes()),
        (Dtype::F32, _) => convert(data, out, |b| f16_bits(f32::from_le_bytes(b)).to_le_bytes()),
        (Dtype::F16, Dtype::F32) => convert(data, out, |b| f16_to_f32(u16::from_le_bytes(b)).to_le_bytes()),
        (Dtype::F16, _) => convert(data, out, |b| bf16_bits(f16_to_f32(u16::from_le_bytes(b))).to_le_bytes()),
        (_, Dtype::F32) => convert(data, out, |b| bf16_to_f32(u16::from_le_bytes(b)).to_le_bytes()),
        _ => convert(data, out, |b| f16_bits(bf16_to_f32(u16::from_le_bytes(b))).to_le_bytes()),
    }
    Ok(())
}

/// The tensor in type `to`: the same bytes, shared, where it has that type already.
pub fn cast_tensor(tensor: &Tensor, to: Dtype) -> Result<Tensor, Error> {
    let data =
        if tensor.dtype == to { tensor.data.clone() } else { Bytes::from(cast(tensor.dtype, to, &tensor.data)?) };
    Ok(Tensor { dtype: to, shape: tensor.shape.clone(), data })
}

fn convert<const FROM: usize, const TO: usize>(data: &[u8], out: &mut Vec<u8>, one: impl Fn([u8; FROM]) -> [u8; TO]) {
    let (elements, _) = data.as_chunks::<FROM>();
    let start = out.len();
    out.resize(start + elements.len() * TO, 0);
    for (target, &element) in out[start..].as_chunks_mut::<TO>().0.iter_mut().zip(elements) {
        *target = one(element);
    }
}

/// Bits of the BF16 nearest to `value`; any NaN gives 0x7FC0.
pub(crate) fn bf16_bits(value: f32) -> u16 {
    if value.is_nan() { 0x7FC0 } else { bf16::from_f32(value).to_bits() }
}

/// Bits of the F16 nearest to `value`; any NaN gives 0x7D00 with its sign.
pub(crate) fn f16_bits(value: f32) -> u16 {
    if value.is_nan() { 0x7D00 | u16::from(value.is_sign_negative()) << 15 } else { f16::from_f32(value).to_bits() }
}

/// The value of BF16 bits, exactly.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of F16 bits, exactly; a NaN keeps sign and payload and becomes quiet.
///
/// Branch-free, so that the loops over it become vector code: exponent and fraction move to their F32 places and a
/// multiplication by 2^112 corrects the exponent's bias, for subnormals too; infinities and NaN are put right after.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7FFF) << 13;
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let quiet = u32::from(bits & 0x7FFF > 0x7C00) << 22;
    let special = magnitude | 0x7F80_0000 | quiet;
    let result = if bits & 0x7C00 == 0x7C00 { special } else { finite };
    f32::from_bits(result | u32::from(bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_as_the_half_crate_does() {
        for bits in 0..=u16::MAX {
            assert_eq!(f16_to_f32(bits).to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn types_that_are_no_weights_are_refused() {
        let message = cast(Dtype::I64, Dtype::F32, &[0; 8]).unwrap_err().to_string();
        assert!(message.contains("expected F32, F16 or BF16, found I64"), "{message}");
        let message = cast(Dtype::F32, Dtype::F16, &[0; 7]).unwrap_err().to_string();
        assert!(message.contains("multiple of 4 bytes") && message.contains("7 bytes"), "{message}");
    }
}
