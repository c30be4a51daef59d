//! What `mlx-rs` calls and the published `mlx-sys` offers on macOS alone; ours offers it everywhere.

#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use mlx_rs::Array;
use mlx_rs::random::RandomState;

/// Sign, largest, smallest and a fraction: each bit of a half-precision number is set in one of them.
const NUMBERS: [f32; 4] = [-1.5, 65504.0, 5.960_464_5e-8, 0.333_251_95];

#[test]
fn half_precision_numbers_come_back_bit_for_bit() {
    let halves = NUMBERS.map(f16::from_f32);
    let array = Array::from_slice(&halves, &[4]);
    assert_eq!(array.as_slice::<f16>(), halves);
    let brains = NUMBERS.map(bf16::from_f32);
    let array = Array::from_slice(&brains, &[4]);
    assert_eq!(array.as_slice::<bf16>(), brains);
    for (half, brain) in halves.into_iter().zip(brains) {
        assert_eq!(Array::from_slice(&[half], &[]).item_exact::<f16>(), half);
        assert_eq!(Array::from_slice(&[brain], &[]).item_exact::<bf16>(), brain);
    }
}

#[test]
fn a_generator_without_a_seed_takes_one_from_the_clock() {
    let keys = || RandomState::new().unwrap().next_key().unwrap().as_slice::<u32>().to_vec();
    let first = keys();
    // Clocks of some machines tick slowly; the limit is far beyond any of them.
    assert!((0..1_000_000).any(|_| keys() != first), "every generator starts alike");
}

#[test]
fn an_error_comes_back_with_its_reason() {
    let (a, b) = (Array::from_slice(&[1.0_f32; 6], &[2, 3]), Array::from_slice(&[1.0_f32; 8], &[2, 4]));
    let error = a.matmul(&b).unwrap_err();
    assert!(error.what().contains("matmul"), "{error}");
}
