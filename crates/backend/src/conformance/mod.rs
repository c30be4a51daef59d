//! What every device must compute, each operation against its definition in f64. The tests of the devices call
//! [`check`]; a failed check panics and says which operation, which case and by how much.

// The caller is a test: what fails here fails there.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

mod attention;
mod elementwise;
mod position;
mod products;

use bytes::Bytes;
use mlxctl_weights::{Dtype, Tensor};

use crate::Backend;

/// What a device promises beyond the operations themselves.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// Largest difference from the exact result, as a part of the largest magnitude in it.
    pub tolerance: f64,
    /// A row's result is the same to the bit alone, in a batch and in any chunking.
    pub batch_invariant: bool,
}

/// Runs every check.
pub fn check<B: Backend>(backend: &B, promises: Promises) {
    elementwise::check(backend, promises);
    products::check(backend, promises);
    position::check(backend, promises);
    attention::check(backend, promises);
}

/// Numbers in [−1, 1) that differ from one `seed` to another: SplitMix64, the upper 24 bits.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let start = seed.wrapping_mul(0xD134_2543_DE82_EF95);
    (1..=count as u64)
        .map(|index| {
            let x = start.wrapping_add(index.wrapping_mul(STEP));
            let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// A tensor of a plain type whose data starts at an odd address, as in many files.
fn tensor(dtype: Dtype, shape: &[usize], values: &[f32]) -> Tensor {
    let plain: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let data = mlxctl_weights::cast(Dtype::F32, dtype, &plain).unwrap();
    Tensor { dtype, shape: shape.to_vec(), data: misaligned(data) }
}

/// The same bytes at an odd address.
fn misaligned(data: Vec<u8>) -> Bytes {
    let mut padded = vec![0; data.len() + 2];
    let offset = 1 + (padded.as_ptr() as usize & 1);
    let offset = if offset == 2 { 0 } else { offset };
    padded[offset..offset + data.len()].copy_from_slice(&data);
    Bytes::from(padded).slice(offset..offset + data.len())
}

/// The values of a plain tensor, exactly.
fn values(tensor: &Tensor) -> Vec<f64> {
    let plain = mlxctl_weights::cast(tensor.dtype, Dtype::F32, &tensor.data).unwrap();
    plain.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect()
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &[f64], promises: Promises) {
    assert_eq!(found.len(), expected.len(), "{what}: number of results");
    let unit = expected.iter().fold(1e-3_f64, |unit, value| unit.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(
            difference <= promises.tolerance * unit,
            "{what}, at {index}: found {found}, expected {expected}, largest {unit}"
        );
    }
}

fn assert_same_bits(what: &str, found: &[f32], expected: &[f32]) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected), "{what}: not the same bits");
}
